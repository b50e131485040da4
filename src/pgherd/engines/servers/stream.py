"""Rows from one server to another, through this process, as fast as they come or no faster than wanted.

Both ends speak COPY; what one sends is what the other takes, so nothing is decoded. The sending side is read straight
from libpq, many rows at a time: a call of the driver for each row costs more than the row.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable
from time import monotonic

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from ..base import Connection
from ..failures import talking_to
from .pools import Pools

CHUNK_BYTES = 1 << 18
TRAILER = b"\xff\xff"
"""The last message of COPY's binary format (PostgreSQL 18 manual, COPY, "Binary Format")."""
SETTLED = (ExecStatus.COMMAND_OK, ExecStatus.COPY_OUT)


class Bucket:
    """A token bucket: lets through ``rate`` bytes a second, over all who take from it (None: as many as come).

    It holds a quarter of a second's worth, so that what was not used while nobody had rows is not made up for later.
    """

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._ready_at = 0.0

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may pass. Those who come later queue up behind."""
        if not self._rate:
            return
        now = monotonic()
        self._ready_at = max(self._ready_at, now - 0.25) + count / self._rate
        if self._ready_at > now:
            await asyncio.sleep(self._ready_at - now)


async def pipe(
    pools: Pools,
    source: tuple[str, Connection, sql.Composed],
    target: tuple[str, Connection, sql.Composed],
    bucket: Bucket,
    heard: Callable[[int, int], None],
) -> tuple[int, int]:
    """Run the COPY TO STDOUT of ``source`` into the COPY FROM STDIN of ``target``; bytes and rows that passed.

    Each end is a group, a connection inside a transaction, and a statement. ``heard`` is called with bytes and rows so
    far. Raises GroupUnavailable or ServerRefused for the end at fault.
    """
    (giver, giving, out), (taker, taking, into) = source, target
    size = rows = 0
    what = "copying rows"
    # The innermost block is the taker's: whatever the giver raises passes through it as pgherd's error already.
    with talking_to(taker, what):
        async with taking.cursor() as cursor:
            async with cursor.copy(into) as copy:
                async for chunk, more in _chunks(giver, giving, out):
                    await bucket.take(len(chunk))
                    await copy.write(chunk)
                    if await _has_failed(pools, taker, taking):
                        break  # leaving the block ends the COPY, which raises what the server said
                    size, rows = size + len(chunk), rows + more
                    heard(size, rows)
            return size, max(cursor.rowcount, 0)


async def _chunks(giver: str, connection: Connection, out: sql.Composed) -> AsyncIterator[tuple[bytes, int]]:
    """What a COPY TO STDOUT gives, in large pieces, with the number of rows in each: a message is a row."""
    pgconn = connection.pgconn
    with talking_to(giver, "reading rows"):
        pgconn.send_query(out.as_bytes(connection))
        while pgconn.flush():
            await _ready(pgconn)
        await _result(pgconn)
    parts: list[memoryview] = []
    size = 0
    while True:
        with talking_to(giver, "reading rows"):
            count, data = pgconn.get_copy_data(1)
            if count == 0:
                pgconn.consume_input()  # mostly there is more already
                count, data = pgconn.get_copy_data(1)
            if count == 0:
                await _ready(pgconn)
                continue
            if count > 0:
                parts.append(data)
                size += count
        if parts and (count < 0 or size >= CHUNK_BYTES):
            rows = len(parts) - (parts[-1] == TRAILER)
            yield b"".join(parts), rows
            parts, size = [], 0
        if count < 0:
            break
    with talking_to(giver, "reading rows"):
        if count == -2:
            raise psycopg.OperationalError(pgconn.get_error_message())
        await _result(pgconn)
        while await _result(pgconn) is not None:
            pass


async def _result(pgconn: PGconn) -> object | None:
    """The next result of what was sent; its error is raised."""
    while pgconn.is_busy():
        await _ready(pgconn)
        pgconn.consume_input()
    result = pgconn.get_result()
    if result is not None and result.status not in SETTLED:
        raise psycopg.errors.error_from_result(result)
    return result


async def _ready(pgconn: PGconn) -> None:
    """Wait until the server has said something."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pgconn.socket, _set, heard)
    try:
        await heard
    finally:
        loop.remove_reader(pgconn.socket)


def _set(heard: asyncio.Future[None]) -> None:
    if not heard.done():
        heard.set_result(None)


async def _has_failed(pools: Pools, group: str, connection: Connection) -> bool:
    """Whether the server has given up the COPY that we are still feeding.

    libpq doesn't look at what comes in before the COPY ends. A server that is content says nothing meanwhile, but for
    notices; so if it says something, another connection asks whether it is still at it.
    """
    pgconn = connection.pgconn
    waiting = select.poll()
    waiting.register(pgconn.socket, select.POLLIN)
    if not waiting.poll(0):
        return False
    pgconn.consume_input()
    async with pools.connection(group) as other:
        query = "SELECT FROM pg_stat_progress_copy WHERE pid = %s"
        done = await other.execute(query, [pgconn.backend_pid])
        return await done.fetchone() is None
