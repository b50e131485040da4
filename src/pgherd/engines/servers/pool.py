"""Connections to one primary, kept open between uses and handed out with next to no work.

No background tasks: who needs a connection opens it, and so learns at once, and why, when the server does not answer.
A connection that its server closed meanwhile (a restart, an idle timeout) is found out before it is handed out.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg.pq import ConnStatus, TransactionStatus

from ...errors import GroupUnavailable
from .. import wire
from ..asking import AnyConnection, is_under_way, readable_of
from ..base import Connection
from ..failures import talking_to
from . import acknowledged
from .whereabouts import Whereabouts, in_recovery

MAX_CONNECTIONS = 16
WAIT_TIMEOUT_S = 10.0
MAX_LATE = 4
"""So many connections are kept whose servers have not answered yet."""
C = TypeVar("C", bound=AnyConnection)


class Pool:
    """At most ``MAX_CONNECTIONS`` connections in autocommit to the group's primary, or to ``node``."""

    def __init__(self, group: str, whereabouts: Whereabouts, node: str | None = None) -> None:
        self._group = group
        self._node = node
        self._whereabouts = whereabouts
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._closed = False

    async def take(self) -> Connection:
        """A connection that works, as far as can be told without asking; GroupUnavailable if there is none."""
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            while (connection := pick(self._idle)) is not None:
                if is_alive(connection, primary=self._node is None):
                    return connection
                await connection.close()
            return await self._open()
        except BaseException:
            self._free.release()
            raise

    async def give(self, connection: Connection) -> None:
        """Take a connection back; what is broken, or still inside a transaction that can't be undone, is closed."""
        try:
            if connection.pgconn.transaction_status != TransactionStatus.IDLE and not is_under_way(connection):
                await _undo(connection)
            if self._closed or not keep(self._idle, connection):
                await connection.close()
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise GroupUnavailable(
                f"all {MAX_CONNECTIONS} connections to group {self._group} were in use for {WAIT_TIMEOUT_S:.0f} s",
                hint="run fewer calls at the same time",
            ) from error

    async def _open(self) -> Connection:
        with talking_to(self._group, "connecting"):
            connection = await self._whereabouts.connect(self._group, self._node, autocommit=True, prepare_threshold=2)
            acknowledged.watch(connection)
            try:
                with suppress(psycopg.ProgrammingError):  # a herd may have no vectors yet
                    await register_vector_async(connection)
                    wire.register(connection)
            except BaseException:
                await connection.close()
                raise
        return connection


def pick(kept: list[C]) -> C | None:
    """Take the connection used last (its server has warm caches) of those on which nothing is under way any more."""
    for at in reversed(range(len(kept))):
        if not is_under_way(kept[at]):
            return kept.pop(at)
    return None


def keep(kept: list[C], connection: C) -> bool:
    """Put a connection to those that are kept, also one on which a question is under way that nobody waits for: where
    another node was faster. Whether it was; not in the middle of anything else, nor if too many wait already.
    """
    if is_under_way(connection):
        if sum(map(is_under_way, kept)) >= MAX_LATE:
            return False
    elif connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    kept.append(connection)
    return True


async def _undo(connection: Connection) -> None:
    if connection.pgconn.status == ConnStatus.OK:
        with suppress(psycopg.Error):
            await connection.rollback()


def is_alive(connection: psycopg.Connection[Any] | Connection, *, primary: bool = True) -> bool:
    """Whether the server has said nothing: what it says on an idle connection is nearly always that it hangs up.

    ``primary``: one that became a standby meanwhile won't do.
    """
    if connection.pgconn.status != ConnStatus.OK or (primary and in_recovery(connection)):
        return False
    return not readable_of(connection).poll(0)
