"""WAL archiving of a server: switching it on and off, waiting until a segment is there, how it goes.

The servers of pgherd run with ``archive_mode`` on and a command that does nothing, so that this needs no restart.
Source: PostgreSQL 18 manual, 25.3 "Continuous Archiving and Point-in-Time Recovery".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from psycopg import sql

from ..engines.base import Connection
from ..errors import BackupFailed
from .keeper import Keeper

FLUSH_EVERY_S = 60
"""``archive_timeout``: so much of what was written last is in no archive yet, at most, if all servers are lost at
once."""
NOTHING = ("", "true", "/bin/true", "(disabled)")
_POLL_S = 0.05
_POLL_MOST_S = 1.0


async def switch_on(connection: Connection, group: str, command: str) -> None:
    """Archive the server's WAL by ``command`` from now on. Raises BackupFailed if the server was started without."""
    (mode,) = (await (await connection.execute("SHOW archive_mode")).fetchall())[0]
    if mode == "off":
        raise BackupFailed(
            f"group {group} was started with archive_mode = off", hint="pgherd down, then pgherd up, then again"
        )
    await _set(connection, "archive_timeout", f"{FLUSH_EVERY_S}s")
    await _set(connection, "archive_command", command)
    await connection.execute("SELECT pg_reload_conf()")


async def switch_off(connection: Connection) -> None:
    """Stop archiving; the server throws its WAL away again when it needs it no more."""
    for name in ("archive_command", "archive_timeout"):
        await connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
    await connection.execute("SELECT pg_reload_conf()")


async def command_of(connection: Connection) -> str | None:
    """The command that archives the server's WAL; None if it is thrown away."""
    (command,) = (await (await connection.execute("SHOW archive_command")).fetchall())[0]
    return None if command in NOTHING else str(command)


async def put_back(connection: Connection, command: str | None) -> None:
    """Archive as before, see :func:`command_of`."""
    if command is None:
        await switch_off(connection)
    elif command != await command_of(connection):
        await _set(connection, "archive_command", command)
        await connection.execute("SELECT pg_reload_conf()")


async def _set(connection: Connection, name: str, value: str) -> None:
    statement = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
    await connection.execute(statement)


async def flush(connection: Connection, group: str, keeper: Keeper, timeout_s: float = 60) -> None:
    """Archive all that was written until now, and wait for it. Raises BackupFailed if it doesn't come."""
    # A commit of ours first: a switch right after a switch does nothing, and a recovery to a time needs a later commit.
    await connection.execute("SELECT pg_logical_emit_message(true, 'pgherd', 'archive'), pg_current_xact_id()")
    done = await connection.execute("SELECT pg_walfile_name(pg_switch_wal() - 1)")
    await await_segments(connection, group, keeper, [str((await done.fetchall())[0][0])], timeout_s)


async def await_segments(
    connection: Connection, group: str, keeper: Keeper, names: Sequence[str], timeout_s: float = 60
) -> None:
    """Wait until the segments are in the archive. Raises BackupFailed if they don't come."""
    deadline, pause = time.monotonic() + timeout_s, _POLL_S
    while missing := await keeper.lacking(names):
        if time.monotonic() > deadline:
            done = await connection.execute("SELECT failed_count, last_failed_wal FROM pg_stat_archiver")
            failed, last = (await done.fetchall())[0]
            said = f"; it failed {failed} times, last with {last}" if failed else ""
            raise BackupFailed(
                f"group {group} does not archive segment {missing[0]} into {keeper.wal} ({keeper.tool}){said}",
                hint="may the servers' user write there, and is there room? The server's log says more",
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, _POLL_MOST_S)
