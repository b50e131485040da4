"""Measure indexes on the servers they live on: recall against reading every row, and time, at rising effort."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from ..engines.asking import Question, wait_for_async
from ..engines.base import Connection, Engine
from ..engines.failures import talking_to, translate
from ..errors import BadInput
from ..model.schema import Column, Index, Table
from ..model.topology import Shard
from ..model.vectors import Metric, metric_of_opclass
from ..search.statement import Shape, Statement, statement_of
from .curve import DEPTHS, Curve, Point, lower_bound
from .indexes import IndexFacts, index_facts
from .questions import questions_of, sample_rows
from .store import Calibration, write_calibration

EFFORTS = (10, 20, 40, 80, 160, 320, 640, 1000)
"""Values of hnsw.ef_search that are measured."""
MIN_SAMPLE = 10
SAMPLE = 100
"""A search finds all of the nearest or, lost in another part of the graph, none: fewer questions would say little."""
Progress = Callable[[int, int], None]
"""Told how many questions have been asked, and how many there are to ask."""


@dataclass(slots=True)
class _Count:
    """How far the measuring has come."""

    progress: Progress | None
    total: int = 0
    done: int = 0

    def add(self, asked: int) -> None:
        self.done += asked
        if self.progress:
            self.progress(self.done, self.total)


@dataclass(frozen=True, slots=True)
class _Task:
    """One index of one shard, and the questions to ask it."""

    shard: Shard
    column: Column
    metric: Metric
    facts: IndexFacts
    rows: int
    questions: list[Any]

    @property
    def efforts(self) -> tuple[int, ...]:
        """The efforts to measure: for ivfflat all powers of two up to its number of lists."""
        if self.facts.method == "hnsw":
            return EFFORTS
        lists = int(self.facts.parameters["lists"])
        return (*(2**i for i in range(lists.bit_length()) if 2**i < lists), lists)

    def statement(self, k: int, exact: bool) -> Statement:
        shape = Shape(
            self.shard.table.name, self.column.name, self.column.type, not self.column.not_null,
            self.metric.operator, "", (), (), k, False,
        )  # fmt: skip
        return statement_of(shape, (self.shard.relation,), exact)


async def tune(
    engine: Engine,
    table: Table,
    indexes: tuple[Index, ...],
    *,
    column: str | None = None,
    sample: int = SAMPLE,
    progress: Progress | None = None,
) -> tuple[Calibration, ...]:
    """Measure every hnsw and ivfflat index of ``table`` (or of one column) and keep what was found in the herd.

    Groups are measured at the same time, the shards of one group one after the other. Empty shards are left out.
    Raises BadInput, GroupUnavailable, ServerRefused.
    """
    if sample < MIN_SAMPLE:
        raise BadInput(f"a sample of {sample} questions says nothing", hint=f"at least {MIN_SAMPLE}; {SAMPLE} is usual")
    targets = [t for t in tunable(table, indexes) if column in (None, t[0].name)]
    if not targets:
        what = f"column {column!r} of {table.name}" if column else f"table {table.name}"
        raise BadInput(f"{what} has no hnsw or ivfflat index", hint="CREATE INDEX … USING hnsw in the schema file")
    shards = engine.topology.shards(table)
    count = _Count(progress)
    tasks = [task for target in targets for task in await _tasks(engine, shards, *target, sample)]
    count.total = sum(len(t.questions) * (1 + len(t.efforts)) for t in tasks)
    homes = dict.fromkeys(t.shard.home for t in tasks)
    found: list[Calibration] = []
    for result in await asyncio.gather(
        *(_measure_home(engine, h, tasks, count) for h in homes), return_exceptions=True
    ):
        if isinstance(result, BaseException):
            raise result
        found += result
    return tuple(found)


def tunable(table: Table, indexes: tuple[Index, ...]) -> list[tuple[Column, Metric]]:
    """The vector columns with an index of all their rows, each with the distance that it serves."""
    found: dict[tuple[str, Metric], tuple[Column, Metric]] = {}
    for index in indexes:
        metric = metric_of_opclass(index.opclass)
        column = table.column(index.columns[0]) if index.columns else None
        if metric and column and column.vector and index.method in ("hnsw", "ivfflat") and index.where is None:
            found.setdefault((column.name, metric), (column, metric))
    return list(found.values())


async def _tasks(engine: Engine, shards: Sequence[Shard], column: Column, metric: Metric, sample: int) -> list[_Task]:
    """What to measure of one column. Every shard is asked the same questions, made of rows of all of them."""
    tasks = []
    for shard in shards:
        async with engine.connection(shard.home) as connection:
            facts = [f for f in await index_facts(connection, shard) if f.serves(column.name, metric) and f.valid]
            query = sql.SQL("SELECT count({}) FROM {}")
            done = await connection.execute(query.format(sql.Identifier(column.name), sql.Identifier(*shard.relation)))
            row = await done.fetchone()
        if facts and row and row[0]:
            tasks.append(_Task(shard, column, metric, facts[0], int(row[0]), []))
    total = sum(t.rows for t in tasks)
    rows: list[Any] = []
    for task in tasks:
        async with engine.connection(task.shard.home) as connection:
            wanted = ceil(2 * sample * task.rows / total)
            rows += await sample_rows(connection, task.shard.relation, column.name, task.rows, wanted)
    questions = questions_of(rows, column, metric, sample)
    return [replace(t, questions=questions) for t in tasks if questions]


async def _measure_home(engine: Engine, home: str, tasks: Sequence[_Task], count: _Count) -> list[Calibration]:
    found = []
    async with engine.connection(home) as connection:
        for task in (t for t in tasks if t.shard.home == home):
            calibration = await _measure(connection, task, count)
            with talking_to(home, "keeping a calibration"):
                await write_calibration(connection, calibration)
            found.append(calibration)
    return found


async def _measure(connection: Connection, task: _Task, count: _Count) -> Calibration:
    truth, exact_ms = [], []
    for question in task.questions:
        distances, ms = await _ask(connection, task, question, DEPTHS[-1], exact=True)
        truth.append(distances)
        exact_ms.append(ms)
        count.add(1)
    try:
        # A small shard may be read without its index: what is measured here is the index.
        await connection.execute("SET enable_seqscan = off; SET enable_sort = off")
        points = [await _point(connection, task, effort, truth, count) for effort in task.efforts]
    finally:
        with suppress(psycopg.Error):  # a connection that broke is told of by what broke it
            await connection.execute("RESET enable_seqscan; RESET enable_sort")
        connection.pgherd_effort = None  # type: ignore[attr-defined]
    curve = Curve(task.facts.method, tuple(points), median(exact_ms))
    return Calibration(
        task.shard.relation.sql, task.column.name, task.metric.value, curve, task.facts.definition,
        len(task.questions), task.rows,
        max(task.facts.changes, task.rows),  # rows are counted, and may not have come into the statistics yet
    )  # fmt: skip


async def _point(
    connection: Connection, task: _Task, effort: int, truth: Sequence[Sequence[float]], count: _Count
) -> Point:
    hnsw = task.facts.method == "hnsw"
    await connection.execute(
        "SELECT set_config(%s, %s, false), set_config('hnsw.iterative_scan', 'strict_order', false),"
        " set_config('ivfflat.iterative_scan', 'relaxed_order', false)",
        ["hnsw.ef_search" if hnsw else "ivfflat.probes", str(effort)],
    )
    # Up to as many rows as a scan holds candidates, the first k of them are what a search for k gets.
    asked = min(effort, DEPTHS[-1]) if hnsw else DEPTHS[-1]
    answers, times = [], []
    for question in task.questions:
        distances, ms = await _ask(connection, task, question, asked, exact=False)
        answers.append(distances)
        times.append(ms)
        count.add(1)
    recalls = [
        lower_bound(recall_of(a, t, depth) for a, t in zip(answers, truth, strict=True)) if depth <= asked else None
        for depth in DEPTHS
    ]
    return Point(effort, median(times), tuple(None if r is None else round(r, 4) for r in recalls))


def recall_of(answer: Sequence[float], truth: Sequence[float], depth: int) -> float:
    """The share of the ``depth`` nearest that an answer holds, by distance: rows at an equal distance are as good."""
    nearest = truth[:depth]
    if not nearest:
        return 1.0
    return min(1.0, sum(d <= nearest[-1] for d in answer[:depth]) / len(nearest))


async def _ask(connection: Connection, task: _Task, question: Any, k: int, *, exact: bool) -> tuple[list[float], float]:
    """The distances found, NaN left out, and the milliseconds it took."""
    statement = task.statement(k, exact)
    asked = Question(connection, statement.text, {"pgherd_q": question}, binary=statement.binary)
    await wait_for_async([asked])
    if asked.error is not None:
        raise translate(asked.error, task.shard.home, f"measuring {task.shard.name}") from asked.error
    return [row[0] for row in asked.rows if row[0] == row[0]], asked.ms
