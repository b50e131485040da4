"""Asking several servers at once, from one thread: send every question first, then take answers as they come.

A question is a SELECT, prepared on its connection at its first use. This goes straight to libpq, below the driver's
cursors: a search asks several servers for little, and then a cursor, a loop's turns or a thread are a large part of it.
Source: PostgreSQL 18 manual, "Asynchronous Command Processing"; psycopg 3, psycopg.pq and Transformer.
"""

from __future__ import annotations

import asyncio
import math
import re
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count
from time import perf_counter
from typing import Any

import psycopg
from psycopg import abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format, TransactionStatus

AnyConnection = psycopg.BaseConnection[Any]
Enough = Callable[[], bool]
_Kept = tuple[abc.Transformer, dict[tuple[bytes, tuple[int, ...]], bytes], Iterator[int]]
CANCEL_TIMEOUT_S = 5.0
_PLACEHOLDER = re.compile(rb"%\((\w+)\)s|%%")
_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE, ExecStatus.NONFATAL_ERROR)


@lru_cache(maxsize=4096)
def _numbered(text: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The statement with ``$1`` for ``%(name)s``, and the names in that order."""
    names: list[str] = []

    def number(match: re.Match[bytes]) -> bytes:
        if match.group(1) is None:
            return b"%"
        name = match.group(1).decode()
        if name not in names:
            names.append(name)
        return b"$%d" % (names.index(name) + 1)

    return _PLACEHOLDER.sub(number, text), tuple(names)


class Question:
    """One SELECT on one connection: ``rows`` or an ``error`` once it is ``answered``, ``ms`` after it was sent."""

    def __init__(self, connection: AnyConnection, text: bytes, values: Mapping[str, Any], *, binary: bool) -> None:
        self.connection = connection
        self.rows: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.answered = False
        self.ms = 0.0
        self._started = perf_counter()
        self._pgconn = connection.pgconn
        self._format = Format.BINARY if binary else Format.TEXT
        self._text, names = _numbered(text)
        try:
            self._transformer, self._prepared, self._numbers = _kept(connection)
            self._values = self._transformer.dump_sequence([values[n] for n in names], [PyFormat.AUTO] * len(names))
            self._formats = self._transformer.formats
            self._key = (self._text, tuple(self._transformer.types or ()))
            self._name = self._prepared.get(self._key)
            self._send()
        except Exception as error:  # noqa: BLE001  # told with the answer, where the group is known
            self._end(error)

    @property
    def fileno(self) -> int:
        """The socket to wait for."""
        return self._pgconn.socket

    @property
    def unsent(self) -> bool:
        """Whether libpq has more to send than the socket took."""
        return bool(self._pgconn.flush())

    def _send(self) -> None:
        if self._name is None:
            self._preparing = b"pgherd_%d" % next(self._numbers)
            self._pgconn.send_prepare(self._preparing, self._text, self._key[1])
        else:
            self._pgconn.send_query_prepared(self._name, self._values, self._formats, self._format)
        self._pgconn.flush()
        self.connection.pgherd_asked = True  # type: ignore[attr-defined]

    def advance(self) -> bool:
        """Take what has arrived; whether the question is answered."""
        try:
            self._pgconn.consume_input()
            while not self.answered and not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    self._finish()
                elif result.status in _FAILED:
                    self.error = error_from_result(result, self.connection.info.encoding)
                elif result.status == ExecStatus.TUPLES_OK:
                    self._transformer.set_pgresult(result, format=self._format)
                    self.rows = self._transformer.load_rows(0, result.ntuples, tuple)
        except Exception as error:  # noqa: BLE001
            self._end(error)
        return self.answered

    def _finish(self) -> None:
        """One command is over: the preparation, then the query itself."""
        if self._name is None and self.error is None:
            self._name = self._prepared[self._key] = self._preparing
            self._send()
        else:
            self._end(self.error)

    def _end(self, error: Exception | None) -> None:
        self.error = error
        self.answered = True
        self.connection.pgherd_asked = False  # type: ignore[attr-defined]
        self.ms = (perf_counter() - self._started) * 1000


def _kept(connection: AnyConnection) -> _Kept:
    """How values are sent and read on a connection, and the statements prepared there, kept on the connection itself.

    The driver looks for how to read each column once a transformer: one for each question would look again and again.
    """
    found: _Kept | None = getattr(connection, "pgherd_kept", None)
    if found is None:
        found = Transformer(connection), {}, count()
        connection.pgherd_kept = found  # type: ignore[attr-defined]
    return found


def is_under_way(connection: AnyConnection) -> bool:
    """Whether a question that nobody waits for any more is still to be answered. What has come of it is dropped.

    Never waits; False on a connection that broke, or that is used for anything else.
    """
    if not getattr(connection, "pgherd_asked", False):
        return False
    pgconn = connection.pgconn
    with suppress(psycopg.Error):
        while pgconn.transaction_status == TransactionStatus.ACTIVE:
            pgconn.consume_input()
            if pgconn.is_busy():
                return True
            pgconn.get_result()
    return False


def readable_of(connection: AnyConnection) -> select.poll:
    """What tells whether the connection's server has said anything; kept on the connection itself."""
    found: select.poll | None = getattr(connection, "pgherd_poll", None)
    if found is None:
        found = connection.pgherd_poll = select.poll()  # type: ignore[attr-defined]
        found.register(connection.pgconn.socket, select.POLLIN)
    return found


def _wait_for_one(question: Question) -> None:
    poll, fd = readable_of(question.connection), question.fileno
    try:
        while not question.answered:
            if question.unsent:
                poll.modify(fd, select.POLLIN | select.POLLOUT)
                poll.poll()
                poll.modify(fd, select.POLLIN)
            else:
                poll.poll()
            question.advance()
    except BaseException:
        with suppress(psycopg.Error):
            question.connection.pgconn.get_cancel().cancel()
        raise


def wait_for(questions: Sequence[Question], enough: Enough | None = None, timeout_s: float | None = None) -> None:
    """Wait in this thread until all are answered, it is ``enough``, or time is up; Ctrl-C cancels what is under way."""
    if len(questions) == 1 and timeout_s is None and enough is None:
        _wait_for_one(questions[0])
        return
    poll = select.poll()
    deadline = None if timeout_s is None else perf_counter() + timeout_s
    waiting = {q.fileno: q for q in questions if not q.answered}
    for fd, question in waiting.items():
        poll.register(fd, select.POLLIN | (select.POLLOUT if question.unsent else 0))
    try:
        while waiting and not (enough and enough()):
            left_s = None if deadline is None else deadline - perf_counter()
            if left_s is not None and left_s <= 0:
                return
            for fd, _ in poll.poll(None if left_s is None else math.ceil(left_s * 1000)):
                question = waiting[fd]
                if question.advance():
                    poll.unregister(fd)
                    del waiting[fd]
                else:
                    poll.modify(fd, select.POLLIN | (select.POLLOUT if question.unsent else 0))
    except BaseException:
        for question in waiting.values():
            with suppress(psycopg.Error):
                question.connection.pgconn.get_cancel().cancel()
        raise


async def wait_for_async(
    questions: Sequence[Question], enough: Enough | None = None, timeout_s: float | None = None
) -> None:
    """The same in the event loop; a cancelled task cancels what is under way."""
    loop = asyncio.get_running_loop()
    waiting = {q.fileno: q for q in questions if not q.answered}
    if not waiting or (enough and enough()):
        return
    done = loop.create_future()

    def arrived(fd: int) -> None:
        question = waiting[fd]
        if question.advance():
            loop.remove_reader(fd)
            del waiting[fd]
            if (not waiting or (enough and enough())) and not done.done():
                done.set_result(None)

    for fd, question in list(waiting.items()):
        while question.unsent:
            await asyncio.sleep(0)
        loop.add_reader(fd, arrived, fd)
    try:
        await (done if timeout_s is None else asyncio.wait([done], timeout=timeout_s))
        for fd in waiting:
            loop.remove_reader(fd)
    except BaseException:
        for fd, question in waiting.items():
            loop.remove_reader(fd)
            with suppress(psycopg.Error):
                question.connection.pgconn.get_cancel().cancel()
        raise
