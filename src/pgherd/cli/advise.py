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
from ..drawing import Axis, Line, svg
from ..errors import BadInput
from ..model.schema import VectorType
from ..planning.advice import SOON_DAYS, Advice, Figure, Way, advise
from ..planning.outlook import Limit
from ..planning.quantity import bytes_of, count_of
from ..planning.workload import Machine, Workload
from ..simulation.latency import LogNormal
from ..simulation.simulate import CLIENT_US, Load, simulate
from ..simulation.synthetic import Shape
from . import simulate as simulated
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
    simulate_it: Annotated[
        bool, typer.Option("--simulate", help="Work out a herd of many servers with these --rows.")
    ] = False,
    nodes: Annotated[int, typer.Option(metavar="N", help="--simulate: servers, up to 1,000.")] = 10,
    shards: Annotated[int | None, typer.Option(metavar="N", help="--simulate: shards (2 a group).")] = None,
    regions: Annotated[int, typer.Option(metavar="N", help="--simulate: regions that rows are pinned to.")] = 1,
    replicas: Annotated[int, typer.Option(metavar="N", help="--simulate: servers a group.")] = 1,
    latency: Annotated[
        str | None, typer.Option(metavar="P50,P99", help="--simulate: milliseconds of one server, if you measured it.")
    ] = None,
    client_us: Annotated[
        float, typer.Option(metavar="US", help="--simulate: microseconds a client needs for each server it asks.")
    ] = CLIENT_US,
    clients: Annotated[int, typer.Option(metavar="N", help="--simulate: processes that search.")] = 1,
    rate: Annotated[str, typer.Option(metavar="SIZE", help="--simulate: bytes a second into one node.")] = "100MiB",
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw it into a file.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Should vectors be distributed, when, and how? From numbers, from a database, or for a herd on paper."""
    given = None if memory is None else bytes_of(memory), None if disk is None else bytes_of(disk)
    if simulate_it and dsn is not None:
        raise BadInput("--simulate works with numbers", hint="leave --dsn out; give --rows and --dim")
    a_day = None if growth is None else count_of(growth)
    if dsn is not None:
        if rows is not None or dim is not None:
            raise BadInput("--dsn measures rows and dimensions", hint="leave --rows and --dim out")
        found = survey(dsn, sample_s=sample_s, since=since, budget_s=budget_s, say=_say)
        _show_all(advice_on(found, *given, cores, qps, a_day), found, plot, json)
        return
    if rows is None or dim is None:
        raise BadInput("advice needs numbers or a database", hint="give --rows and --dim, or --dsn")
    if sample_s is not None or since is not None:
        raise BadInput("--sample-s and --since go with --dsn", hint="give --growth ROWS, or --dsn")
    try:
        kind = VectorType(type_name)
    except ValueError as error:
        raise BadInput(f"{type_name!r} is not a vector type", hint="one of: vector, halfvec, bit") from error
    work = Workload(count_of(rows), dim, kind, m, row_bytes, qps, query_ms, a_day, lists=lists)
    if simulate_it:
        load = Load(_latency(latency), qps, clients, bytes_of(rate), client_us)
        found_herd = simulate(Shape(nodes, regions, replicas, shards), work, load)
        _draw(plot, simulated.picture(found_herd))
        if json:
            print_json(found_herd.as_json())
        else:
            simulated.show(found_herd)
        return
    machine = Machine(bytes_of(MEMORY) if given[0] is None else given[0], given[1], cores)
    _show_all(advise([work], machine), None, plot, json)


def _latency(text: str | None) -> LogNormal | None:
    if text is None:
        return None
    try:
        p50, p99 = map(float, text.split(","))
    except ValueError as error:
        raise BadInput(f"latency is {text!r}", hint="median and 99th percentile in ms, like 2,10") from error
    return LogNormal(p50, p99)


def _draw(plot: Path | None, text: str) -> None:
    if plot is None:
        return
    try:
        plot.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{plot} can't be written: {error.strerror}", hint="name another file in --plot") from error
    err.print(f"drawn into {escape(str(plot))}")


def _say(what: str) -> None:
    err.print(f"[dim]{escape(what)}[/]")


def _show_all(advice: Advice, found: Survey | None, plot: Path | None, json: bool) -> None:
    _draw(plot, _picture(advice))
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


def _picture(advice: Advice) -> str:
    """Bytes of each way to index on one server over time, against its memory for pages."""
    pages = next((x.room for x in advice.limits if x.name == "memory"), None)
    ways = [w for w in advice.ways if w.servers == 1]
    end = min(max([1.5 * w.days for w in ways if w.days], default=SOON_DAYS), 3 * SOON_DAYS)
    times = [end * i / 6 for i in range(7)]
    lines = [Line(w.name, tuple((d, w.index_bytes + w.growth * d) for d in times)) for w in ways]
    if pages is not None:
        lines.append(Line("memory for pages of one server", ((0.0, pages), (end, pages)), level=True))
    across, up = Axis("days from now", lambda v: f"{v:,.0f}"), Axis("bytes", lambda v: size(int(v)), step=2)
    return svg("Bytes of indexes over time, against memory", across, up, lines)


def _days(days: float | None) -> str:
    if days is None:
        return "no end in sight"
    if 0 < days < 1:
        return "less than a day"
    return "now" if days <= 0 else "over 100 years" if days > FAR_DAYS else f"{days:,.0f} days"


def _way(way: Way) -> list[Any]:
    cores = "–" if way.cores is None else f"{way.cores:,.2g}"
    return [way.name, way.servers, size(way.index_bytes), _days(way.days), cores, way.note]


def _value(figure: Figure) -> str:
    if figure.unit == "B":
        return size(int(figure.value))
    return f"{figure.value:,.2f} {figure.unit}" if figure.unit in ("ms", "cores") else f"{figure.value:,.0f}"
