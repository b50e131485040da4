"""A plan being carried out, as progress bars; index builds as the servers tell of them."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..client import AsyncHerd, AsyncTable
from ..model.topology import Topology
from ..planning.plan import Plan, Step
from ..tuning.building import Build, watching
from ..tuning.store import Calibration
from .output import err, shorten


async def execute_with_progress(herd: AsyncHerd, plan: Plan, doing: str, *, as_json: bool = False) -> Topology:
    """Carry a plan out; the bars go to stderr and are gone afterwards, or index builds go there as lines of JSON."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    groups = tuple(dict.fromkeys(g for s in plan.steps if s.kind == "build_index" for g in s.groups))
    with Progress(*columns, console=err, transient=True, disable=as_json) as bar:
        task = bar.add_task(doing, total=len(plan.steps), count="")

        def on_step(number: int, total: int, step: Step) -> None:
            text = escape(f"{step.kind} {shorten(step.target, 40)}")
            bar.update(task, completed=number, description=text, count=f"{number}/{total}")

        async with AsyncExitStack() as stack:
            if groups:
                tell = _print if as_json else _Bars(bar)
                await stack.enter_async_context(watching(herd.engine, groups, tell))
            return await herd.execute(plan, on_step)


async def tune_with_progress(table: AsyncTable, column: str | None, sample: int) -> tuple[Calibration, ...]:
    """Measure a table's vector indexes, all or one column's."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} questions"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(escape(f"measuring {table.definition.name}"), total=None)
        return await table.tune(
            column, sample=sample, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )


class _Bars:
    """One bar a build."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[tuple[str, str | None], TaskID] = {}

    def __call__(self, found: list[Build]) -> None:
        now = {(b.group, b.index): b for b in found}
        for key in [k for k in self._tasks if k not in now]:
            self._bar.remove_task(self._tasks.pop(key))
        for key, build in now.items():
            if key not in self._tasks:
                self._tasks[key] = self._bar.add_task("", total=None, count="")
            share = build.share
            self._bar.update(
                self._tasks[key],
                description=escape(f"  {build.group}: {shorten(build.index or build.relation, 40)}: {build.phase}"),
                total=build.total or None,
                completed=build.done,
                count="" if share is None else f"{share:.0%}",
            )


def _print(found: list[Build]) -> None:
    for build in found:
        sys.stderr.write(json.dumps({"build": build.as_json()}) + "\n")
    sys.stderr.flush()
