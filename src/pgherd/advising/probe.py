"""What nearest-neighbour searches cost and find as a server is configured: real queries, made of the table's own rows.

Nothing of the rows leaves this module: times, blocks and shares only. All of it ends when its time is up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, quantiles
from typing import Any

import psycopg
from psycopg import sql

from ..model.schema import Column, VectorType
from ..model.vectors import Metric
from ..tuning.questions import questions_of
from ..tuning.recall import recall_of
from .facts import Probe, VectorColumn, VectorIndex
from .session import STATEMENT_TIMEOUT_S, Looking, limit_s

QUESTIONS = 50
K = 10
RERANKED = 4 * K
"""Rows that an index on bits is asked for, of which the K nearest by the vectors themselves are taken."""
ENOUGH = 10
"""Questions below which nothing is said of recall."""
SCAN_BYTES_A_S = 200e6
"""A cautious guess of how fast a table is read, for what can't be tried out without doing it."""
SAMPLE_ROWS = 50_000
"""Above so many rows, questions are made of rows of some blocks, not of rows from anywhere."""
LEAST_HITS = 20
TAG = sql.SQL("/* pgherd advise */")


@dataclass(frozen=True, slots=True)
class _Search:
    """How a column is searched: by the column itself, or by the expression that its index holds."""

    column: VectorColumn
    index: VectorIndex | None

    @property
    def metric(self) -> Metric:
        """The index's distance; without one cosine, Hamming for bits."""
        own = Metric.HAMMING if self.column.kind is VectorType.BIT else Metric.COSINE
        if self.index is None or self.index.metric is None or self._by_bits:
            return own
        return self.index.metric

    @property
    def _by_bits(self) -> bool:
        return bool(self.index and self.index.expression and self.index.kind is VectorType.BIT)

    def distance(self) -> sql.Composed:
        """By the vectors themselves; one parameter."""
        return sql.SQL("({} {} %s::{})").format(
            sql.Identifier(self.column.column), sql.SQL(self.metric.operator.replace("%", "%%")), sql.SQL(self._type)
        )

    @property
    def _type(self) -> str:
        kind, dim = self.column.kind, self.column.dim
        return f"{kind}({dim})" if kind is VectorType.BIT and dim else str(kind)

    def nearest(self) -> tuple[sql.Composed, int]:
        """The search as an application makes it: the distances of the K nearest; and its number of parameters."""
        table, column = sql.Identifier(*self.column.relation), sql.Identifier(self.column.column)
        if self.index is None or not self.index.expression:
            query = sql.SQL("SELECT {tag} {distance} AS d FROM {table} ORDER BY {distance} LIMIT {k}")
            return query.format(tag=TAG, distance=self.distance(), table=table, k=sql.Literal(K)), 2
        held = sql.SQL(f"{self.index.kind}({self.index.dim})" if self.index.dim else str(self.index.kind))
        operator = sql.SQL((self.index.metric or self.metric).operator.replace("%", "%%"))
        if self._by_bits:
            order = sql.SQL("binary_quantize({})::{} {} binary_quantize(%s::{})::{}").format(
                column, held, operator, sql.SQL(self._type), held
            )
            query = sql.SQL(
                "SELECT {tag} d FROM (SELECT {distance} AS d FROM {table} ORDER BY {order} LIMIT {more}) found"
                " ORDER BY d LIMIT {k}"
            )
        else:
            order = sql.SQL("{}::{} {} %s::{}").format(column, held, operator, held)
            query = sql.SQL("SELECT {tag} {distance} AS d FROM {table} ORDER BY {order} LIMIT {k}")
        parts = {"tag": TAG, "distance": self.distance(), "table": table, "order": order}
        return query.format(**parts, k=sql.Literal(K), more=sql.Literal(RERANKED)), 2

    def exact(self) -> sql.Composed:
        """The K nearest by reading every row; two parameters."""
        query = sql.SQL("SELECT {tag} {d} AS d FROM {table} WHERE {column} IS NOT NULL ORDER BY {d} + 0 LIMIT {k}")
        table, column = sql.Identifier(*self.column.relation), sql.Identifier(self.column.column)
        return query.format(tag=TAG, d=self.distance(), table=table, column=column, k=sql.Literal(K))

    def sampled(self, percent: float) -> sql.Composed:
        """How many rows of some blocks are nearer than a distance; two parameters."""
        query = sql.SQL(
            "SELECT {tag} count(*) AS n FROM {table} TABLESAMPLE SYSTEM ({p}) REPEATABLE (7) WHERE {d} <= %s"
        )
        table = sql.Identifier(*self.column.relation)
        return query.format(tag=TAG, table=table, p=sql.Literal(percent), d=self.distance())


def probe(
    connection: Looking, column: VectorColumn, budget_s: float, unseen: list[str], questions: int = QUESTIONS
) -> Probe | None:
    """Search ``column`` with questions made of its rows, for at most ``budget_s``; None where that is no use.

    What could not be done is added to ``unseen``.
    """
    deadline = time.monotonic() + budget_s
    try:
        limit_s(connection, budget_s / 4)
        asked = _questions(connection, column, questions)
        search = _Search(column, column.index)
        if not asked or (column.index and column.index.expression and column.index.dim is None):
            unseen.append(f"{column.name}: what a search costs: it has no vectors to ask with")
            return None
        found = list(_ask(connection, search, asked, deadline - budget_s / 2))
    except psycopg.errors.QueryCanceled:
        unseen.append(f"{column.name}: what a search costs: one takes longer than {budget_s / 4:.0f} s")
        return None
    except psycopg.Error as error:
        unseen.append(f"{column.name}: what a search costs: {error.diag.message_primary}")
        return None
    finally:
        limit_s(connection, STATEMENT_TIMEOUT_S)
    if not found:
        unseen.append(f"{column.name}: what a search costs: none ended within {budget_s / 2:.0f} s")
        return None
    times = sorted(f.ms for f in found)
    used = {name for f in found for name in f.indexes}
    name = next((n for i in column.indexes for n in i.names if n in used), None)
    p95 = quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0]
    recall, error_of, by = _recall(connection, search, asked, found, deadline, name is not None)
    hits = median(f.hit for f in found), median(f.read for f in found)
    return Probe(len(found), median(times), p95, *hits, name, recall, error_of, by)


def _questions(connection: Looking, column: VectorColumn, n: int) -> list[Any]:
    """Questions out of rows from anywhere; of large tables from some blocks, so as not to read all of it."""
    wanted = 2 * n
    method = "BERNOULLI" if column.rows <= SAMPLE_ROWS else "SYSTEM"
    pages = max(1, column.heap_bytes // 8192)
    percent = 100.0 * 3 * wanted / max(column.rows, 1)
    if method == "SYSTEM":
        percent = max(percent, 100.0 * min(wanted, pages) / pages)
    query = sql.SQL(
        "SELECT {tag} {column} AS v FROM {table} TABLESAMPLE {method} ({percent}) REPEATABLE (1)"
        " WHERE {column} IS NOT NULL ORDER BY hashtext(ctid::text) LIMIT {wanted}"
    ).format(
        tag=TAG,
        column=sql.Identifier(column.column),
        table=sql.Identifier(*column.relation),
        method=sql.SQL(method),
        percent=sql.Literal(min(100.0, percent)),
        wanted=sql.Literal(wanted),
    )
    rows = [r["v"] for r in connection.execute(query).fetchall()]
    return questions_of(rows, Column(column.column, column.type), _Search(column, column.index).metric, n)


@dataclass(frozen=True, slots=True)
class _Found:
    ms: float
    hit: int
    read: int
    indexes: frozenset[str]
    distances: tuple[float, ...]


def _ask(connection: Looking, search: _Search, asked: Sequence[Any], deadline: float) -> Iterator[_Found]:
    """Each question once for its cost, and once for what it finds."""
    query, parameters = search.nearest()
    explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ") + query
    for question in asked:
        if time.monotonic() > deadline:
            return
        explained = connection.execute(explain, [question] * parameters).fetchone()
        assert explained is not None
        plan = explained["QUERY PLAN"][0]
        top = plan["Plan"]
        rows = connection.execute(query, [question] * parameters).fetchall()
        yield _Found(
            plan["Execution Time"],
            top.get("Shared Hit Blocks", 0),
            top.get("Shared Read Blocks", 0),
            frozenset(_index_names(top)),
            tuple(sorted(r["d"] for r in rows if r["d"] is not None and r["d"] == r["d"])),
        )


def _index_names(node: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in node:
        yield node["Index Name"]
    for child in node.get("Plans", ()):
        yield from _index_names(child)


def _recall(
    connection: Looking, search: _Search, asked: Sequence[Any], found: Sequence[_Found], deadline: float, indexed: bool
) -> tuple[float | None, float | None, str]:
    """Recall of the K nearest, its standard error, and how it was measured."""
    if not indexed:
        return 1.0, 0.0, "no vector index was used: every row was read"
    left = deadline - time.monotonic()
    bytes_ = search.column.heap_bytes + search.column.toast_bytes
    scan_s = bytes_ / SCAN_BYTES_A_S + search.column.rows * 1e-6
    try:
        if scan_s * ENOUGH <= left:
            shares = list(_exact(connection, search, asked, found, deadline))
            if len(shares) >= ENOUGH:
                error = sqrt(sum((s - fmean(shares)) ** 2 for s in shares) / (len(shares) - 1) / len(shares))
                return fmean(shares), error, f"against reading every row, {len(shares)} questions"
        return _estimated(connection, search, asked, found, deadline, scan_s)
    except psycopg.errors.QueryCanceled:
        return None, None, "not measured: reading every row takes too long"
    finally:
        limit_s(connection, STATEMENT_TIMEOUT_S)


def _exact(
    connection: Looking, search: _Search, asked: Sequence[Any], found: Sequence[_Found], deadline: float
) -> Iterator[float]:
    query = search.exact()
    for question, answer in zip(asked, found, strict=False):
        left = deadline - time.monotonic()
        if left <= 0:
            return
        limit_s(connection, left)
        try:
            rows = connection.execute(query, [question, question]).fetchall()
        except psycopg.errors.QueryCanceled:
            return
        truth = [r["d"] for r in rows if r["d"] is not None and r["d"] == r["d"]]
        yield recall_of(answer.distances, truth, K)


def _estimated(
    connection: Looking,
    search: _Search,
    asked: Sequence[Any],
    found: Sequence[_Found],
    deadline: float,
    scan_s: float,
) -> tuple[float | None, float | None, str]:
    """From how many rows of some blocks are at least as near as the farthest that was found.

    If r rows are, and k were found, k / r of the r nearest were found; a share p of the table shows p x r of them.
    Questions whose answers are lost in another part of the graph have an r of any size, so they count on their own;
    the others are taken together, since one alone shows hardly a row.
    """
    left = deadline - time.monotonic()
    share = min(1.0, max(0.0, left) / 2 / max(scan_s, 1e-9) / len(found))
    if share <= 0:
        return None, None, "not measured: no time was left"
    query = search.sampled(100 * share)
    shown: list[tuple[float, int]] = []
    for question, answer in zip(asked, found, strict=False):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        if answer.distances:
            limit_s(connection, left)
            row = connection.execute(query, [question, answer.distances[-1]]).fetchone()
            shown.append((len(answer.distances) * share, row["n"] if row else 0))
    recall, error, near = estimate(shown)
    if near < LEAST_HITS:
        why = f"not measured: reading every row takes about {scan_s:.0f} s a question, and a sample showed too little"
        return None, None, why
    return recall, error, f"estimated from {share:.2%} of the table's blocks, {len(shown)} questions"


def estimate(shown: Sequence[tuple[float, int]]) -> tuple[float, float, int]:
    """Recall, its standard error, and the rows it rests on: of each question how many it should show, and how many."""
    lost = [(e, n) for e, n in shown if n > e + 3 * sqrt(e) + 3]
    rest = [(e, n) for e, n in shown if n <= e + 3 * sqrt(e) + 3]
    near, due = sum(n for _, n in rest), sum(e for e, _ in rest)
    pooled = min(1.0, due / near) if near else 1.0
    total = pooled * len(rest) + sum(e / n for e, n in lost)
    part = len(lost) / max(1, len(shown))
    error = sqrt(pooled**2 / max(1, near) + part * (1 - part) / max(1, len(shown)))
    return total / max(1, len(shown)), error, near + sum(n for _, n in lost)
