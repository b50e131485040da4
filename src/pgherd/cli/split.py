"""pgherd split: hash shards become two each, while they are in use."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..client import connect_async
from ..elastic import split_plan
from ..planning.split import Split, describe
from .options import DsnOption, HomeOption, JsonOption
from .output import out, print_json, size, table_of
from .progress import execute_with_progress


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(split)


def split(
    name: Annotated[str, typer.Argument(metavar="TABLE|SHARD", help="A table: each of its hash shards; or one shard.")],
    plan: Annotated[bool, typer.Option("--plan", help="Print the splits and change nothing.")] = False,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Split hash shards in two, each in its group, while they are in use; those that foreign keys tie go together."""
    asyncio.run(_split(name, plan, home, dsn, json))


async def _split(name: str, only_plan: bool, home: Path | None, dsn: str | None, json: bool) -> None:
    async with connect_async(dsn, home=home) as herd:
        splits, changes = await split_plan(herd, name)
        started = time.perf_counter()
        if not only_plan:
            await execute_with_progress(herd, changes, "splitting")
        seconds = time.perf_counter() - started
    if json:
        print_json({**changes.as_json(), "splits": [_shown(s) for s in splits], "split": not only_plan})
    elif only_plan:
        rows = [[", ".join(map(str, s.shards)), _halves(s), s.home, size(s.bytes)] for s in splits]
        title = f"{len(splits)} splits, {len(changes.steps)} steps"
        out.print(table_of(["shards", "into", "in", "size"], rows, title=title))
        out.print("[dim]nothing was changed; --json shows each statement[/]")
    else:
        for one in splits:
            out.print(f"{escape(describe(one))} in {escape(one.home)} ({size(one.bytes)})")
        out.print(f"{size(sum(s.bytes for s in splits))} in {seconds:.1f} s; readers and writers went on")


def _halves(split: Split) -> str:
    return ", ".join(str(half) for pair in split.halves for half in pair)


def _shown(split: Split) -> dict[str, Any]:
    return {
        "shards": [str(s) for s in split.shards],
        "into": [[str(half) for half in pair] for pair in split.halves],
        "home": split.home,
        "bytes": split.bytes,
    }
