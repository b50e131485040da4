"""A whole database looked at, from connecting to rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg

from ..errors import BadInput
from .catalog import read_columns, read_server
from .facts import Rates, Server, Survey, VectorColumn
from .growth import (
    DAY_S,
    REPORT_WEAKNESS,
    SAMPLE_WEAKNESS,
    Counters,
    between,
    counters,
    read_report,
    since_beginning,
)
from .probe import probe
from .session import Looking, looking, one, statements

BUDGET_S = 30.0
"""How long searches are tried on one database, all its columns together."""
Say = Callable[[str], None]


def survey(
    dsn: str,
    *,
    sample_s: float | None = None,
    since: Path | None = None,
    budget_s: float = BUDGET_S,
    say: Say = lambda _: None,
) -> Survey:
    """Measure the database of ``dsn``, which is not changed.

    ``sample_s``: look at its counters twice, so far apart; ``since``: compare them with an earlier report's.
    Raises BadInput (no pgvector, no vectors, none readable), GroupUnavailable, ServerRefused.
    """
    if sample_s is not None and not 1 <= sample_s <= DAY_S:
        raise BadInput(f"sample-s is {sample_s:g}", hint="1 to 86,400 seconds")
    if not 1 <= budget_s <= 3600:
        raise BadInput(f"budget-s is {budget_s:g}", hint="1 to 3,600 seconds")
    earlier = read_report(since) if since else None
    unseen: list[str] = []
    with looking(dsn) as connection:
        say("looking at tables and indexes")
        server = read_server(connection, unseen)
        columns = read_columns(connection, unseen)
        rates = _rates(connection, server, columns, earlier, sample_s, say)
        rates, search_ms = _from_statements(connection, server, columns, rates, unseen)
        measured = [_probed(connection, c, budget_s / len(columns), unseen, say) for c in columns]
    return Survey(server, tuple(measured), rates, search_ms, tuple(unseen))


def _probed(connection: Looking, column: VectorColumn, budget_s: float, unseen: list[str], say: Say) -> VectorColumn:
    if not column.rows or not column.dim:
        unseen.append(f"{column.name}: what a search costs: the table is empty")
        return column
    say(f"searching {column.name}")
    return replace(column, probe=probe(connection, column, budget_s, unseen))


def _rates(
    connection: Looking,
    server: Server,
    columns: list[VectorColumn],
    earlier: dict[str, Counters] | None,
    sample_s: float | None,
    say: Say,
) -> dict[str, Rates]:
    now = counters(columns, server.measured_at)
    if sample_s is not None:
        say(f"waiting {sample_s:g} s to look a second time")
        time.sleep(sample_s)
        later = one(connection, "server")["measured_at"]
        again = counters(read_columns(connection, []), later)
        return {name: between(now[name], again[name], SAMPLE_WEAKNESS) for name in now if name in again}
    if earlier is not None:
        known = {n: between(earlier[n], c, REPORT_WEAKNESS) for n, c in now.items() if n in earlier}
        fresh = {n: since_beginning(c, server.since) for n, c in now.items() if n not in earlier}
        return known | fresh
    return {name: since_beginning(c, server.since) for name, c in now.items()}


def _from_statements(
    connection: Looking, server: Server, columns: list[VectorColumn], rates: dict[str, Rates], unseen: list[str]
) -> tuple[dict[str, Rates], float | None]:
    """Where pg_stat_statements has counted searches, their rate and their mean time are taken from it."""
    schema = one(connection, "server")["statements_schema"]
    if schema is None:
        unseen.append("searches themselves: pg_stat_statements is not installed; scans of the indexes stand for them")
        return rates, None
    try:
        row = statements(connection, schema)
    except psycopg.Error as error:
        unseen.append(f"searches themselves: pg_stat_statements: {error.diag.message_primary}")
        return rates, None
    if row["hidden"]:
        unseen.append(
            f"{row['hidden']} statements of other roles in pg_stat_statements (GRANT pg_read_all_stats); scans of the"
            " indexes stand for searches"
        )
        return rates, None
    if not row["calls"] or row["since"] is None:
        return rates, None
    seconds = (server.measured_at - row["since"]).total_seconds()
    scans = sum(i.scans for c in columns for i in c.indexes)
    if seconds <= 0 or any(r.source.startswith("two looks") for r in rates.values()):
        return rates, row["mean_ms"]
    total: float = float(row["calls"]) / seconds

    def shared(column: VectorColumn) -> float:
        own: int = sum(i.scans for i in column.indexes)
        return total * own / scans if scans else total / len(columns)

    by_name = {c.name: c for c in columns}
    note = "; searches as pg_stat_statements has counted them, shared out as the indexes were scanned"
    return {
        name: replace(r, searches_a_s=shared(by_name[name]), source=r.source + note) for name, r in rates.items()
    }, row["mean_ms"]
