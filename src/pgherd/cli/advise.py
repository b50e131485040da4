"""``pgherd advise``: figures from numbers, each with its formula."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ..errors import BadInput
from ..model.schema import VectorType
from ..planning.advice import Advice, Figure, Workload, advise, bytes_of, count_of
from .options import HomeOption, JsonOption
from .output import out, print_json, size, table_of


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("advise")(advise_command)


def advise_command(
    rows: Annotated[str, typer.Option(metavar="N", help="How many rows, like 250k or 10M.")],
    dim: Annotated[int, typer.Option(help="Dimensions of the vectors.")],
    qps: Annotated[float | None, typer.Option(help="Searches a second.")] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of one server.")] = "64GiB",
    type_name: Annotated[str, typer.Option("--type", help="vector, halfvec or bit.")] = "vector",
    m: Annotated[int, typer.Option("--m", help="The index's m.")] = 16,
    row_bytes: Annotated[int, typer.Option(help="Bytes of a row's other columns.")] = 8,
    query_ms: Annotated[float | None, typer.Option(help="CPU of one search, if you measured it.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Say how large vectors and their index get, when memory runs out, and what would help. Talks to no server."""
    try:
        kind = VectorType(type_name)
    except ValueError as error:
        raise BadInput(f"{type_name!r} is not a vector type", hint="one of: vector, halfvec, bit") from error
    work = Workload(count_of(rows), dim, kind, m, bytes_of(memory), row_bytes, qps, query_ms)
    advice = advise(work)
    if json:
        print_json(advice.as_json())
    else:
        _show(advice)


def _show(advice: Advice) -> None:
    for figure in advice.figures:
        out.print(f"[bold]{escape(figure.name)}[/]  {_value(figure)}", soft_wrap=True)
        out.print(f"    [dim]{escape(figure.formula)}[/]", soft_wrap=True)
    out.print()
    rows = [[c.name, size(c.index.bytes), c.servers, c.note] for c in advice.choices]
    out.print(table_of(["index", "size", "servers", "note"], rows))
    out.print()
    for reason in advice.reasons:
        out.print(f"- {escape(reason)}", soft_wrap=True)


def _value(figure: Figure) -> str:
    if figure.unit == "B":
        return size(int(figure.value))
    return f"{figure.value:,.2f} {figure.unit}" if figure.unit in ("ms", "cores") else f"{figure.value:,.0f}"
