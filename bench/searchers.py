"""Who is asked: psycopg alone, the client (sync and async), and the search function in SQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
from pgvector.psycopg import register_vector, register_vector_async

from pgherd.client import AsyncHerd
from pgherd.sync import Herd

from .data import Vectors

K = 10
COLUMNS = "id, region, code, description"


@dataclass(slots=True)
class Answers:
    """For each question its time in milliseconds and the ids found; ``cpu_ms`` is this process' CPU time for one."""

    ms: list[float] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    cpu_ms: float = 0.0


class Searcher(Protocol):
    """Answers questions one after the other."""

    def ask(self, questions: Vectors, effort: int) -> Answers:
        """The K nearest rows to each of the questions, (n, dim) float32; ``effort`` is hnsw.ef_search or its like."""
        ...


def nearest(relation: str, where: str = "") -> str:
    """The query that everybody answers, as one would write it for one server; ``%(q)b`` is sent in binary."""
    distance = "embedding <=> %(q)b"
    return f"SELECT {COLUMNS}, {distance} AS distance FROM {relation} {where} ORDER BY {distance} LIMIT {K}"


def nearest_by_function(table: str) -> str:
    """The same question to ``pgherd.search_<table>``."""
    return f"SELECT {COLUMNS}, distance FROM pgherd.search_{table}(%(q)b, {K})"


class Driver:
    """A statement prepared on one psycopg connection. ``sets_ef`` is False where the server has been told before."""

    def __init__(self, dsn: str, statement: str, parameters: dict[str, Any] | None = None, *, sets_ef: bool = True):
        self._connection = psycopg.connect(dsn, autocommit=True)
        register_vector(self._connection)
        self._statement, self._parameters, self._sets_ef = statement, parameters or {}, sets_ef

    def ask(self, questions: Vectors, effort: int) -> Answers:
        """See :class:`Searcher`."""
        cursor = self._connection.cursor(binary=True)
        if self._sets_ef:
            cursor.execute(f"SET hnsw.ef_search = {int(effort)}")
        answers, cpu = Answers(), time.process_time()
        for question in questions:
            started = time.perf_counter()
            rows = cursor.execute(self._statement, {**self._parameters, "q": question}, prepare=True).fetchall()
            answers.ms.append((time.perf_counter() - started) * 1000)
            answers.ids.append([row[0] for row in rows])
        answers.cpu_ms = (time.process_time() - cpu) * 1000 / len(questions)
        return answers

    def plan(self, question: Any, effort: int) -> str:
        """The server's own plan, run and timed."""
        if self._sets_ef:
            self._connection.execute(f"SET hnsw.ef_search = {int(effort)}")
        explained = self._connection.execute(
            "EXPLAIN (ANALYZE, COSTS OFF) " + self._statement, {**self._parameters, "q": question}
        )
        return "\n".join(row[0] for row in explained)


class AsyncDriver:
    """The same on an async connection, in ``runner``'s event loop."""

    def __init__(self, runner: asyncio.Runner, dsn: str, statement: str, parameters: dict[str, Any] | None = None):
        self._runner, self._statement, self._parameters = runner, statement, parameters or {}
        self._connection = runner.run(self._connect(dsn))

    async def _connect(self, dsn: str) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        await register_vector_async(connection)
        return connection

    def ask(self, questions: Vectors, effort: int) -> Answers:
        """See :class:`Searcher`."""
        return self._runner.run(self._ask(questions, effort))

    async def _ask(self, questions: Vectors, effort: int) -> Answers:
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(f"SET hnsw.ef_search = {int(effort)}")
        answers, cpu = Answers(), time.process_time()
        for question in questions:
            started = time.perf_counter()
            await cursor.execute(self._statement, {**self._parameters, "q": question}, prepare=True)
            rows = await cursor.fetchall()
            answers.ms.append((time.perf_counter() - started) * 1000)
            answers.ids.append([row[0] for row in rows])
        answers.cpu_ms = (time.process_time() - cpu) * 1000 / len(questions)
        return answers


class Client:
    """``pgherd.connect``: a table's search, with ``where`` routed to the groups that match."""

    def __init__(self, herd: Herd, table: str, where: dict[str, Any] | None = None):
        self._table, self._where = herd.table(table), where

    def ask(self, questions: Vectors, effort: int) -> Answers:
        """See :class:`Searcher`."""
        answers, cpu = Answers(), time.process_time()
        for question in questions:
            started = time.perf_counter()
            hits = self._table.search(question, K, where=self._where, ef_search=effort)
            answers.ms.append((time.perf_counter() - started) * 1000)
            answers.ids.append([hit.row["id"] for hit in hits])
        answers.cpu_ms = (time.process_time() - cpu) * 1000 / len(questions)
        return answers


class Promised:
    """``pgherd.connect``: a table's search by a recall that is asked for; an effort is that recall in thousandths."""

    def __init__(self, herd: Herd, table: str):
        self._table = herd.table(table)

    def ask(self, questions: Vectors, effort: int) -> Answers:
        """See :class:`Searcher`."""
        answers, cpu = Answers(), time.process_time()
        for question in questions:
            started = time.perf_counter()
            hits = self._table.search(question, K, recall=effort / 1000)
            answers.ms.append((time.perf_counter() - started) * 1000)
            answers.ids.append([hit.row["id"] for hit in hits])
        answers.cpu_ms = (time.process_time() - cpu) * 1000 / len(questions)
        return answers


class AsyncClient:
    """``pgherd.connect_async``: the same, in ``runner``'s event loop."""

    def __init__(self, runner: asyncio.Runner, herd: AsyncHerd, table: str, where: dict[str, Any] | None = None):
        self._runner, self._table, self._where = runner, herd.table(table), where

    def ask(self, questions: Vectors, effort: int) -> Answers:
        """See :class:`Searcher`."""
        return self._runner.run(self._ask(questions, effort))

    async def _ask(self, questions: Vectors, effort: int) -> Answers:
        answers, cpu = Answers(), time.process_time()
        for question in questions:
            started = time.perf_counter()
            hits = await self._table.search(question, K, where=self._where, ef_search=effort)
            answers.ms.append((time.perf_counter() - started) * 1000)
            answers.ids.append([hit.row["id"] for hit in hits])
        answers.cpu_ms = (time.process_time() - cpu) * 1000 / len(questions)
        return answers


def recall(answers: Answers, truth: Sequence[set[int]]) -> float:
    """The share of the true neighbours that were found."""
    found = sum(len(true.intersection(ids)) for ids, true in zip(answers.ids, truth, strict=True))
    return found / sum(map(len, truth))
