"""The steps of a move that take more than a statement: copying a shard's rows, and catching up with its writers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic

import psycopg
from psycopg import sql

from ...errors import HerdBusy, HerdError, ServerRefused
from ...model.names import Name
from ...planning.compile import server_name
from ...planning.plan import Step
from ..base import Connection
from ..conduct import Conduct, Moved, Progress
from ..failures import talking_to
from .pools import Pools
from .stream import Bucket, pipe

CATCH_UP_S = 600.0
"""How long a new home may need to catch up before the move is given up: somebody writes faster than it can."""
LOOK_S = 0.05
CHECK_S = 1.0
WATCH_S = 0.5


async def copy_rows(pools: Pools, step: Step, bucket: Bucket, conduct: Conduct, moved: Moved) -> None:
    """Copy a shard as its replication slot's first snapshot shows it, into the table that waits at its new home.

    Source: PostgreSQL 18 manual, 54.4 "Streaming Replication Protocol", CREATE_REPLICATION_SLOT … SNAPSHOT 'export'.
    """
    giver, taker = step.groups
    name = step.moving
    assert name is not None
    async with pools.connection(giver) as giving, pools.connection(taker) as taking:
        with talking_to(giver, f"beginning to copy {step.target}"):
            columns, is_binary, expected, bytes_at_home = await _facts(giving, name)
            await giving.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            async with _new_slot(pools, giver, name) as snapshot:
                await giving.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
        with talking_to(taker, f"beginning to copy {step.target}"):
            await taking.execute("BEGIN")
            # Rows that come this way fire no triggers, and foreign keys hold already where they come from.
            await taking.execute("SET LOCAL session_replication_role = replica")
        before = (moved.bytes, moved.rows)

        def heard(size: int, rows: int) -> None:
            moved.bytes, moved.rows = before[0] + size, before[1] + rows
            share = rows / expected if expected > 0 else size / bytes_at_home if bytes_at_home else None
            conduct.hear(Progress(step, "copying", None if share is None else min(share, 1.0), rows, size))

        heard(0, 0)
        way = sql.SQL("COPY {} ({}) {} (FORMAT {})")
        relation, shown = sql.Identifier(*name), sql.SQL(columns)
        how = sql.SQL("binary" if is_binary else "text")
        out = way.format(relation, shown, sql.SQL("TO STDOUT"), how)
        into = way.format(relation, shown, sql.SQL("FROM STDIN"), how)
        try:
            size, rows = await pipe(pools, (giver, giving, out), (taker, taking, into), bucket, heard)
        except ServerRefused as error:
            raise _full(error, taker, step) or error from error.__cause__
        heard(size, rows)
        with talking_to(taker, f"keeping the rows of {step.target}"):
            await taking.execute("SELECT pg_stat_force_next_flush()")  # calibrations count changes from here
            await taking.execute("COMMIT")
        with talking_to(giver, f"copying {step.target}"):
            await giving.execute("COMMIT")


def _full(error: HerdError, group: str, step: Step) -> HerdError | None:
    """The same error, if it is one about a full disk, with what to do."""
    if not isinstance(error.__cause__, psycopg.errors.DiskFull):
        return None
    return ServerRefused(
        f"group {group} has no room left for {step.target}: {error.__cause__.diag.message_primary}",
        hint=f"free space on group {group}, or add a server; the move was undone, and its source is as it was",
    )


async def _facts(connection: Connection, name: Name) -> tuple[str, bool, int, int]:
    done = await connection.execute(
        "SELECT columns, is_binary, row_count, bytes FROM pgherd.copy_facts(%s::regclass)", [name.sql]
    )
    ((columns, is_binary, rows, size),) = await done.fetchall()
    return str(columns), bool(is_binary), int(rows), int(size)


@asynccontextmanager
async def _new_slot(pools: Pools, group: str, name: Name) -> AsyncIterator[str]:
    """Make the slot that keeps a shard's changes; the snapshot it starts from, which is good inside this block.

    It waits for transactions that began before, and keeps nobody out meanwhile.
    """
    async with pools.fresh(
        group, replication="database", options="-c client_connection_check_interval=1s"
    ) as connection:
        async with pools.connection(group) as plain:
            done = await plain.execute("SELECT pgherd.move_name(%s)", [name.sql])
            ((slot,),) = await done.fetchall()
        create = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')").format(sql.Identifier(slot))
        done = await connection.execute(create)
        row = await done.fetchone()
        assert row is not None
        yield str(row[2])


async def catch_up(pools: Pools, step: Step, conduct: Conduct, limit_s: float = CATCH_UP_S) -> None:
    """Wait until a shard's new home has all that was committed when this was called, or nearly.

    Raises HerdBusy when it takes too long, ServerRefused when the new home can't take a change, GroupUnavailable.
    """
    giver, taker = step.groups
    name = step.moving
    assert name is not None
    began = checked = monotonic()
    first: int | None = None
    async with pools.connection(giver) as giving, pools.connection(taker) as taking:
        with talking_to(giver, f"catching up with {step.target}"):
            ((goal,),) = await (await giving.execute("SELECT pg_current_wal_insert_lsn()::text")).fetchall()
        while True:
            with talking_to(giver, f"catching up with {step.target}"):
                done = await giving.execute("SELECT pgherd.behind(%s, %s::pg_lsn)", [name.sql, goal])
                ((behind,),) = await done.fetchall()
            if not behind:
                return
            first = max(first or 0, behind)
            conduct.hear(Progress(step, "catching up", 1 - behind / first))
            if monotonic() > checked + CHECK_S:
                checked = monotonic()
                with talking_to(taker, f"catching up with {step.target}"):
                    await taking.execute(
                        "SELECT pgherd.check_incoming(%s, %s)", [name.sql, server_name(step.groups[0])]
                    )
            if monotonic() > began + limit_s:
                raise HerdBusy(
                    f"group {taker} did not catch up with {step.target} in {limit_s:.0f} s: {behind} bytes behind",
                    hint="try again when less is being written to that shard",
                )
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def watched(pools: Pools, step: Step, group: str, pid: int, conduct: Conduct) -> AsyncIterator[None]:
    """While a server builds an index, or checks a key, in session ``pid``: say how far it is."""
    if conduct.on_progress is None or step.kind not in ("build_part", "add_key"):
        yield
        return
    task = asyncio.create_task(_watch(pools, step, group, pid, conduct))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, HerdError, psycopg.Error):
            await task


_BUILDING = """
SELECT phase, CASE WHEN blocks_total > 0 AND blocks_done < blocks_total THEN blocks_done::float8 / blocks_total
    WHEN tuples_total > 0 THEN tuples_done::float8 / tuples_total END
FROM pg_stat_progress_create_index WHERE pid = %s
"""


async def _watch(pools: Pools, step: Step, group: str, pid: int, conduct: Conduct) -> None:
    while True:
        conduct.hear(Progress(step, "indexing"))
        await asyncio.sleep(WATCH_S)
        async with pools.connection(group) as connection:
            row = await (await connection.execute(_BUILDING, [pid])).fetchone()
        if row:
            conduct.hear(Progress(step, f"indexing: {row[0]}", row[1]))
