"""Connections to the primaries of all groups: one pool a group, opened at first use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ...model.topology import Group
from .. import wire
from ..base import Connection
from ..failures import talking_to

CONNECT_TIMEOUT_S = 5
POOL_TIMEOUT_S = 10.0
MAX_CONNECTIONS_PER_GROUP = 16


class Pools:
    """Pools by group name. ``base`` holds the libpq parameters that all groups share (user, dbname, passfile …)."""

    def __init__(self, base: dict[str, Any], groups: tuple[Group, ...]) -> None:
        self._base = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "pgherd", **base}
        self._groups = {g.name: g for g in groups}
        self._pools: dict[str, AsyncConnectionPool[Connection]] = {}
        self._opening = asyncio.Lock()

    def conninfo(self, group: str) -> dict[str, Any]:
        """The libpq parameters that reach a group's primary."""
        node = self._groups[group].primary  # type: ignore[index]
        return {**self._base, "host": node.host, "port": node.port}

    async def set_groups(self, groups: tuple[Group, ...]) -> None:
        """Follow a changed topology: pools of groups that moved or are gone are closed."""
        old, self._groups = self._groups, {g.name: g for g in groups}
        for name in [n for n in self._pools if old.get(n) != self._groups.get(n)]:  # type: ignore[call-overload]
            await self._pools.pop(name).close()

    async def reset(self) -> None:
        """Close every pool; the next use opens fresh connections (types of a new extension are seen then)."""
        pools, self._pools = self._pools, {}
        await asyncio.gather(*(p.close() for p in pools.values()))

    async def _pool(self, group: str) -> AsyncConnectionPool[Connection]:
        found = self._pools.get(group)
        if found is not None:
            return found
        async with self._opening:
            if group not in self._pools:
                pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
                    kwargs={**self.conninfo(group), "autocommit": True, "prepare_threshold": 2},
                    min_size=0,
                    max_size=MAX_CONNECTIONS_PER_GROUP,
                    configure=_configure,
                    reset=_reset,
                    open=False,
                    timeout=POOL_TIMEOUT_S,
                    reconnect_timeout=CONNECT_TIMEOUT_S,
                    num_workers=2,
                )
                with talking_to(group, "connecting"):
                    # A pool retries in the background and then says only that time ran out; ask once for the reason.
                    probe = await AsyncConnection.connect(**self.conninfo(group), autocommit=True)
                    await probe.close()
                    await pool.open()
                self._pools[group] = pool
            return self._pools[group]

    async def take(self, group: str) -> Connection:
        """A connection that the caller gives back with :meth:`give`."""
        pool = await self._pool(group)
        with talking_to(group, "connecting"):
            return await pool.getconn()

    async def give(self, group: str, connection: Connection) -> None:
        """Give a connection back; a broken one is replaced by its pool."""
        pool = self._pools.get(group)
        if pool is None or connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            await connection.close()
        if pool is not None:
            await pool.putconn(connection)

    @asynccontextmanager
    async def connection(self, group: str) -> AsyncIterator[Connection]:
        """A connection in autocommit, for the length of the block."""
        connection = await self.take(group)
        try:
            yield connection
        finally:
            await self.give(group, connection)

    async def close(self) -> None:
        """Close everything."""
        await self.reset()


async def _configure(connection: Connection) -> None:
    with suppress(psycopg.ProgrammingError):  # a herd may have no vectors yet
        await register_vector_async(connection)
        wire.register(connection)


async def _reset(connection: Connection) -> None:
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        await connection.rollback()
