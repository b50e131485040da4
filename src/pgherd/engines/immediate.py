"""Connections for callers who wait in their own thread.

The same coroutines as everywhere, over calls that block: a coroutine whose awaits never suspend needs no event loop,
and ``run`` drives it to its end. A loop on a second thread would cost a search about a third of its time.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg.pq import TransactionStatus

from . import wire
from .failures import talking_to
from .servers.pool import is_alive

T = TypeVar("T")
THREADS = 16
CANCEL_TIMEOUT_S = 5.0
_used: ContextVar[list[ImmediateConnection]] = ContextVar("used")
"""The connections that one call uses, on whichever thread."""


class Immediate:
    """Connections by group, in autocommit, for any number of threads; ``conninfo`` tells how to reach a group."""

    def __init__(self, conninfo: Callable[[str], dict[str, Any]]) -> None:
        self._conninfo = conninfo
        self._idle: dict[tuple[str, str, int], list[ImmediateConnection]] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pgherd-search")

    @asynccontextmanager
    async def connection(self, group: str) -> AsyncIterator[ImmediateConnection]:
        """A connection to the group's primary for the length of the block; GroupUnavailable without an answer."""
        info = self._conninfo(group)
        key = (group, str(info["host"]), int(info["port"]))
        connection = self._take(key) or _open(group, info)
        _used.get().append(connection)
        try:
            yield connection
        finally:
            self._give(key, connection)

    def _take(self, key: tuple[str, str, int]) -> ImmediateConnection | None:
        while True:
            with self._lock:
                idle = self._idle.get(key)
                found = idle.pop() if idle else None
            if found is None or is_alive(found.raw):
                return found
            found.raw.close()

    def _give(self, key: tuple[str, str, int], connection: ImmediateConnection) -> None:
        if connection.raw.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.raw.close()  # broken, or interrupted by Ctrl-C
            return
        with self._lock:
            self._idle.setdefault(key, []).append(connection)

    def run_all(self, coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Run them at the same time, the first on this thread; all have ended when the first error is raised."""
        if not coroutines:
            return []
        used: list[ImmediateConnection] = []
        others = [self._threads.submit(_run_noting, c, used) for c in coroutines[1:]]
        try:
            first = _run_noting(coroutines[0], used)
            wait(others)
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C: nobody waits for the others any more
                for connection in used:
                    with suppress(psycopg.Error):
                        connection.raw.cancel_safe(timeout=CANCEL_TIMEOUT_S)
            wait(others)
            raise
        return [first, *(o.result() for o in others)]

    def close(self) -> None:
        """Close everything."""
        self._threads.shutdown()
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.raw.close()


class ImmediateConnection:
    """As much of an async connection as a search needs; no await in it ever suspends."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw
        self.pgherd_ef_search: int | None = None

    async def execute(self, query: Any, params: Any = None, *, binary: bool = False) -> ImmediateCursor:
        """Run a statement."""
        return ImmediateCursor(self.raw.execute(query, params, binary=binary))


class ImmediateCursor:
    """The result of a statement."""

    def __init__(self, raw: psycopg.Cursor[Any]) -> None:
        self._raw = raw

    async def fetchall(self) -> list[Any]:
        """Its rows."""
        return self._raw.fetchall()


def _run_noting(coroutine: Coroutine[Any, Any, T], used: list[ImmediateConnection]) -> T:
    _used.set(used)
    return run(coroutine)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise RuntimeError("a coroutine over immediate connections tried to wait")


def _open(group: str, info: dict[str, Any]) -> ImmediateConnection:
    with talking_to(group, "connecting"):
        raw: psycopg.Connection[Any] = psycopg.Connection.connect(**info, autocommit=True, prepare_threshold=2)
        try:
            with suppress(psycopg.ProgrammingError):  # a herd may have no vectors yet
                register_vector(raw)
                wire.register(raw)
        except BaseException:
            raw.close()
            raise
        return ImmediateConnection(raw)
