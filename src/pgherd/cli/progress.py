"""A plan being carried out, as a progress bar."""

from __future__ import annotations

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..client import AsyncHerd
from ..model.topology import Topology
from ..planning.plan import Plan, Step
from .output import err, shorten


async def execute_with_progress(herd: AsyncHerd, plan: Plan, doing: str) -> Topology:
    """Carry a plan out; the bar goes to stderr and is gone afterwards."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar:
        task = bar.add_task(doing, total=len(plan.steps))

        def on_step(number: int, total: int, step: Step) -> None:
            bar.update(task, completed=number, description=escape(f"{step.kind} {shorten(step.target, 40)}"))

        return await herd.execute(plan, on_step)
