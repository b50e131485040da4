"""The command bench: how fast a table is searched, by how many clients at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .. import benching
from ..client import connect_async
from ..search.request import vector_column
from .index import bar_of, lines_of
from .options import DsnOption, HomeOption, JsonOption, ModelOption
from .output import err, out, print_json, table_of


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(bench)


def bench(
    table: Annotated[str, typer.Argument(help="The table to search.")],
    clients: Annotated[int, typer.Option(min=1, max=256, help="How many client processes ask at the same time.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.1, max=86400, help="For how long.")] = 10.0,
    k: Annotated[int, typer.Option("-k", help="How many rows a search wants.")] = 10,
    recall: Annotated[float | None, typer.Option(metavar="R", help="Aim at this share of the nearest rows.")] = None,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only rows for which this holds.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row instead of using the index.")] = False,
    column: Annotated[str | None, typer.Option(help="Which vector column, if there are several.")] = None,
    read: Annotated[str | None, typer.Option(help="Who may answer: primary, nearest or replica.")] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask these, one a line, rather than some made of rows.")
    ] = None,
    model: ModelOption = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how fast a table is searched by several clients at once, and how much of the nearest they find."""
    options = {"recall": recall, "where": where, "exact": exact, "column": column, "read": read}
    asked = None if questions is None else lines_of(questions)
    with err.status("making questions, and measuring what searches find"):
        made, found = asyncio.run(_prepare(table, asked, k, options, model, home, dsn))
    job = benching.Job(dsn, home, table, made, k, options, clients, seconds)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=err, transient=True)
    with bar:
        task = bar.add_task(f"{clients} clients search", total=seconds)
        met = benching.run(job, lambda passed: bar.update(task, completed=passed))
    document = benching.as_json(job, met, found)
    if json:
        print_json(document)
    else:
        _show(document)


async def _prepare(
    name: str,
    asked: list[str] | None,
    k: int,
    options: dict[str, Any],
    model: str | None,
    home: Path | None,
    dsn: str | None,
) -> tuple[list[Any], float | None]:
    async with connect_async(dsn, home=home, embedder=model) as herd:
        table = herd.table(name)
        column = vector_column(table.definition, options["column"]).name
        if asked is None:
            made = await benching.questions_for(herd, table, column, options["where"])
        else:
            made = await table.vectors_of(asked, column)
        return made, await benching.recall_for(table, made, k, options)


def _show(document: dict[str, Any]) -> None:
    ms = document["ms"]
    if ms is None:
        out.print("[red]no search was answered[/]")
    else:
        names = ["searches/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "client CPU ms", f"recall@{document['k']}"]
        values = [ms["p50"], ms["p95"], ms["p99"], ms["max"], document["client_cpu_ms"]]
        share = "every row is read" if document["recall"] is None else f"{document['recall']:.3f}"
        out.print(table_of(names, [[document["searches_per_s"], *values, share]]))
        slowest = max(n["p50_ms"] for n in document["nodes"])
        rows = [[n["name"], n["p50_ms"], bar_of(n["p50_ms"] / slowest if slowest else 0.0)] for n in document["nodes"]]
        out.print()
        out.print(table_of(["answered by", "p50 ms", ""], rows))
    failed = ", ".join(f"{count} x {code}" for code, count in document["failed"].items())
    out.print(
        f"[dim]{document['searches']:,} searches by {document['clients']} clients in {document['seconds']:g} s[/]"
        + (f"; [red]failed: {escape(failed)}[/]" if failed else "")
    )
