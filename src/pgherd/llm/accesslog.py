"""The access log: who asked what, written where the answer came from, before the answer is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ..client import AsyncHerd
from ..engines.base import Connection
from ..engines.failures import talking_to

MAX_REASON = 200


@dataclass(slots=True)
class Entry:
    """One call; ``refused`` says why there was no answer, ``question`` is None unless texts are to be kept."""

    client: str
    tool: str
    question: str | None = None
    tables: list[str] = field(default_factory=list)
    rows: int | None = None
    refused: str | None = None
    _started: float = field(default_factory=perf_counter)

    async def write(self, conninfo: dict[str, Any], group: str) -> None:
        """Add it to the log of ``group``, logged in as the scribe. Raises GroupUnavailable, ServerRefused."""
        ms = (perf_counter() - self._started) * 1000
        reason = self.refused and self.refused[:MAX_REASON]
        values = (self.client, self.tool, self.tables, self.rows, ms, reason, self.question)
        with talking_to(group, "writing the access log"):
            async with await AsyncConnection.connect(**conninfo, autocommit=True) as connection:
                await connection.execute("SELECT pgherd.log_access(%s, %s, %s, %s, %s, %s, %s)", values)


async def read_log(herd: AsyncHerd, region: str, since_s: float, limit: int) -> list[dict[str, Any]]:
    """The newest entries of a region, newest first, none older than ``since_s`` seconds; asked of that region only.

    Raises UnknownName, GroupUnavailable, ServerRefused.
    """
    found: list[dict[str, Any]] = []
    for group in herd.topology.groups_of(region):
        async with herd.engine.connection(group.name) as connection:
            found += await read_entries(connection, since_s, limit)
    return newest(found, limit)


async def read_entries(
    connection: Connection, since_s: float, limit: int, tables: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The newest entries of the group that ``connection`` leads to, newest first; of ``tables`` only, if given."""
    await connection.execute("SELECT pgherd.forget_logs()")
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(
        "SELECT at, role, region, client, tool, tables, rows, round(ms::numeric, 1)::float8 AS ms, refused, question"
        " FROM pgherd.access_log WHERE at > clock_timestamp() - make_interval(secs => %s)"
        " AND (%s::text[] IS NULL OR tables && %s) ORDER BY at DESC LIMIT %s",
        [since_s, tables, tables, limit],
    )
    return await cursor.fetchall()


def newest(entries: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The newest of them, newest first."""
    return sorted(entries, key=lambda e: e["at"], reverse=True)[:limit]
