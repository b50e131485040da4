"""One moment on all groups: a named restore point on each, such that the points together are a state the herd was in.

A transaction over several groups inserts a row into ``pgherd.decision`` of the group that decides it, prepares itself
on the others, commits there, tells the others, and removes the row (engines/servers/two_phase.py). While somebody holds
a SHARE lock on that table on every group, nobody can insert or remove such a row, and whoever had inserted one has
committed or rolled back. So at any instant of that time, a transaction over several groups is
- not begun to commit: it is durable nowhere, and in no group's part of the restored herd; or
- decided and not all have been told: it is committed where it was decided, with its row, and prepared or committed
  elsewhere, since it was prepared everywhere before it was decided. After a restore, settling finds the row and commits
  the rest; or
- decided and its row removed: all had been told before; it is committed everywhere; or
- left by a coordinator that died before it decided: prepared, with no row. Settling rolls it back.
Whichever instant each group's point is taken at, the restored groups agree. Taking the points one after the other
without the lock, a transaction decided in between would be in one group and not in the other.

Transactions in one group each would still be cut at instants that are some milliseconds apart. So the shards are held
the same way, if their writers make room for it within a few attempts: then nothing at all is committed between the
first point and the last, and the rows can be counted exactly as they are at the moment, by snapshots taken meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from ..engines.base import Connection, Engine
from ..engines.failures import talking_to
from ..errors import HerdBusy
from ..model.names import Name
from ..model.schema import TableKind
from ..model.topology import Topology
from .counting import begin_snapshot

DECISIONS = Name("pgherd", "decision")
LOCK_WAIT_S = 0.5
"""How long to wait for a lock: writers queue behind it, and it may be part of a deadlock that spans servers."""
ATTEMPTS = 6

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """The restore points, by group: LSN and timeline. ``quiet``: nothing was committed between the first and the
    last."""

    points: dict[str, tuple[str, int]]
    taken_at: str
    quiet: bool
    spread_ms: float


def tables_of(topology: Topology) -> dict[str, list[Name]]:
    """The tables with rows in each group: its shards, and its copies of reference tables."""
    found: dict[str, list[Name]] = {str(g.name): [] for g in topology.groups}
    for table in topology.schema.tables:
        for shard in topology.shards(table):
            for group in found if table.kind is TableKind.REFERENCE else [str(shard.home)]:
                found[group].append(shard.relation)
    return found


@asynccontextmanager
async def moment(engine: Engine, name: str) -> AsyncIterator[tuple[Moment, dict[str, Connection]]]:
    """Take the moment ``name``. Inside the block there is a connection to each group that sees its rows as of then.

    Writers wait for some milliseconds, and as long as the locks are waited for (0.5 s an attempt, at most). Raises
    HerdBusy if commits over several groups can't be held back, GroupUnavailable, ServerRefused.
    """
    tables = tables_of(engine.topology)
    async with AsyncExitStack() as stack:
        holders = {g: await _connected(stack, engine, g) for g in tables}
        readers = {g: await _connected(stack, engine, g) for g in tables}
        quiet = await _hold(holders, tables)
        try:
            await _all(tables, lambda g: begin_snapshot(readers[g]))
            started = perf_counter()
            points = await _all(tables, lambda g: _point(holders[g], g, name))
            spread_ms = (perf_counter() - started) * 1000
        finally:
            await _all(tables, lambda g: holders[g].rollback())
        taken_at = max(p[2] for p in points.values()).astimezone(UTC).isoformat()
        yield Moment({g: p[:2] for g, p in points.items()}, taken_at, quiet, round(spread_ms, 1)), readers


async def name_point(engine: Engine, name: str) -> Moment:
    """Name a restore point on all groups, as of one moment, and do nothing else; also on attached servers.

    Raises as :func:`moment`; ServerRefused where the herd's user may not name one.
    """
    async with engine.held(), moment(engine, name) as (taken, _):
        return taken


async def _connected(stack: AsyncExitStack, engine: Engine, group: str) -> Connection:
    with talking_to(group, "taking a backup"):
        made = await engine.whereabouts.connect(group, autocommit=True)
    return await stack.enter_async_context(made)


async def _hold(holders: Mapping[str, Connection], tables: Mapping[str, Sequence[Name]]) -> bool:
    """Hold back commits: of all writers if they make room for it, else of those over several groups; whether of all."""
    for attempt in range(2 * ATTEMPTS):
        all_of_them = attempt < ATTEMPTS
        try:
            for group in holders:
                await _begin(holders[group], group)
            if all_of_them:
                await _all(holders, lambda g: _lock(holders[g], g, tables[g]))
            # Last, since a writer that holds a shard may be about to commit over several groups.
            await _all(holders, lambda g: _lock(holders[g], g, [DECISIONS]))
        except HerdBusy:
            await _all(holders, lambda g: holders[g].rollback())
            await asyncio.sleep(LOCK_WAIT_S)
            continue
        return all_of_them
    raise HerdBusy("commits over several groups are under way all the time", hint="take the backup at a quieter time")


async def _begin(connection: Connection, group: str) -> None:
    with talking_to(group, "taking a backup"):
        await connection.execute("BEGIN")
        await connection.execute(f"SET LOCAL lock_timeout = '{int(LOCK_WAIT_S * 1000)}ms'")


async def _lock(connection: Connection, group: str, tables: Sequence[Name]) -> None:
    if not tables:
        return
    names = sql.SQL(", ").join(sql.Identifier(*t) for t in tables)
    with talking_to(group, "holding commits back"):
        try:
            await connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(names))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise HerdBusy(f"group {group}: a writer holds a lock") from error


async def _point(connection: Connection, group: str, name: str) -> tuple[str, int, datetime]:
    with talking_to(group, "naming a restore point"):
        done = await connection.execute(
            "SELECT pg_create_restore_point(%s)::text, left(pg_walfile_name(pg_current_wal_lsn()), 8),"
            " clock_timestamp()",
            [name],
        )
        lsn, timeline, at = (await done.fetchall())[0]
        return str(lsn), int(timeline, 16), at


async def _all(groups: Iterable[str], work: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """Do ``work`` for all groups at once; a failure waits for the others."""
    names = list(groups)
    results: list[Any] = await asyncio.gather(*(work(g) for g in names), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return dict(zip(names, results, strict=True))
