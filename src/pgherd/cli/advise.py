"""``pgherd advise``: from numbers, from a database, or of a herd that is only simulated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..advising.facts import Survey
from ..advising.report import advice_on, measured
from ..advising.survey import BUDGET_S, survey
from ..errors import BadInput
from ..model.schema import VectorType
from ..planning.advice import Advice, Figure, Way, advise
from ..planning.outlook import Limit
from ..planning.quantity import bytes_of, count_of
from ..planning.workload import Machine, Workload
from .options import HomeOption, JsonOption
from .output import err, out, print_json, size, table_of

MEMORY = "64GiB"
FAR_DAYS = 36_500


def add_commands(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("advise")(advise_command)


def advise_command(
    rows: Annotated[str | None, typer.Option(metavar="N", help="How many rows, like 250k or 10M.")] = None,
    dim: Annotated[int | None, typer.Option(help="Dimensions of the vectors.")] = None,
    dsn: Annotated[
        str | None, typer.Option("--dsn", metavar="DSN", help="Measure this database instead; it is only read.")
    ] = None,
    qps: Annotated[float | None, typer.Option(help="Searches a second.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of one server (64GiB).")] = None,
    disk: Annotated[str | None, typer.Option(metavar="SIZE", help="Disk of one server.")] = None,
    cores: Annotated[int | None, typer.Option(help="Cores of one server.")] = None,
    growth: Annotated[str | None, typer.Option(metavar="ROWS", help="Rows that come a day.")] = None,
    type_name: Annotated[str, typer.Option("--type", help="vector, halfvec or bit.")] = "vector",
    m: Annotated[int, typer.Option("--m", help="The index's m.")] = 16,
    lists: Annotated[int | None, typer.Option(help="An ivfflat index with so many lists, instead of hnsw.")] = None,
    row_bytes: Annotated[int, typer.Option(help="Bytes of a row's other columns.")] = 8,
    query_ms: Annotated[float | None, typer.Option(help="CPU of one search, if you measured it.")] = None,
    sample_s: Annotated[
        float | None, typer.Option(metavar="S", help="--dsn: look at its counters twice, S seconds apart.")
    ] = None,
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="--dsn: growth since an earlier report (its --json).")
    ] = None,
    budget_s: Annotated[float, typer.Option(metavar="S", help="--dsn: how long searches may be tried.")] = BUDGET_S,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Should vectors be distributed, when, and how? From numbers, or from a database that is only looked at."""
    given = None if memory is None else bytes_of(memory), None if disk is None else bytes_of(disk)
    if dsn is not None:
        if rows is not None or dim is not None or growth is not None:
            raise BadInput("--dsn measures rows, dimensions and growth", hint="leave --rows, --dim and --growth out")
        found = survey(dsn, sample_s=sample_s, since=since, budget_s=budget_s, say=_say)
        _show_all(advice_on(found, *given, cores, qps), found, json)
        return
    if rows is None or dim is None:
        raise BadInput("advice needs numbers or a database", hint="give --rows and --dim, or --dsn")
    if sample_s is not None or since is not None:
        raise BadInput("--sample-s and --since go with --dsn", hint="give --growth ROWS, or --dsn")
    try:
        kind = VectorType(type_name)
    except ValueError as error:
        raise BadInput(f"{type_name!r} is not a vector type", hint="one of: vector, halfvec, bit") from error
    work = Workload(
        count_of(rows),
        dim,
        kind,
        m,
        row_bytes,
        qps,
        query_ms,
        None if growth is None else count_of(growth),
        lists=lists,
    )
    _show_all(advise([work], Machine(bytes_of(MEMORY) if given[0] is None else given[0], given[1], cores)), None, json)


def _say(what: str) -> None:
    err.print(f"[dim]{escape(what)}[/]")


def _show_all(advice: Advice, found: Survey | None, json: bool) -> None:
    document = advice.as_json()
    for limit in document["limits"]:
        limit["date"] = _date(limit["days"])
    if json:
        print_json(document | ({"measured": measured(found)} if found else {}))
        return
    out.print(f"[bold]{escape(advice.answer)}[/]\n", soft_wrap=True)
    if found is not None:
        _show_measured(found)
    _show(advice)
    if found is not None and found.unseen:
        out.print("\n[bold]Not seen[/]")
        for what in found.unseen:
            out.print(f"- {escape(what)}", soft_wrap=True)


def _date(days: float | None) -> str | None:
    """The day that is so many days away; None if never, or beyond anybody's plans."""
    if days is None or days > FAR_DAYS:
        return None
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


def _show_measured(found: Survey) -> None:
    s = found.server
    known = [f"PostgreSQL {s.version}", f"pgvector {s.pgvector}", f"shared_buffers {size(s.shared_buffers)}"]
    known += [f"effective_cache_size {size(s.effective_cache_size)}", f"database {size(s.database_bytes)}"]
    known += [f"memory {size(s.memory)}"] if s.memory else []
    known += [f"{s.cores} cores"] if s.cores else []
    out.print(escape(", ".join(known)), soft_wrap=True)
    out.print()
    document = measured(found)
    columns = [
        [
            c["name"], c["type"], f"{c['rows']:,}", size(c["heap_bytes"] + c["toast_bytes"]),
            f"{c['row_bytes'] or 0:,.0f}", _percent(c["heap_hit_share"]), f"{c['dead']:,}",
            _number(c["rates"] and c["rates"]["rows_a_day"]), _number(c["rates"] and c["rates"]["searches_a_s"], 2),
        ]
        for c in document["columns"]
    ]  # fmt: skip
    names = ["column", "type", "rows", "table", "B a row", "cache hits", "dead", "rows a day", "searches/s"]
    out.print(table_of(names, columns))
    out.print()
    indexes = [
        [
            c["name"], i["name"], f"{i['method']} on {i['holds']}", size(i["bytes"]), _percent(i["hit_share"]),
            "yes" if i["used"] else "no", f"{i['scans']:,}",
        ]
        for c in document["columns"] for i in c["indexes"]
    ]  # fmt: skip
    if indexes:
        out.print(table_of(["column", "index", "kind", "size", "cache hits", "used", "scans"], indexes))
        out.print()
    probes = [
        [
            c["name"], p["questions"], f"{p['p50_ms']:.2f}", f"{p['p95_ms']:.2f}",
            f"{p['blocks_hit']:,.0f} / {p['blocks_read']:,.0f}", _recall(p), p["recall_by"],
        ]
        for c in document["columns"] if (p := c["probe"])
    ]  # fmt: skip
    if probes:
        names = ["searches of", "asked", "p50 ms", "p95 ms", "blocks hit / read", "recall@10", "measured"]
        out.print(table_of(names, probes))
        out.print()


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _recall(probe: dict[str, Any]) -> str:
    if probe["recall"] is None:
        return "–"
    return f"{probe['recall']:.3f} ± {probe['recall_error'] or 0:.3f}"


def _show(advice: Advice) -> None:
    for figure in advice.figures:
        out.print(f"[bold]{escape(figure.name)}[/]  {_value(figure)}", soft_wrap=True)
        out.print(f"    [dim]{escape(figure.formula)}[/]", soft_wrap=True)
    out.print()
    if advice.limits:
        out.print(table_of(["runs out", "used", "of", "", "days left", "date"], map(_limit, advice.limits)))
        for limit in advice.limits:
            out.print(f"    [dim]{limit.name}: {escape(limit.formula)}[/]", soft_wrap=True)
        out.print()
    rows = [[c.name, size(c.index.bytes), c.servers, c.note] for c in advice.choices]
    out.print(table_of(["index", "size", "servers", "note"], rows))
    out.print()
    names = ["what would help", "servers", "index on each", "memory lasts", "busy cores on each", "note"]
    out.print(table_of(names, map(_way, advice.ways)))
    out.print()
    for fit in advice.engines:
        mark = "[green]fits[/]" if fit.fits else "[dim]no  [/]"
        out.print(f"{mark} [bold]{fit.engine}[/]: {escape(fit.reason)}", soft_wrap=True)
    out.print()
    for reason in advice.reasons:
        out.print(f"- {escape(reason)}", soft_wrap=True)


def _limit(limit: Limit) -> list[Any]:
    share = min(1.0, limit.used / limit.room) if limit.room else 1.0
    bar = "█" * round(share * 20) + "░" * (20 - round(share * 20))
    amounts = [f"{x:,.2f} cores" if limit.unit == "cores" else size(int(x)) for x in (limit.used, limit.room)]
    return [limit.name, *amounts, f"{bar} {share:.0%}", _days(limit.days), _date(limit.days) or "–"]


def _days(days: float | None) -> str:
    if days is None:
        return "no end in sight"
    return "now" if days <= 0 else "over 100 years" if days > FAR_DAYS else f"{days:,.0f} days"


def _way(way: Way) -> list[Any]:
    cores = "–" if way.cores is None else f"{way.cores:,.2g}"
    return [way.name, way.servers, size(way.index_bytes), _days(way.days), cores, way.note]


def _value(figure: Figure) -> str:
    if figure.unit == "B":
        return size(int(figure.value))
    return f"{figure.value:,.2f} {figure.unit}" if figure.unit in ("ms", "cores") else f"{figure.value:,.0f}"
