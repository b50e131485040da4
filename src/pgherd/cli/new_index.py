"""The command that builds a vector index: index create."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..client import AsyncHerd, connect_async
from ..dialect.new_index import new_index
from ..errors import BadInput
from ..model.names import Name
from ..model.schema import Index, Schema, Table, VectorType
from ..model.vectors import Metric
from ..planning.plan import Plan
from ..search.request import vector_column
from ..tuning.report import index_status
from .measuring import sample_for
from .options import DsnOption, HomeOption, JsonOption
from .output import out, print_json, size
from .progress import execute_with_progress, tune_with_progress
from .schema import show_plan

_METHODS = {"hnsw": ("m", "ef_construction"), "ivfflat": ("lists",)}


def create(
    table: Annotated[str, typer.Argument(help="The table.")],
    column: Annotated[str, typer.Argument(help="Its vector column.")],
    method: Annotated[str, typer.Option(help="hnsw or ivfflat.")] = "hnsw",
    metric: Annotated[
        Metric | None, typer.Option(help="The distance that it answers (cosine; hamming for bit columns).")
    ] = None,
    stored: Annotated[
        VectorType | None,
        typer.Option("--type", help="What it holds: the column itself, or less (halfvec, bit); the most that fits."),
    ] = None,
    m: Annotated[int | None, typer.Option("--m", help="hnsw: edges of a row (16).")] = None,
    ef_construction: Annotated[int | None, typer.Option(help="hnsw: candidates looked at while building (64).")] = None,
    lists: Annotated[int | None, typer.Option(help="ivfflat: lists that rows are shared out to (100).")] = None,
    name: Annotated[str | None, typer.Option(help="Its name, instead of one as PostgreSQL chooses.")] = None,
    tune: Annotated[bool, typer.Option(help="Measure its recall at once, with a small sample.")] = True,
    plan: Annotated[bool, typer.Option("--plan", help="Print the steps and change nothing.")] = False,
    home: HomeOption = None,
    dsn: DsnOption = None,
    json: JsonOption = False,
) -> None:
    """Build a vector index on all homes at once, writers going on; it becomes part of the schema."""
    given = {k: v for k, v in (("m", m), ("ef_construction", ef_construction), ("lists", lists)) if v is not None}
    if method not in _METHODS:
        raise BadInput(f"method {method!r}", hint=f"one of: {', '.join(_METHODS)}")
    for option in given:
        if option not in _METHODS[method]:
            raise BadInput(f"{option} is no parameter of {method}", hint=f"it takes {', '.join(_METHODS[method])}")
    wanted = {"method": method, "metric": metric, "stored": stored, "options": given, "name": name}
    asyncio.run(_create(table, column, wanted, plan, tune, home, dsn, json))


async def _create(
    table: str,
    column: str,
    wanted: dict[str, Any],
    only_plan: bool,
    tune: bool,
    home: Path | None,
    dsn: str | None,
    json: bool,
) -> None:
    async with connect_async(dsn, home=home) as herd:
        topology = await herd.engine.refresh()
        definition = topology.table(table)
        target = vector_column(definition, column)
        index = new_index(topology.schema, definition, target, **wanted)
        made = await herd.plan(Schema(items=(index,)))
        if only_plan or not made.steps:
            print_json(_document(made, index, 0.0, 0, applied=False)) if json else _show(made, index, herd)
            return
        started = time.perf_counter()
        await execute_with_progress(herd, made, "building", as_json=json)
        seconds = time.perf_counter() - started
        built = await _built(herd, made, definition)
        sample = sample_for(sum(e["rows"] for e in built), target) if tune else 0
        measured = await tune_with_progress(herd.table(table), column, sample) if sample else ()
        if json:
            print_json(_document(made, index, seconds, len(measured), applied=True))
            return
        where = f"{size(sum(e['bytes'] for e in built))} in {seconds:.1f} s"
        out.print(f"built [bold]{escape(str(index.name))}[/]: {where}; generation {herd.topology.generation}")
        if measured:
            out.print(f"measured with {sample} questions: [bold]pgherd index status[/] shows it, index tune asks more")
        elif tune:
            out.print("not measured: it would take long, or there are no rows; [bold]pgherd index tune[/] does it")


def _document(plan: Plan, index: Index, seconds: float, measured: int, *, applied: bool) -> dict[str, Any]:
    done = {"applied": applied, "seconds": round(seconds, 3), "measured": measured}
    return {**plan.as_json(), "index": str(index.name), **done}


def _show(plan: Plan, index: Index, herd: AsyncHerd) -> None:
    if plan.steps:
        show_plan(plan, herd.topology.generation)
    else:
        out.print(f"nothing to do: index [bold]{escape(str(index.name))}[/] is there")


async def _built(herd: AsyncHerd, plan: Plan, table: Table) -> list[dict[str, Any]]:
    """What index status says of the parts that the plan built."""
    built = {str(Name.parse(s.target)) for s in plan.steps if s.kind == "build_index"}
    return [e for e in await index_status(herd.engine, table) if e["index"] in built]
