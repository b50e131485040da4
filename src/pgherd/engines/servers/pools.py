"""Connections to the primaries of all groups: one pool a group, opened at first use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ...model.topology import Group
from ..base import Connection
from ..failures import talking_to
from . import acknowledged
from .pool import Pool
from .whereabouts import Whereabouts


class Pools:
    """Pools by group name. ``base`` holds the libpq parameters that all groups share (user, dbname, passfile …)."""

    def __init__(self, base: dict[str, Any], groups: tuple[Group, ...]) -> None:
        self.whereabouts = Whereabouts(base, groups)
        self._pools: dict[tuple[str, bool, str | None], Pool] = {}
        self._origin: dict[Connection, Pool] = {}
        self._left: dict[asyncio.Future[None], tuple[Connection, ...]] = {}

    async def set_groups(self, groups: tuple[Group, ...]) -> None:
        """Follow a changed topology: pools of groups that moved or are gone are closed."""
        old, new = self.whereabouts.groups, {str(g.name): g for g in groups}
        self.whereabouts.set_groups(groups)
        for key in [k for k in self._pools if old.get(k[0]) != new.get(k[0])]:
            await self._pools.pop(key).close()

    async def reset(self) -> None:
        """Close every pool; the next use opens fresh connections (types of a new extension are seen then)."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()

    async def take(self, group: str, *, transaction: bool = True, node: str | None = None) -> Connection:
        """A connection that the caller gives back with :meth:`give`; GroupUnavailable if there is none to be had.

        It leads to the group's primary, or to ``node``.
        Whoever holds connections to several groups takes them in the order of the groups' names. Transactions have
        pools of their own: a search that waits for one, while it waits for the search, would wait for ever.
        """
        pool = self._pools.get((group, transaction, node))
        if pool is None:
            pool = self._pools[group, transaction, node] = Pool(group, self.whereabouts, node)
        connection = await pool.take()
        self._origin[connection] = pool
        return connection

    async def give(self, group: str, connection: Connection) -> None:
        """Give a connection back to the pool it came from, which closes it if it was itself closed meanwhile."""
        await self._origin.pop(connection).give(connection)

    @asynccontextmanager
    async def connection(self, group: str, node: str | None = None) -> AsyncIterator[Connection]:
        """A connection in autocommit, for the length of the block."""
        connection = await self.take(group, transaction=False, node=node)
        try:
            yield connection
            acknowledged.check(connection, group)
        finally:
            await self.give(group, connection)

    @asynccontextmanager
    async def fresh(self, group: str, **parameters: str) -> AsyncIterator[Connection]:
        """A new connection in autocommit, with libpq ``parameters`` of its own, that ends with the block."""
        with talking_to(group, "connecting"):
            connection = await self.whereabouts.connect(group, autocommit=True, prepare_threshold=None, **parameters)
        try:
            yield connection
        finally:
            await connection.close()

    def leave(self, work: asyncio.Future[None], connections: Iterable[Connection]) -> None:
        """Let ``work`` go on with its ``connections`` though nobody waits for it; it gives them back when it ends."""
        self._left[work] = tuple(connections)
        work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Future[None]) -> None:
        del self._left[work]
        if not work.cancelled():
            work.exception()

    async def close(self) -> None:
        """Close everything. What was left to itself ends on its servers."""
        for work, connections in list(self._left.items()):
            for connection in connections:
                await connection.close()  # cancelled while it is open, the server would be asked to cancel as well
            work.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)
        await self.reset()
