"""Client processes: each has a connection of its own, and asks or writes, again and again, until it is told to stop."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

import pgherd

from .data import Vectors
from .searchers import K, nearest

Operation = Callable[[int], Sequence[int]]
"""Does the i-th of its kind; the ids found or written."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])  # a process then starts in no time
_READY_S = 120.0


class Task(Protocol):
    """What a worker does; it is sent to the worker's process."""

    def opened(self, number: int) -> AbstractContextManager[Operation]:
        """The operation of worker ``number``, ready to be called."""
        ...


@dataclass(frozen=True)
class DriverSearch:
    """The query on one server, prepared on one psycopg connection."""

    dsn: str
    relation: str
    questions: Vectors
    effort: int | None

    @contextmanager
    def opened(self, number: int) -> Iterator[Operation]:
        """See :class:`Task`."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            register_vector(connection)
            cursor = connection.cursor(binary=True)
            if self.effort is not None:
                cursor.execute(f"SET hnsw.ef_search = {self.effort}")
            statement, questions = nearest(self.relation), self.questions

            def ask(i: int) -> Sequence[int]:
                question = questions[(i + 31 * number) % len(questions)]
                return [row[0] for row in cursor.execute(statement, {"q": question}, prepare=True)]  # type: ignore[call-overload]

            yield ask


@dataclass(frozen=True)
class HerdSearch:
    """A table's search through the client; ``options`` say how hard, as for ``search``."""

    home: Path
    table: str
    questions: Vectors
    options: dict[str, Any]

    @contextmanager
    def opened(self, number: int) -> Iterator[Operation]:
        """See :class:`Task`."""
        with pgherd.connect(home=self.home) as herd:
            table, questions, options = herd.table(self.table), self.questions, self.options

            def ask(i: int) -> Sequence[int]:
                question = questions[(i + 31 * number) % len(questions)]
                return [hit.row["id"] for hit in table.search(question, K, **options)]

            yield ask


@dataclass(frozen=True)
class HerdWrite:
    """One new row a call; workers have ids of their own, from ``first`` on in steps of ``stride``."""

    home: Path
    table: str
    vectors: Vectors
    first: int
    stride: int

    @contextmanager
    def opened(self, number: int) -> Iterator[Operation]:
        """See :class:`Task`."""
        with pgherd.connect(home=self.home) as herd:
            table, vectors = herd.table(self.table), self.vectors
            begin = self.first + number

            def write(i: int) -> Sequence[int]:
                key = begin + i * self.stride
                vector = vectors[i % len(vectors)]
                row = {"id": key, "region": "us-east", "code": "X", "description": "written", "embedding": vector}
                table.upsert([row])
                return [key]

            yield write


@dataclass(slots=True)
class Report:
    """What one worker did: milliseconds and ids of each call that worked, errors of those that did not."""

    ms: list[float] = field(default_factory=list)
    ids: list[Sequence[int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """which question each was: its index"""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0


class Crew:
    """Some processes that do the same, started once; ``with crew.working() as reports`` lets them work meanwhile."""

    def __init__(self, task: Task, count: int, questions: int = 0) -> None:
        self._stop = _CONTEXT.Event()
        pairs = [_CONTEXT.Pipe() for _ in range(count)]
        self._pipes = [mine for mine, _ in pairs]
        self._processes = [
            _CONTEXT.Process(target=_work, args=(theirs, self._stop, task, number, questions), daemon=True)
            for number, (_, theirs) in enumerate(pairs)
        ]

    def __enter__(self) -> Crew:
        for process in self._processes:
            process.start()
        try:
            for pipe in self._pipes:
                _answer(pipe)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self._processes:
            process.terminate()
            process.join()

    @contextmanager
    def working(self) -> Iterator[list[Report]]:
        """All work until the end of the block; then their reports are in the list."""
        reports: list[Report] = []
        self._stop.clear()
        for pipe in self._pipes:
            pipe.send("work")
        try:
            yield reports
        finally:
            self._stop.set()
        reports.extend(_answer(pipe) for pipe in self._pipes)

    def work(self, seconds: float) -> list[Report]:
        """All work for so long."""
        with self.working() as reports:
            time.sleep(seconds)
        return reports


def _answer(pipe: Connection) -> Report:
    if not pipe.poll(_READY_S):
        raise TimeoutError(f"a client process did not answer within {_READY_S:g} s")
    answer = pipe.recv()
    if isinstance(answer, str):
        raise RuntimeError(f"a client process failed: {answer}")
    assert isinstance(answer, Report)
    return answer


def _work(pipe: Connection, stop: Any, task: Task, number: int, questions: int) -> None:
    try:
        with task.opened(number) as operation:
            for i in range(20 if questions else 1):  # connections, statements and caches
                operation(i)
            pipe.send(Report())
            done = 20
            while pipe.recv() == "work":
                report = Report()
                cpu, started = time.process_time(), time.perf_counter()
                while not stop.is_set():
                    _call(operation, done, number, questions, report)
                    done += 1
                report.seconds = time.perf_counter() - started
                report.cpu_s = time.process_time() - cpu
                pipe.send(report)
    except (EOFError, KeyboardInterrupt):
        return
    except BaseException as error:  # noqa: BLE001  # told to the one who waits
        pipe.send(f"{type(error).__name__}: {error}")


def _call(operation: Operation, i: int, number: int, questions: int, report: Report) -> None:
    begun = time.perf_counter()
    try:
        ids = operation(i)
    except Exception as error:  # noqa: BLE001  # counted: any error is one too many
        report.errors.append(f"{type(error).__name__}: {error}")
        return
    report.ms.append((time.perf_counter() - begun) * 1000)
    report.ids.append(ids)
    if questions:
        report.numbers.append((i + 31 * number) % questions)


def recall(reports: Sequence[Report], truth: Sequence[set[int]]) -> float:
    """The share of the true neighbours that were found by all."""
    found = total = 0
    for report in reports:
        for ids, number in zip(report.ids, report.numbers, strict=True):
            found += len(truth[number].intersection(ids))
            total += len(truth[number])
    return found / total


def times_ms(reports: Sequence[Report]) -> list[float]:
    """All calls' times."""
    return np.concatenate([np.asarray(r.ms) for r in reports]).tolist()


def errors(reports: Sequence[Report]) -> list[str]:
    """All calls' errors."""
    return [e for r in reports for e in r.errors]
