"""Connections for callers who wait in their own thread.

The same coroutine as everywhere, over calls that block: one whose awaits never suspend needs no event loop, and ``run``
drives it to its end. A loop on a second thread would cost a search about a third of its time.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg.pq import TransactionStatus

from . import wire
from .failures import talking_to
from .servers.pool import is_alive

T = TypeVar("T")
SyncConnection = psycopg.Connection[Any]


class Immediate:
    """Connections by group, in autocommit, for any number of threads; ``connect`` opens one to a group's primary."""

    def __init__(self, connect: Callable[[str], SyncConnection]) -> None:
        self._connect = connect
        self._idle: dict[str, list[SyncConnection]] = {}
        self._lock = threading.Lock()

    @asynccontextmanager
    async def connection(self, group: str) -> AsyncIterator[SyncConnection]:
        """A connection to the group's primary for the length of the block; GroupUnavailable without an answer."""
        connection = self._take(group) or self._open(group)
        try:
            yield connection
        finally:
            self._give(group, connection)

    def _take(self, group: str) -> SyncConnection | None:
        while True:
            with self._lock:
                idle = self._idle.get(group)
                found = idle.pop() if idle else None
            if found is None or is_alive(found):
                return found
            found.close()

    def _give(self, group: str, connection: SyncConnection) -> None:
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.close()  # broken, or interrupted by Ctrl-C
            return
        with self._lock:
            self._idle.setdefault(group, []).append(connection)

    def _open(self, group: str) -> SyncConnection:
        with talking_to(group, "connecting"):
            connection = self._connect(group)
            try:
                with suppress(psycopg.ProgrammingError):  # a herd may have no vectors yet
                    register_vector(connection)
                    wire.register(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise RuntimeError("a coroutine over immediate connections tried to wait")
