"""``pgherd audit --trail``: who read and wrote what, as the groups' access logs have it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer
from rich.markup import escape

from .. import herdfile
from ..audit.trail import Told, read_trail
from ..client import connect_async
from ..errors import ExitStatus
from .options import seconds_of
from .output import entries_table, out, print_json


def show_trail(dsn: str | None, home: Path | None, since: str, table: str | None, limit: int, json: bool) -> None:
    """Show the newest lines; exit 1 if a group's log could not be seen. Raises BadInput, NoSuchHerd."""
    told = asyncio.run(_read(dsn, home, seconds_of(since), table, limit))
    if json:
        print_json(told.as_json())
    else:
        _show(told, since)
    if told.unread:
        raise typer.Exit(int(ExitStatus.FAILED))


async def _read(dsn: str | None, home: Path | None, since_s: int, table: str | None, limit: int) -> Told:
    file = None if home is None else herdfile.read(home)
    async with connect_async(dsn, home=home) as herd:
        return await read_trail(herd, file, since_s, limit, table)


def _show(told: Told, since: str) -> None:
    if told.entries:
        columns = {k for e in told.entries for k, v in e.items() if v is not None}
        out.print(entries_table([{k: v for k, v in e.items() if k in columns} for e in told.entries]))
    else:
        out.print(f"no lines of the last {escape(since)}")
    for missing in told.unread:
        out.print(f"[yellow]not seen: {escape(missing['group'])}: {escape(missing['why'])}[/]", soft_wrap=True)
    if not told.kept:
        out.print("[dim]clients leave no lines: no schema file says SELECT pgherd.audit_trail('on')[/]", soft_wrap=True)
    for node in told.plain_sql:
        if node["recorded"]:
            where = node["log"] or "its server's log"
            out.print(
                f"[dim]plain SQL on {escape(node['node'])}: pgaudit's lines in {escape(where)}[/]", soft_wrap=True
            )
        else:
            why = escape(node["why"])
            out.print(f"[yellow]plain SQL on {escape(node['node'])} is not recorded: {why}[/]", soft_wrap=True)
