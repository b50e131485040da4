"""Commands that make a herd larger or smaller: node add, node drain, node remove, rebalance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .. import members
from ..availability.recopy import recopy as copy_anew
from ..client import AsyncHerd, connect_async
from ..elastic import By, drain_plan, rebalance_plan
from ..engines.conduct import JOBS, Conduct
from ..errors import BadInput
from ..herdfile import default_home
from ..local.herd import LocalHerd
from ..model.placement import Label
from ..planning.plan import Plan
from ..planning.quantity import bytes_of
from ..planning.rebalance import Move
from ..status import status_of
from .options import DsnOption, HomeOption, JsonOption
from .output import err, out, print_json, size, table_of
from .progress import execute_with_progress
from .servers import show_groups

node = typer.Typer(help="Servers of a herd.", no_args_is_help=True)
PlanOption = Annotated[bool, typer.Option("--plan", help="Print the moves and change nothing.")]
JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", min=1, max=16, help="How many shards are copied and indexed at the same time.")
]
RateOption = Annotated[
    str | None,
    typer.Option("--max-rate", metavar="RATE", help="Copy no more than that a second, over all jobs: 20MB, 1.5GiB."),
]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(node, name="node")
    app.command()(rebalance)


@node.command()
def add(
    region: Annotated[str, typer.Option(help="Where the new server is: [cloud.]region[.zone].")],
    dsn: Annotated[
        str | None,
        typer.Option(
            "--dsn",
            metavar="DSN",
            help="A server that exists, instead of a new local one; or PGHERD_NODE_DSN.",
            envvar="PGHERD_NODE_DSN",
        ),
    ] = None,
    rebalance: Annotated[bool, typer.Option(help="Give it its fair share of the shards at once.")] = True,
    jobs: JobsOption = JOBS,
    max_rate: RateOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make one more server, a new local one or one that exists, part of the herd, and give it its share of shards."""
    where = home or default_home()
    label = Label.parse(region)
    conduct = _conduct(jobs, max_rate)
    notes: list[str] = []
    with err.status("starting") as line:
        if dsn:
            line.update("looking at the server")
            notes = asyncio.run(members.attach(where, dsn, label))
        else:
            LocalHerd(where).add(label, None, lambda text: line.update(escape(text)))
    for note in notes:
        err.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    try:
        asyncio.run(_add(where, rebalance, conduct, json))
    except KeyboardInterrupt:
        err.print("the server has joined: [bold]pgherd rebalance[/] goes on with giving it its share")
        raise


async def _add(home: Path, move: bool, conduct: Conduct, json: bool) -> None:
    async with connect_async(home=home) as herd:  # which lets the new server join
        moves: tuple[Move, ...] = ()
        seconds = 0.0
        if move:
            moves, plan = await rebalance_plan(herd)
            seconds = await _run(herd, plan, conduct)
        document = await status_of(herd)
    if json:
        print_json({**document, "moves": _moves(moves, conduct)})
        return
    show_groups(document)
    out.print()
    _show(moves, conduct, seconds)


@node.command()
def drain(
    group: Annotated[str, typer.Argument(help="The group to empty.")],
    plan: PlanOption = False,
    jobs: JobsOption = JOBS,
    max_rate: RateOption = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Move all shards out of a group, while they are in use, to where their tablespaces allow."""
    asyncio.run(_change(lambda herd: drain_plan(herd, group), plan, _conduct(jobs, max_rate), home, dsn, json))


@node.command()
def remove(
    group: Annotated[str, typer.Argument(help="The group to take out of the herd.")],
    drain: Annotated[bool, typer.Option(help="Move its shards away first; else it must be empty.")] = True,
    jobs: JobsOption = JOBS,
    max_rate: RateOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take a group out of the herd: shards move away, then a local server is stopped and its data removed."""
    asyncio.run(_remove(home or default_home(), group, drain, _conduct(jobs, max_rate), json))


async def _remove(home: Path, group: str, drains: bool, conduct: Conduct, json: bool) -> None:
    moves: tuple[Move, ...] = ()
    seconds = 0.0
    if drains and group not in members.leaving(home):
        async with connect_async(home=home) as herd:
            if len(herd.topology.groups) > 1:
                moves, plan = await drain_plan(herd, group)
                seconds = await _run(herd, plan, conduct)
    with err.status(f"taking {escape(group)} out of the herd"):
        await members.remove(home, group)
    async with connect_async(home=home) as herd:
        document = await status_of(herd)
    if json:
        print_json({**document, "removed": group, "moves": _moves(moves, conduct)})
        return
    if moves:
        _show(moves, conduct, seconds)
    out.print(f"group {escape(group)} is no longer part of the herd")
    show_groups(document)


def rebalance(
    by: Annotated[By, typer.Option(help="What is evened out; load is measured for ten seconds.")] = By.BYTES,
    plan: PlanOption = False,
    jobs: JobsOption = JOBS,
    max_rate: RateOption = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Even out what the groups hold by moving shards, while they are in use, within what tablespaces allow."""
    asyncio.run(_change(lambda herd: rebalance_plan(herd, by), plan, _conduct(jobs, max_rate), home, dsn, json))


async def _change(
    planned: Callable[[AsyncHerd], Awaitable[tuple[tuple[Move, ...], Plan]]],
    only_plan: bool,
    conduct: Conduct,
    home: Path | None,
    dsn: str | None,
    json: bool,
) -> None:
    async with connect_async(dsn, home=home) as herd:
        moves, plan = await planned(herd)
        seconds = 0.0 if only_plan else await _run(herd, plan, conduct)
        if json:
            print_json({**plan.as_json(), "moves": _moves(moves, conduct), "moved": not only_plan})
        elif only_plan and moves:
            rows = [[", ".join(map(str, m.shards)), m.source, m.target, size(m.bytes)] for m in moves]
            out.print(
                table_of(["shards", "from", "to", "size"], rows, title=f"{len(moves)} moves, {len(plan.steps)} steps")
            )
            _show_notes(plan)
            out.print("[dim]nothing was changed; --json shows each statement[/]")
        else:
            _show(moves, conduct, seconds)


@node.command()
def recopy(
    name: Annotated[str, typer.Argument(metavar="NODE", help="The standby, as pgherd status names it.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a standby anew from its primary, whatever its data is like: one that does not come up, or is damaged."""
    with err.status(f"asking for {escape(name)}") as line:
        seconds = copy_anew(home or default_home(), name, lambda text: line.update(escape(text)))
    if json:
        print_json({"node": name, "seconds": round(seconds, 2)})
    else:
        out.print(f"{escape(name)} is a copy of its primary, and follows it; that took {seconds:.1f} s")


def _conduct(jobs: int, max_rate: str | None) -> Conduct:
    rate = None if max_rate is None else bytes_of(max_rate.strip().removesuffix("/s"))
    if rate == 0:
        raise BadInput("at a rate of 0 nothing would move", hint="leave --max-rate out, or give a rate like 20MB")
    return Conduct(jobs, rate)


def _show_notes(plan: Plan) -> None:
    for note in plan.notes:
        out.print(escape(note))


async def _run(herd: AsyncHerd, plan: Plan, conduct: Conduct) -> float:
    started = time.perf_counter()
    for note in plan.notes:
        err.print(escape(note))
    if plan.phases:
        try:
            await execute_with_progress(herd, plan, "moving", conduct)
        except asyncio.CancelledError:
            err.print(
                f"stopped after {len(conduct.moved)} of {len(plan.phases)} moves, what was under way was undone;"
                " run the same command again to go on"
            )
            raise
    return time.perf_counter() - started


def _moves(moves: tuple[Move, ...], conduct: Conduct) -> list[dict[str, Any]]:
    done = {m.move: m.as_json() for m in conduct.moved}
    return [
        {"shards": [str(s) for s in m.shards], "from": m.source, "to": m.target, "bytes": m.bytes, **done.get(m, {})}
        for m in moves
    ]


def _show(moves: tuple[Move, ...], conduct: Conduct, seconds: float) -> None:
    if not moves:
        out.print("nothing to move: no shard would even the groups out enough")
        return
    for moved in conduct.moved:
        move = moved.move
        shards = escape(", ".join(map(str, move.shards)))
        out.print(
            f"moved {shards} from {move.source} to {move.target}: {moved.rows:,} rows, {size(move.bytes)};"
            f" copying {moved.copy_s:.1f} s, indexes {moved.index_s:.1f} s;"
            f" writers waited {moved.writers_waited_ms:.0f} ms at most"
        )
    total = sum(m.bytes for m in moves)
    out.print(f"{size(total)} in {seconds:.1f} s ({size(int(total / seconds))}/s); readers and writers went on")
