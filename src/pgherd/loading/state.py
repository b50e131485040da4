"""How far a load has come: a row of ``pgherd.load`` in one group, changed by the transaction that writes the rows.

Guards that every row is loaded once: the row moves on from exactly where this process saw it, or the commit fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psycopg
from psycopg.pq import ConnStatus

from ..engines.base import Connection, Engine, Transaction
from ..engines.failures import talking_to
from ..errors import HerdBusy, HerdError

LOCK_WAIT_S = 3.0
"""A killed load's server processes may need a moment to see that it is gone."""
_READ_ATTEMPTS = 3
_SETTLE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Position:
    """What has been committed."""

    lines_done: int = 0
    rows_done: int = 0
    rejected: int = 0
    reject_bytes: int = 0
    finished: bool = False


class LoadState:
    """One load's row. Made by :func:`hold`."""

    def __init__(self, group: str, load_id: str, position: Position) -> None:
        self._group = group
        self._load_id = load_id
        self.position = position

    async def advance(self, transaction: Transaction, new: Position) -> None:
        """Move on inside ``transaction``, :meth:`moved` being called once it is committed.

        Raises HerdBusy if another process has moved on.
        """
        old = self.position
        connection = await transaction.on(self._group)
        with talking_to(self._group, "recording how far the load is"):
            done = await connection.execute(
                "UPDATE pgherd.load SET lines_done = %s, rows_done = %s, rejected = %s, reject_bytes = %s,"
                " finished = %s, updated_at = now()"
                " WHERE load_id = %s AND (lines_done, rows_done, rejected) = (%s, %s, %s)",
                [
                    *(new.lines_done, new.rows_done, new.rejected, new.reject_bytes, new.finished),
                    *(self._load_id, old.lines_done, old.rows_done, old.rejected),
                ],
            )
        if done.rowcount != 1:
            raise _busy()

    async def move(self, engine: Engine, new: Position) -> None:
        """Move on without writing rows."""
        async with engine.transaction() as transaction:
            await self.advance(transaction, new)
        self.moved(new)

    def moved(self, new: Position) -> None:
        """The transaction is committed."""
        self.position = new


@asynccontextmanager
async def hold(engine: Engine, group: str, load_id: str, table: str, file: str) -> AsyncIterator[LoadState]:
    """The state of a load that nobody else can run meanwhile; HerdBusy if somebody does.

    The lock belongs to a session, so that it goes with a process that dies.
    """
    key = int.from_bytes(bytes.fromhex(load_id[:16]), "big", signed=True)
    async with engine.connection(group) as connection:
        await connection.execute(f"SET lock_timeout = '{int(LOCK_WAIT_S * 1000)}ms'")
        try:
            await connection.execute("SELECT pg_advisory_lock(%s)", [key])
        except psycopg.errors.LockNotAvailable as error:
            raise _busy() from error
        settling = asyncio.create_task(_settle_now_and_then(engine))
        try:
            yield LoadState(group, load_id, await _read(engine, connection, load_id, table, file))
        finally:
            settling.cancel()
            if connection.pgconn.status == ConnStatus.OK:
                await connection.execute("SELECT pg_advisory_unlock(%s)", [key])
                await connection.execute("RESET lock_timeout")


async def _read(engine: Engine, connection: Connection, load_id: str, table: str, file: str) -> Position:
    await connection.execute(
        "INSERT INTO pgherd.load (load_id, table_name, file_name) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [load_id, table, file],
    )
    for _ in range(_READ_ATTEMPTS):
        await engine.recover()
        try:
            # FOR UPDATE waits for a commit of a killed load that is on its way still.
            found = await connection.execute(
                "SELECT lines_done, rows_done, rejected, reject_bytes, finished FROM pgherd.load"
                " WHERE load_id = %s FOR UPDATE",
                [load_id],
            )
        except psycopg.errors.LockNotAvailable:
            continue
        row = await found.fetchone()
        assert row is not None
        return Position(*row)
    raise _busy()


async def _settle_now_and_then(engine: Engine) -> None:
    """A killed load's commit that became half done only after we looked may hold keys that this one waits for."""
    while True:
        await asyncio.sleep(_SETTLE_EVERY_S)
        with suppress(HerdError):
            await engine.recover(_SETTLE_EVERY_S)


def _busy() -> HerdBusy:
    return HerdBusy("this file is being loaded by another process", hint="wait for it to end, then again")
