"""Connections for callers who wait in their own thread.

The same coroutine as everywhere, over calls that block: one whose awaits never suspend needs no event loop, and ``run``
drives it to its end. A loop on a second thread would cost a search about a third of its time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector

from . import wire
from .asking import AnyConnection, Enough, Question, wait_for
from .failures import talking_to
from .servers.pool import is_alive, keep, pick

T = TypeVar("T")
SyncConnection = psycopg.Connection[Any]


class Immediate:
    """Connections by group, in autocommit, for any number of threads.

    ``connect`` opens one to a group's primary, or to the node of the group that is named.
    """

    def __init__(self, connect: Callable[[str, str | None], SyncConnection]) -> None:
        self._connect = connect
        self._idle: dict[tuple[str, str | None], list[SyncConnection]] = {}
        self._lock = threading.Lock()

    async def take(self, group: str, node: str | None = None) -> SyncConnection:
        """A connection to the group's primary, or to ``node``; GroupUnavailable without an answer."""
        while True:
            with self._lock:
                found = pick(self._idle.get((group, node), []))
            if found is None:
                return self._open(group, node)
            if is_alive(found, primary=node is None):
                return found
            found.close()

    async def give(self, group: str, node: str | None, connection: AnyConnection) -> None:
        """Take a connection back."""
        assert isinstance(connection, psycopg.Connection)
        with self._lock:
            kept = keep(self._idle.setdefault((group, node), []), connection)
        if not kept:
            connection.close()  # broken, or too many that other nodes were faster than

    async def wait(
        self, questions: Sequence[Question], enough: Enough | None = None, timeout_s: float | None = None
    ) -> None:
        """Wait in the caller's thread; see :func:`pgherd.engines.asking.wait_for`."""
        wait_for(questions, enough, timeout_s)

    def _open(self, group: str, node: str | None) -> SyncConnection:
        with talking_to(group, "connecting"):
            connection = self._connect(group, node)
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
