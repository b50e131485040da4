"""A plan being carried out, as progress bars: one for all steps, and one for each shard that is on its way."""

from __future__ import annotations

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..client import AsyncHerd
from ..engines.conduct import Conduct
from ..engines.conduct import Progress as Heard
from ..model.topology import Topology
from ..planning.plan import Plan, Step
from .output import err, shorten, size


async def execute_with_progress(herd: AsyncHerd, plan: Plan, doing: str, conduct: Conduct | None = None) -> Topology:
    """Carry a plan out; the bars go to stderr and are gone afterwards."""
    conduct = conduct or Conduct()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        shown = _Bars(bars, doing, len(plan.steps))
        conduct.on_progress = shown.hear
        return await herd.execute(plan, shown.on_step, conduct)


class _Bars:
    def __init__(self, bars: Progress, doing: str, steps: int) -> None:
        self._bars = bars
        self._all = bars.add_task(doing, total=steps, count=f"0/{steps}")
        self._tasks: dict[tuple[str, str], TaskID] = {}

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
