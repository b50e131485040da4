"""What there is to measure: the columns with vector indexes, their shards, the questions, and the true answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any

from psycopg import sql

from ..engines.asking import Question, wait_for_async
from ..engines.base import Connection, Engine
from ..engines.failures import translate
from ..model.schema import Column, Index, Table, VectorType
from ..model.topology import Shard, Topology
from ..model.vectors import Metric, served_by
from ..search.effort import Via, usual_effort
from ..search.request import bindable
from ..search.statement import Shape, Statement, statement_of
from .curve import DEPTHS
from .indexes import IndexFacts, index_facts
from .questions import questions_of, sample_rows

Progress = Callable[[int, int], None]
"""Told how many questions have been asked, and how many there are to ask."""


@dataclass(slots=True)
class Count:
    """How far the measuring has come."""

    progress: Progress | None
    total: int = 0
    done: int = 0

    def add(self, asked: int) -> None:
        """So many more questions have been asked."""
        self.done += asked
        if self.progress:
            self.progress(self.done, self.total)


@dataclass(frozen=True, slots=True)
class Subject:
    """One column of a table with the distance that its indexes serve, and the types of their entries."""

    column: Column
    metric: Metric
    stored: tuple[VectorType, ...]

    @property
    def own(self) -> VectorType:
        """The column's type."""
        assert self.column.vector is not None
        return self.column.vector[0]


@dataclass(slots=True)
class Task:
    """One shard of a subject: its indexes, the questions, and what was found. ``alike``: where several indexes have
    entries of one type, all of them.

    ``truth`` is the distances of the true nearest, a list a question; ``answers`` the same out of each index at each
    effort, with the median milliseconds in ``ms``.
    """

    shard: Shard
    subject: Subject
    facts: dict[VectorType, IndexFacts]
    rows: int
    alike: dict[VectorType, list[IndexFacts]] = field(default_factory=dict)
    questions: list[Any] = field(default_factory=list)
    truth: list[list[float]] = field(default_factory=list)
    exact_ms: float = 0.0
    answers: dict[tuple[VectorType, int], list[list[float]]] = field(default_factory=dict)
    ms: dict[tuple[VectorType, int], float] = field(default_factory=dict)

    def statement(self, k: int, exact: bool, via: Via | None = None) -> Statement:
        """The statement of a search of this shard."""
        column, metric = self.subject.column, self.subject.metric
        shape = Shape(
            self.shard.table.name, column.name, column.type, not column.not_null, metric.operator, "", (), (), k, False
        )
        return statement_of(shape, (self.shard.relation,), exact, via)


def tunable(table: Table, indexes: tuple[Index, ...]) -> list[Subject]:
    """The vector columns with indexes of all their rows, each with the distance that they serve."""
    found: dict[tuple[str, Metric], Subject] = {}
    for column in table.vector_columns:
        for index in indexes:
            served = served_by(index, column) if index.where is None else None
            if served is None:
                continue
            key = column.name, served.metric
            before = found[key].stored if key in found else ()
            found[key] = Subject(column, served.metric, tuple(dict.fromkeys((*before, served.stored))))
    return list(found.values())


async def at_homes(
    engine: Engine, tasks: Sequence[Task], run: Callable[[Connection, Task], Coroutine[Any, Any, None]]
) -> None:
    """Run tasks at the homes of their shards: homes at the same time, the tasks of one in order."""

    async def of_home(home: str) -> None:
        async with engine.connection(home) as connection:
            for task in tasks:
                if task.shard.home == home:
                    await run(connection, task)

    homes = dict.fromkeys(t.shard.home for t in tasks)
    for result in await asyncio.gather(*map(of_home, homes), return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def pinned_alike(topology: Topology, shards: Sequence[Shard]) -> list[list[Shard]]:
    """Shards whose rows may be in the same regions, together: what is made of rows of some may be asked of the others.

    A question that is made of rows is nearly one of them: it must not leave their regions either.
    """
    found: dict[frozenset[str], list[Shard]] = {}
    for shard in shards:
        found.setdefault(topology.schema.regions_at(shard.tablespace), []).append(shard)
    return list(found.values())


async def tasks_of(
    engine: Engine, shards: Sequence[Shard], subject: Subject, sample: int, given: Sequence[Any] | None = None
) -> list[Task]:
    """What to measure of one column. Every shard is asked the same questions: ``given`` ones, or some made of rows."""
    tasks = []
    name = subject.column.name
    for shard in shards:
        async with engine.connection(shard.home) as connection:
            there = [f for f in await index_facts(connection, shard) if f.valid]
            facts = {s: [f for f in there if f.serves(name, subject.metric, s)] for s in subject.stored}
            count = await count_of(connection, shard, name)
        if any(facts.values()) and count:
            first = {stored: found[0] for stored, found in facts.items() if found}
            alike = {stored: found for stored, found in facts.items() if len(found) > 1}
            tasks.append(Task(shard, subject, first, count, alike))
    total = sum(t.rows for t in tasks)
    rows: list[Any] = []
    for task in tasks if given is None else ():
        async with engine.connection(task.shard.home) as connection:
            wanted = ceil(2 * sample * task.rows / total)
            rows += await sample_rows(connection, task.shard.relation, name, task.rows, wanted)
    if given is None:
        questions = questions_of(rows, subject.column, subject.metric, sample)
    else:
        questions = [bindable(vector, subject.column, subject.metric) for vector in given]
    for task in tasks:
        task.questions = questions
        if task.alike and questions:
            async with engine.connection(task.shard.home) as connection:
                await _choose(connection, task)
    return tasks if questions else []


async def count_of(connection: Connection, shard: Shard, column: str) -> int:
    """How many rows of a shard have a value in that column."""
    query = sql.SQL("SELECT count({}) FROM {}")
    done = await connection.execute(query.format(sql.Identifier(column), sql.Identifier(*shard.relation)))
    row = await done.fetchone()
    return int(row[0]) if row else 0


async def _choose(connection: Connection, task: Task) -> None:
    """Of several indexes with entries of one type, measure the one that PostgreSQL takes: a search can't choose."""
    subject = task.subject
    for stored, several in task.alike.items():
        via = None if stored is subject.own else usual_effort(stored, subject.own, DEPTHS[-1]).via
        text = b"EXPLAIN (FORMAT json) " + task.statement(DEPTHS[-1], exact=False, via=via).text
        async with connection.transaction(force_rollback=True):
            await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
            done = await connection.execute(text, {"pgherd_q": task.questions[0]})
            taken = _indexes_of((await done.fetchall())[0][0][0]["Plan"])
        task.facts[stored] = next((f for f in several if f.relation in taken), several[0])


def _indexes_of(plan: dict[str, Any]) -> set[str]:
    found = {plan["Index Name"]} if "Index Name" in plan else set()
    return found.union(*(_indexes_of(below) for below in plan.get("Plans", ())))


async def find_truth(connection: Connection, task: Task, count: Count) -> None:
    times = []
    statement = task.statement(DEPTHS[-1], exact=True)
    for question in task.questions:
        distances, ms = await ask(connection, task, question, statement)
        task.truth.append(distances)
        times.append(ms)
        count.add(1)
    task.exact_ms = median(times)


async def ask(connection: Connection, task: Task, question: Any, statement: Statement) -> tuple[list[float], float]:
    """The distances found, NaN left out, and the milliseconds it took."""
    asked = Question(connection, statement.text, {"pgherd_q": question}, binary=statement.binary)
    await wait_for_async([asked])
    if asked.error is not None:
        raise translate(asked.error, task.shard.home, f"measuring {task.shard.name}") from asked.error
    return [row[0] for row in asked.rows if row[0] == row[0]], asked.ms
