"""A plan being carried out, as progress bars: one for all steps, one for each shard on its way, and index builds."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..client import AsyncHerd
from ..engines.conduct import Conduct
from ..engines.conduct import Progress as Heard
from ..model.topology import Topology
from ..planning.plan import Plan, Step
from ..table import AsyncTable
from ..tuning.building import Build, watching
from ..tuning.store import Calibration
from .output import err, shorten, size


async def execute_with_progress(
    herd: AsyncHerd, plan: Plan, doing: str, conduct: Conduct | None = None, *, as_json: bool = False
) -> Topology:
    """Carry a plan out; the bars go to stderr and are gone afterwards, or index builds go there as lines of JSON."""
    conduct = conduct or Conduct()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    groups = tuple(dict.fromkeys(g for s in plan.steps if s.kind == "build_index" for g in s.groups))
    with Progress(*columns, console=err, transient=True, disable=as_json) as bars:
        shown = _Bars(bars, doing, len(plan.steps))
        conduct.on_progress = shown.hear
        async with AsyncExitStack() as stack:
            if groups:
                tell = _print if as_json else shown.builds
                await stack.enter_async_context(watching(herd.engine, groups, tell))
            return await herd.execute(plan, shown.on_step, conduct)


async def tune_with_progress(
    table: AsyncTable, column: str | None, sample: int, questions: list[str] | None = None
) -> tuple[Calibration, ...]:
    """Measure a table's vector indexes, all or one column's."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} questions"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(escape(f"measuring {table.definition.name}"), total=None)
        return await table.tune(
            column,
            sample=sample,
            questions=questions,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


class _Bars:
    """``key`` of a bar: what is worked on, and how."""

    def __init__(self, bars: Progress, doing: str, steps: int) -> None:
        self._bars = bars
        self._all = bars.add_task(doing, total=steps, count=f"0/{steps}")
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._builds: dict[tuple[str, str], TaskID] = {}

    def on_step(self, number: int, total: int, step: Step) -> None:
        text = escape(f"{step.kind} {shorten(step.target, 40)}")
        self._bars.update(self._all, completed=number, description=text, count=f"{number}/{total}")

    def hear(self, heard: Heard) -> None:
        """One bar for each shard that is copied or indexed; it goes when another sort of work begins, or at its end."""
        key = (heard.step.target, heard.step.kind)
        for old in [k for k in self._tasks if k[0] == key[0] and k != key]:
            self._bars.remove_task(self._tasks.pop(old))
        total = 1.0 if heard.share is not None else None
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task("", total=total, count="")
        task = self._tasks[key]
        elapsed = self._bars.tasks[self._bars.task_ids.index(task)].elapsed or 0.0
        count = ""
        if heard.bytes:
            rate = f" ({heard.rows / elapsed:,.0f} rows/s)" if elapsed > 0.1 else ""
            count = f"{size(heard.bytes)}, {heard.rows:,} rows{rate}"
        text = escape(f"{heard.stage} {shorten(heard.step.target, 40)}")
        self._bars.update(task, description=text, completed=heard.share or 0.0, total=total, count=count)
        if heard.share == 1.0 and heard.step.kind != "copy_rows":
            self._bars.remove_task(self._tasks.pop(key))

    def builds(self, found: list[Build]) -> None:
        """One bar for each index that is built concurrently, as the servers tell of them now."""
        now = {(b.group, b.index or b.relation): b for b in found}
        for key in [k for k in self._builds if k not in now]:
            self._bars.remove_task(self._builds.pop(key))
        for key, build in now.items():
            if key not in self._builds:
                self._builds[key] = self._bars.add_task("", total=None, count="")
            self._bars.update(
                self._builds[key],
                description=escape(f"  {build.group}: {shorten(key[1], 40)}: {build.phase}"),
                total=build.total or None,
                completed=build.done,
                count="" if build.share is None else f"{build.share:.0%}",
            )


def _print(found: list[Build]) -> None:
    for build in found:
        sys.stderr.write(json.dumps({"build": build.as_json()}) + "\n")
    sys.stderr.flush()
