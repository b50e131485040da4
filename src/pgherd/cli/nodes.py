"""Commands that make a herd larger or smaller: node add, node drain, rebalance."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..client import AsyncHerd, connect_async
from ..elastic import drain_plan, rebalance_plan
from ..herdfile import default_home
from ..local.herd import LocalHerd
from ..model.placement import Label
from ..planning.plan import Plan
from ..planning.rebalance import Move
from ..status import status_of
from .options import DsnOption, HomeOption, JsonOption
from .output import err, out, print_json, size, table_of
from .progress import execute_with_progress
from .servers import show_groups

node = typer.Typer(help="Servers of a herd.", no_args_is_help=True)
PlanOption = Annotated[bool, typer.Option("--plan", help="Print the moves and change nothing.")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(node, name="node")
    app.command()(rebalance)


@node.command()
def add(
    region: Annotated[str, typer.Option(help="Where the new server is: [cloud.]region[.zone].")],
    rebalance: Annotated[bool, typer.Option(help="Give it its fair share of the shards at once.")] = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Start one more local server, make it part of the herd, and give it its share of the shards."""
    where = home or default_home()
    label = Label.parse(region)
    with err.status("starting") as line:
        LocalHerd(where).add(label, None, lambda text: line.update(escape(text)))
    asyncio.run(_add(where, rebalance, json))


async def _add(home: Path, move: bool, json: bool) -> None:
    async with connect_async(home=home) as herd:  # which lets the new server join
        moves: tuple[Move, ...] = ()
        seconds = 0.0
        if move:
            moves, plan = await rebalance_plan(herd)
            seconds = await _run(herd, plan)
        document = await status_of(herd)
    if json:
        print_json({**document, "moves": [_move(m) for m in moves]})
        return
    show_groups(document)
    out.print()
    _show(moves, seconds)


@node.command()
def drain(
    group: Annotated[str, typer.Argument(help="The group to empty.")],
    plan: PlanOption = False,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Move all shards out of a group, while they are in use, to where their tablespaces allow."""
    asyncio.run(_change(group, plan, home, dsn, json))


def rebalance(
    plan: PlanOption = False,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Even out the groups' bytes by moving shards, while they are in use, within what tablespaces allow."""
    asyncio.run(_change(None, plan, home, dsn, json))


async def _change(group: str | None, only_plan: bool, home: Path | None, dsn: str | None, json: bool) -> None:
    async with connect_async(dsn, home=home) as herd:
        moves, plan = await (drain_plan(herd, group) if group else rebalance_plan(herd))
        seconds = 0.0 if only_plan else await _run(herd, plan)
        if json:
            print_json({**plan.as_json(), "moves": [_move(m) for m in moves], "moved": not only_plan})
        elif only_plan and moves:
            rows = [[", ".join(map(str, m.shards)), m.source, m.target, size(m.bytes)] for m in moves]
            out.print(
                table_of(["shards", "from", "to", "size"], rows, title=f"{len(moves)} moves, {len(plan.steps)} steps")
            )
            _show_notes(plan)
            out.print("[dim]nothing was changed; --json shows each statement[/]")
        else:
            _show(moves, seconds)


def _show_notes(plan: Plan) -> None:
    for note in plan.notes:
        out.print(escape(note))


async def _run(herd: AsyncHerd, plan: Plan) -> float:
    started = time.perf_counter()
    for note in plan.notes:
        err.print(escape(note))
    if plan.phases:
        await execute_with_progress(herd, plan, "moving")
    return time.perf_counter() - started


def _move(move: Move) -> dict[str, Any]:
    return {
        "shards": [str(s) for s in move.shards],
        "from": move.source,
        "to": move.target,
        "bytes": move.bytes,
    }


def _show(moves: tuple[Move, ...], seconds: float) -> None:
    if not moves:
        out.print("nothing to move: no shard would even the groups out enough")
        return
    for move in moves:
        shards = escape(", ".join(map(str, move.shards)))
        out.print(f"moved {shards} from {move.source} to {move.target} ({size(move.bytes)})")
    total = sum(m.bytes for m in moves)
    out.print(f"{size(total)} in {seconds:.1f} s ({size(int(total / seconds))}/s); readers and writers went on")
