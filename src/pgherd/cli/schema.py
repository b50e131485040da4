"""Commands about the schema: apply."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .. import dialect
from ..client import connect_async
from ..errors import BadInput
from ..model.schema import Schema
from ..planning.plan import Plan
from .measuring import measure_new
from .options import DsnOption, HomeOption, JsonOption, TuneOption
from .output import out, print_json, shorten, table_of
from .progress import execute_with_progress


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(apply)


def apply(
    schema: Annotated[Path, typer.Argument(metavar="SCHEMA.SQL", help="The whole schema; apply makes the difference.")],
    plan: Annotated[bool, typer.Option("--plan", help="Print the steps and change nothing.")] = False,
    tune: TuneOption = True,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Make the herd hold all that a schema file asks for."""
    try:
        text = schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{schema} can't be read: {error}", hint="give a file of SQL text in UTF-8") from error
    desired = dialect.parse(text, file=schema.name)
    asyncio.run(_apply(desired, plan, tune, home, dsn, json))


async def _apply(desired: Schema, only_plan: bool, tune: bool, home: Path | None, dsn: str | None, json: bool) -> None:
    async with connect_async(dsn, home=home) as herd:
        made = await herd.plan(desired)
        if only_plan or not made.steps:
            print_json(made.as_json()) if json else show_plan(made, herd.topology.generation)
            return
        reached = await execute_with_progress(herd, made, "applying", as_json=json)
        if any(step.kind == "build_index" for step in made.steps):
            await measure_new(herd, tune=tune)
        if json:
            print_json({**made.as_json(), "generation": reached.generation, "applied": True})
        else:
            _show_notes(made)
            out.print(f"applied {len(made.steps)} steps: the herd is at generation {reached.generation}")


def show_plan(plan: Plan, generation: int) -> None:
    """The steps as a table."""
    if not plan.steps:
        out.print(f"nothing to do: the herd holds all of it (generation {generation})")
        return
    rows = [
        [i, s.kind, shorten(s.target, 40), ", ".join(s.groups), s.blocks] for i, s in enumerate(plan.steps, start=1)
    ]
    title = f"plan from generation {plan.parent_generation}: {len(rows)} steps, {len(plan.phases)} commit(s)"
    out.print(table_of(["#", "step", "on", "groups", "blocks"], rows, title=title))
    _show_notes(plan)
    out.print("[dim]nothing was changed; --json shows each statement[/]")


def _show_notes(plan: Plan) -> None:
    for note in plan.notes:
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
