"""Commands about servers: up, down, destroy, attach, status, dsn."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape

from .. import herdfile, members
from ..availability.keys import last_failovers
from ..availability.takeover import takeover_state
from ..backup.recognise import archiving_of
from ..client import connect_async
from ..errors import BadInput, GroupUnavailable, InDoubt, LocalServerError
from ..herdfile import TwoNode, default_home
from ..local.herd import LocalHerd
from ..local.installation import find
from ..local.inventory import tls_state
from ..local.user import server_user
from ..model.placement import Label
from ..model.topology import EngineName
from ..status import status_of
from .options import DsnOption, HomeOption, JsonOption, RegionOption
from .output import err, out, print_json, size, table_of

WATCH_INTERVAL_S = 2.0
PLACE = ("cloud", "region", "zone")


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (up, down, destroy, attach, status, dsn):
        app.command()(command)


def up(
    regions: Annotated[
        str | None,
        typer.Option(help="Comma-separated places, a group each: [cloud.]region[.zone]. Default: three regions."),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(metavar="N", help="Nodes of each group, in zones of their own; three survive the loss of one."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PLACE,PLACE,…", help="A group with a node at each place, say over regions; repeat."),
    ] = None,
    two_node: Annotated[
        TwoNode | None,
        typer.Option(
            "--two-node",
            help="When one of two nodes is lost: durable stops writes until it is back; available goes on with one.",
        ),
    ] = None,
    single: Annotated[bool, typer.Option("--single", help="One server instead of a fleet.")] = False,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls", help="TLS for every connection, with certificates of the herd's own CA. Default: on."
        ),
    ] = None,
    pg_config: Annotated[
        str | None,
        typer.Option(
            metavar="PROGRAM", help="Use this installed PostgreSQL (16+, with pgvector); or PGHERD_PG_CONFIG."
        ),
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Start a local herd of real servers, or repair and restart the one that is there."""
    where = home or default_home()
    labels = [Label.parse(r) for r in regions.split(",")] if regions else None
    if single and labels and len(labels) > 1:
        raise BadInput("--single is one server, --regions names several", hint="leave one of the two out")
    if group and (regions or replicas or single):
        raise BadInput("--group says where each node is", hint="leave --regions, --replicas and --single out")
    if single and (replicas or 1) > 1:
        raise BadInput("--single is one server", hint="leave --replicas or --single out")
    groups = dict(_group_of(text) for text in group) if group else None
    started = time.perf_counter()
    engine = EngineName.SINGLE if single else (EngineName.FLEET if labels else None)
    with err.status("starting") as line:
        local = LocalHerd(where)

        def say(text: str) -> None:
            line.update(escape(text))

        exists = (where / herdfile.FILE_NAME).exists()
        if exists and replicas is not None and members.larger(where, replicas, two_node) is not None:
            local.up(labels, engine, pg_config, say, tls=tls)
            say("stopping the servers, for about ten seconds: they get standbys")
            asyncio.run(members.enlarge(where, replicas, two_node))
        local.up(
            labels,
            engine,
            pg_config,
            say,
            replicas=replicas,
            groups=groups,
            two_node=two_node,
            tls=tls,
        )
        for left in members.leaving(where):
            line.update(f"taking {escape(left)} out of the herd")
            asyncio.run(members.finish(where, left))
        line.update("joining the servers into one herd")
        document = asyncio.run(read_status(None, where))
    if json:
        print_json(document)
        return
    show_groups(document)
    out.print(f"\nup in {time.perf_counter() - started:.1f} s")
    out.print(f"any driver: {escape(_dsn(where, None))}", soft_wrap=True)


def _group_of(text: str) -> tuple[str, list[Label]]:
    name, _, places = text.partition("=")
    if not name or not places:
        raise BadInput(f"--group {text!r} is not NAME=PLACE,PLACE,…", hint="--group main=us-east,us-central,us-west")
    return name, [Label.parse(p) for p in places.split(",")]


def down(home: HomeOption = None, json: JsonOption = False) -> None:
    """Stop the local herd's servers cleanly; up brings it back with all data."""
    where = home or default_home()
    with err.status("stopping"):
        LocalHerd(where).down()
    if json:
        print_json({"down": True, "home": str(where)})
    else:
        out.print(f"stopped; [bold]pgherd up[/] brings it back from {escape(str(where))}")


def destroy(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Stop the local herd and remove all its data; attached servers are only forgotten."""
    where = home or default_home()
    if not yes and sys_is_terminal():
        typer.confirm(f"Remove the herd in {where} with all its data?", abort=True, err=True)
    with err.status("removing"):
        LocalHerd(where).destroy()
    if json:
        print_json({"destroyed": True, "home": str(where)})
    else:
        out.print(f"removed the herd in {escape(str(where))}")


def sys_is_terminal() -> bool:
    """Whether somebody can answer a question."""
    return err.is_terminal and typer.get_text_stream("stdin").isatty()


def attach(
    file: Annotated[Path, typer.Argument(metavar="HERD.TOML", help="Which servers, where, how to log in.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make a herd out of servers that exist (plain PostgreSQL 16+, a managed one too)."""
    where = home or default_home()
    if (where / herdfile.FILE_NAME).exists():
        raise BadInput(f"{where} is the home of a herd already", hint="name another one with --home")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} can't be read: {error.strerror}") from error
    described = herdfile.parse_toml(text, str(file))
    described = replace(described, tls=described.tls or herdfile.tls_of_environment())
    described.refuse_plain()
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    described.write(where)
    try:
        with err.status("joining the servers into one herd"):
            document = asyncio.run(read_status(None, where))
    except BaseException:
        (where / herdfile.FILE_NAME).unlink(missing_ok=True)
        raise
    print_json(document) if json else show_groups(document)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds, until Ctrl-C.")] = False,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Show groups, nodes, tables, and which shard lives where."""
    if json:
        print_json(asyncio.run(read_status(dsn, home)))
        return
    if not watch:
        out.print(_status(asyncio.run(read_status(dsn, home))), soft_wrap=True)
        return
    with Live(console=out, screen=out.is_terminal) as live:
        while True:
            try:
                live.update(_status(asyncio.run(read_status(dsn, home))))
            except (GroupUnavailable, InDoubt) as error:
                live.update(f"[red]{escape(error.message)}[/]")
            time.sleep(WATCH_INTERVAL_S)


def _status(document: dict[str, Any]) -> Group:
    return Group(*_groups(document), "", _tables(document))


async def read_status(dsn: str | None, home: Path | None) -> dict[str, Any]:
    """What ``pgherd status`` shows; opening the herd also makes it one, and lets new servers join."""
    async with connect_async(dsn, home=home) as herd:
        if dsn:
            return await status_of(herd)
        where = home or default_home()
        file = herdfile.read(where)
        document = await status_of(herd, file, await asyncio.to_thread(last_failovers, where))
        document["takeover"] = await asyncio.to_thread(takeover_state, where)
        archiving = await archiving_of(herd)
        for group in document["groups"]:
            group["archiving"] = archiving[group["name"]]
        return {**document, "tls": await asyncio.to_thread(tls_state, where, file)}


def show_groups(document: dict[str, Any]) -> None:
    """Groups and nodes as a table, and what is to be known of them."""
    out.print(Group(*_groups(document)), soft_wrap=True)


def _groups(document: dict[str, Any]) -> Iterator[Any]:
    replicated = any(len(g["nodes"]) > 1 for g in document["groups"])
    rows = [
        [
            g["name"],
            n["name"],
            f"{n['host']}:{n['port']}",
            f"{n['cloud']}.{n['region']}.{n['zone']}",
            n["role"],
            n["up"],
            *([n["timeline"], n["sync"], n["lag_bytes"], n["lag_s"]] if replicated else []),
        ]
        for g in document["groups"]
        for n in g["nodes"]
    ]
    title = f"{document['engine']} herd, generation {document['generation']}"
    columns = ["group", "node", "address", "place", "role", "up"]
    columns += ["timeline", "sync", "lag bytes", "lag s"] if replicated else []
    yield table_of(columns, rows, title=title)
    for warning in document.get("tls", {}).get("warnings", ()):
        yield f"[yellow]TLS[/] {escape(warning)}"
    for text in (document.get("takeover") or {}).get("off", ()):
        yield f"[red]{escape(text)}[/]"
    for g in document["groups"]:
        yield from (f"group {escape(g['name'])}: {text}" for text in _of_group(g))


def _of_group(group: dict[str, Any]) -> Iterator[str]:
    if group["promise_off"]:
        yield escape(group["promise_off"])
    if group["guarded"] is False:
        yield "statements that would let pinned rows out are not refused (no superuser)"
    if wal := group.get("archiving"):
        state = f"[red]failing[/] at {wal['failing']}" if wal["failing"] else f"last {(wal['last'] or 'never')[:19]}"
        yield f"WAL archived to {escape(wal['to'] or 'an unknown place')} ({wal['tool']}), {state}"
    if last := group["last_failover"]:
        who = f"{last['from']} to {last['to']}" if last["from"] else f"to {last['to']}"
        yield f"last failover {last['at'][:19]}, {escape(who)}: {escape(last['why'])}"


def _tables(document: dict[str, Any]) -> Any:
    rows = [
        [t["name"] if i == 0 else "", t["kind"] if i == 0 else "", s["name"], s["home"], s["rows"], size(s["bytes"])]
        for t in document["tables"]
        for i, s in enumerate(t["shards"])
    ]
    if not rows:
        return "no tables yet: [bold]pgherd apply schema.sql[/]"
    return table_of(["table", "kind", "shard", "home", "rows", "size"], rows, title="tables")


def dsn(region: RegionOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Print a connection string for any PostgreSQL driver; the password stays in a file that it names."""
    text = _dsn(home or default_home(), region)
    print_json({"dsn": text}) if json else typer.echo(text)


def _dsn(home: Path, region: str | None) -> str:
    return herdfile.read(home).dsn(home, region)


def local_psql() -> tuple[str, dict[str, str]] | None:
    """A psql program and its environment: the one that came with the local servers, else the one on PATH."""
    with suppress(LocalServerError):
        installation = find(server_user(), None)
        program = installation.program("psql")
        if program.exists():
            return str(program), dict(installation.env)
    found = shutil.which("psql")
    return (found, {}) if found else None
