"""Connections to the primaries of all groups: one pool a group, opened at first use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from ...local import passfile
from ...model.topology import Group
from ..base import Connection
from ..failures import talking_to
from .pool import Pool

CONNECT_TIMEOUT_S = 5


class Pools:
    """Pools by group name. ``base`` holds the libpq parameters that all groups share (user, dbname, passfile …)."""

    def __init__(self, base: dict[str, Any], groups: tuple[Group, ...]) -> None:
        self._base = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "pgherd", **base}
        self._groups = {g.name: g for g in groups}
        self._pools: dict[tuple[str, bool], Pool] = {}
        self._origin: dict[Connection, Pool] = {}

    def conninfo(self, group: str) -> dict[str, Any]:
        """The libpq parameters that reach a group's primary."""
        node = self._groups[group].primary  # type: ignore[index]
        found = {**self._base, "host": node.host, "port": node.port}
        if "passfile" in found:
            # Given outright, or a PGPASSWORD in the environment would be used instead of the file.
            path, user = Path(found["passfile"]), found.get("user", "")
            found["password"] = passfile.lookup(path, node.host, node.port, found.get("dbname", ""), user)
        return found

    async def set_groups(self, groups: tuple[Group, ...]) -> None:
        """Follow a changed topology: pools of groups that moved or are gone are closed."""
        old, self._groups = self._groups, {g.name: g for g in groups}
        for key in [k for k in self._pools if old.get(k[0]) != self._groups.get(k[0])]:  # type: ignore[call-overload]
            await self._pools.pop(key).close()

    async def reset(self) -> None:
        """Close every pool; the next use opens fresh connections (types of a new extension are seen then)."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()

    async def take(self, group: str, *, transaction: bool = True) -> Connection:
        """A connection that the caller gives back with :meth:`give`; GroupUnavailable if there is none to be had.

        Whoever holds connections to several groups takes them in the order of the groups' names. Transactions have
        pools of their own: a search that waits for one, while it waits for the search, would wait for ever.
        """
        pool = self._pools.get((group, transaction))
        if pool is None:
            pool = self._pools[group, transaction] = Pool(group, self.conninfo(group))
        connection = await pool.take()
        self._origin[connection] = pool
        return connection

    async def give(self, group: str, connection: Connection) -> None:
        """Give a connection back to the pool it came from, which closes it if it was itself closed meanwhile."""
        await self._origin.pop(connection).give(connection)

    @asynccontextmanager
    async def connection(self, group: str) -> AsyncIterator[Connection]:
        """A connection in autocommit, for the length of the block."""
        connection = await self.take(group, transaction=False)
        try:
            yield connection
        finally:
            await self.give(group, connection)

    @asynccontextmanager
    async def fresh(self, group: str, **parameters: str) -> AsyncIterator[Connection]:
        """A new connection in autocommit, with libpq ``parameters`` of its own, that ends with the block."""
        with talking_to(group, "connecting"):
            connection: Connection = await AsyncConnection.connect(
                **{**self.conninfo(group), **parameters}, autocommit=True, prepare_threshold=None
            )
        try:
            yield connection
        finally:
            await connection.close()

    async def close(self) -> None:
        """Close everything."""
        await self.reset()
