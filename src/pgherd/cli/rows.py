"""Commands about rows: load, search, ask, sql."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .. import herdfile
from ..client import connect_async
from ..errors import BadInput
from ..herdfile import default_home
from ..loading import Loaded
from ..loading import Progress as LoadProgress
from ..loading import load as load_file
from ..search.answers import Answers
from ..search.hits import Hits
from .measuring import measure_anew
from .options import DsnOption, HomeOption, JsonOption, ModelOption, RegionOption, TuneOption
from .output import err, out, print_json, rows_table, table_of
from .servers import local_psql


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (load, search, ask, sql):
        app.command()(command)


def load(
    table: Annotated[str, typer.Argument(help="The table that takes the rows.")],
    file: Annotated[Path, typer.Argument(help="csv, jsonl, parquet or arrow.")],
    embed: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT:VECTOR", help="Fill a vector column from a text column; may be given again."),
    ] = None,
    reject: Annotated[Path | None, typer.Option(help="Where bad rows go (default: FILE.rejected.jsonl).")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Load again from the start.")] = False,
    tune: TuneOption = True,
    model: ModelOption = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Load a file; every row goes straight home. Interrupted and run again, it continues where it was."""
    pairs = dict(_pair(e) for e in embed or ())
    loaded = asyncio.run(_load(table, file, pairs, reject, restart, tune, model, home, dsn))
    if json:
        print_json(
            {
                "rows": loaded.rows,
                "rejected": loaded.rejected,
                "seconds": round(loaded.seconds, 3),
                "resumed_from": loaded.resumed_from,
                "cells_learned": loaded.cells_learned,
                "reject_file": str(loaded.reject_file) if loaded.reject_file else None,
            }
        )
        return
    if loaded.already_loaded:
        out.print(f"nothing to do: {loaded.total_rows:,} rows of this file are loaded (--restart loads it again)")
        return
    rate = loaded.rows / loaded.seconds if loaded.seconds else 0
    if loaded.resumed_from:
        out.print(f"went on after line {loaded.resumed_from:,}, where an earlier run stopped")
    if loaded.cells_learned:
        out.print(f"learned {loaded.cells_learned:,} cells from the file, by which rows go to shards")
    out.print(f"loaded {loaded.rows:,} rows in {loaded.seconds:.1f} s ({rate:,.0f} rows/s)")
    if loaded.rejected:
        out.print(f"[yellow]rejected {loaded.rejected:,} rows[/], see {escape(str(loaded.reject_file))}")


def _pair(text: str) -> tuple[str, str]:
    source, colon, target = text.partition(":")
    if not (source and colon and target):
        raise BadInput(f"--embed {text!r} is not TEXT:VECTOR", hint="for example --embed description:embedding")
    return source, target


async def _load(
    table: str,
    file: Path,
    embed: dict[str, str],
    reject: Path | None,
    restart: bool,
    tune: bool,
    model: str | None,
    home: Path | None,
    dsn: str | None,
) -> Loaded:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[rows]:,} rows  {task.fields[rate]:,.0f} rows/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    async with connect_async(dsn, home=home, embedder=model) as herd:
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task(escape(f"loading {file.name}"), total=None, rows=0, rate=0)

            def show(p: LoadProgress) -> None:
                rate = p.rows / p.seconds if p.seconds else 0
                bar.update(task, total=p.bytes_total, completed=p.bytes_done, rows=p.rows, rate=rate)

            loaded = await load_file(
                herd, table, file, embed=embed or None, reject_file=reject, restart=restart, progress=show
            )
        await measure_anew(herd, herd.table(table).definition, loaded.rows, tune=tune)
        return loaded


def search(
    table: Annotated[str, typer.Argument(help="The table to search.")],
    question: Annotated[str, typer.Argument(help="A question in words, or a vector like '[0.1, 0.2]'.")],
    k: Annotated[int, typer.Option("-k", help="How many rows.")] = 10,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only rows for which this holds.")] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Only rows at least this similar (cosine: -1 to 1).")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row instead of using the index.")] = False,
    recall: Annotated[
        float | None,
        typer.Option(metavar="R", help="Aim at this share of the nearest rows, up to 1 (see index tune)."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Which vector column, if there are several.")] = None,
    metric: Annotated[str | None, typer.Option(help="cosine, l2, ip, l1, hamming or jaccard.")] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Also rank by matching words, and fuse both.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Where --hybrid looks for the words.")] = None,
    text_config: Annotated[str | None, typer.Option(help="Text search configuration (default: english).")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept that groups are missing.")] = False,
    read: Annotated[str | None, typer.Option(help="Who may answer: primary, nearest or replica.")] = None,
    max_staleness: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How old an answer of a replica may be.")
    ] = None,
    model: ModelOption = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Find the rows nearest to a question, over all groups at once."""
    asked: Any = _vector(question) if question.lstrip().startswith("[") else question
    options = {
        "where": where, "min_similarity": min_similarity, "exact": exact, "recall": recall, "column": column,
        "metric": metric, "hybrid": hybrid, "text_column": text_column, "text_config": text_config, "partial": partial,
        "read": read, "max_staleness_s": max_staleness,
    }  # fmt: skip
    hits = asyncio.run(_search(table, asked, k, options, model, home, dsn))
    if json:
        print_json(hits.as_json())
        return
    columns = list(hits[0].row) if hits else []
    score = ["score"] if hybrid else []
    rows = [[*(h.score for _ in score), h.distance, h.group, *(h.row[c] for c in columns)] for h in hits]
    out.print(table_of([*score, "distance", "group", *columns], rows))
    answered = ", ".join(f"{g.node or g.name} {g.ms:.1f} ms" for g in hits.groups)
    some = f"; {hits.shards_asked} of {hits.shards} shards" if hits.shards_asked < hits.shards else ""
    out.print(f"[dim]{len(hits)} rows; answered by {escape(answered)}{some}[/]")
    if hits.missing:
        out.print(f"[yellow]missing: {escape(', '.join(hits.missing))}[/]")


def ask(
    table: Annotated[str, typer.Argument(help="The table to search.")],
    question: Annotated[str, typer.Argument(help="A question in words.")],
    k: Annotated[int, typer.Option("-k", help="From how many rows.")] = 5,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only rows for which this holds.")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="What the models see of a row (default: the embedded text).")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Which vector column, if there are several.")] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Also rank by matching words, and fuse both.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Accept that groups are missing.")] = False,
    model: ModelOption = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Let the regions' answering models answer a question, each from the rows of its own region."""
    seen = [c.strip() for c in columns.split(",")] if columns else None

    async def answered() -> Answers:
        async with connect_async(dsn, home=home, embedder=model) as herd:
            asked = herd.table(table)
            return await asked.answer(
                question, k, columns=seen, where=where, column=column, hybrid=hybrid, partial=partial
            )

    answers = asyncio.run(answered())
    if json:
        print_json(answers.as_json())
        return
    for answer in answers:
        out.print(f"[bold]{escape(answer.region)}[/] [dim]{escape(answer.model)} at {escape(answer.endpoint)}[/]")
        out.print(escape(answer.text))
        for number, hit in enumerate(answer.hits, 1):
            row = escape(", ".join(str(v) for v in hit.row.values())[:160])
            out.print(f"[dim]\\[{number}] {hit.distance:.4f} {escape(hit.group)}: {row}[/]")
    if not answers:
        out.print("[dim]no rows, so no answer[/]")
    if answers.missing:
        out.print(f"[yellow]missing: {escape(', '.join(answers.missing))}[/]")


def _vector(text: str) -> list[float]:
    try:
        return [float(x) for x in text.strip().removeprefix("[").removesuffix("]").split(",")]
    except ValueError as error:
        raise BadInput("the question starts like a vector but is none", hint="write [0.1, 0.2, …]") from error


async def _search(
    table: str, question: Any, k: int, options: dict[str, Any], model: str | None, home: Path | None, dsn: str | None
) -> Hits:
    async with connect_async(dsn, home=home, embedder=model) as herd:
        return await herd.table(table).search(question, k, **options)


def sql(
    query: Annotated[str | None, typer.Argument(help="A statement; without one, psql is started.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Run the statement in this file.")] = None,
    region: RegionOption = None,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Run SQL on a node: any node answers any SQL."""
    if file is not None:
        query = file.read_text(encoding="utf-8") if file.exists() else None
        if query is None:
            raise BadInput(f"{file} does not exist")
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
    if query is None:
        _psql(region, home, dsn)
    else:
        rows = asyncio.run(_sql(query, region, home, dsn))
        if json:
            print_json({"rows": rows})
        elif rows:
            out.print(rows_table(rows))
            out.print(f"[dim]{len(rows)} rows[/]")
        else:
            out.print("[dim]done, no rows[/]")


async def _sql(query: str, region: str | None, home: Path | None, dsn: str | None) -> list[dict[str, Any]]:
    async with connect_async(dsn, home=home) as herd:
        return await herd.sql(query, region=region)


def _psql(region: str | None, home: Path | None, dsn: str | None) -> None:
    where = home or default_home()
    target = dsn or herdfile.read(where).dsn(where, region)
    found = local_psql()
    if found is None:
        raise BadInput("there is no psql here", hint="give a statement: pgherd sql 'select …'")
    program, environment = found
    os.execve(program, [program, target], {**os.environ, **environment})  # noqa: S606
