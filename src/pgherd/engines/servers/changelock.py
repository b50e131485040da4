"""One change of a herd at a time: a lock on its first group that goes with a process that dies."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg

from ...errors import HerdBusy
from ..base import Connection
from ..failures import talking_to
from .pools import Pools

CHANGE_LOCK = 0x70676865726400
"""Key of the advisory lock that whoever changes a herd holds on its first group."""
WAIT_S = 10.0
LONG = "pgherd moves"
"""How the sessions of those begin whom it is no use to wait for."""

_HOLDER = """
SELECT application_name, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = %s
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@asynccontextmanager
async def change_lock(pools: Pools, group: str, *, long: bool = False) -> AsyncIterator[Connection]:
    """Hold the herd's change lock in a session of its own, whose name and start tell others who we are.

    Waits for other changes, but not for one that moves shards: HerdBusy says who it is and since when.
    ``long``: this one does.
    """
    who = f"{LONG if long else 'pgherd changes'} pid {os.getpid()} on {socket.gethostname()}"
    async with pools.fresh(group, application_name=who.encode()[:63].decode(errors="ignore")) as connection:
        with talking_to(group, "taking the change lock"):
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", [CHANGE_LOCK])).fetchone()
            if not row or not row[0]:
                await _wait(connection)
        try:
            yield connection
        finally:
            with suppress(psycopg.Error):  # or it goes a moment after the session, for the next one to stumble over
                await connection.execute("SELECT pg_advisory_unlock(%s)", [CHANGE_LOCK])


async def _wait(connection: Connection) -> None:
    holder = await _holder(connection)
    if not holder.startswith(LONG):
        await connection.execute(f"SET lock_timeout = '{int(WAIT_S * 1000)}ms'")
        try:
            await connection.execute("SELECT pg_advisory_lock(%s)", [CHANGE_LOCK])
        except psycopg.errors.LockNotAvailable:
            holder = await _holder(connection)
        else:
            await connection.execute("RESET lock_timeout")
            return
    by = f": {holder}" if holder else ""
    raise HerdBusy(f"another change of this herd is running{by}", hint="wait for it to end, then again")


async def _holder(connection: Connection) -> str:
    row = await (await connection.execute(_HOLDER, [CHANGE_LOCK])).fetchone()
    return f"{row[0]}, since {row[1]}" if row else ""
