"""WAL archiving of a server into a directory: the command, switching it on and off, waiting until a segment is there.

The servers of pgherd run with ``archive_mode`` on and a command that does nothing, so that this needs no restart.
Source: PostgreSQL 18 manual, 25.3 "Continuous Archiving and Point-in-Time Recovery".
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from psycopg import sql

from ..engines.base import Connection
from ..errors import BackupFailed

FLUSH_EVERY_S = 60
"""``archive_timeout``: so much of what was written last is in no archive yet, at most, if all servers are lost at
once."""
_POLL_S = 0.05

_SCRIPT = (
    'd={wal}; f=%f; t="$d/.$f.$$"; '
    'if [ -e "$d/$f" ]; then cmp -s "%p" "$d/$f" && sync "$d/$f" "$d"; '
    'else cp "%p" "$t" && sync "$t" && ln "$t" "$d/$f" && sync "$d"; s=$?; rm -f "$t"; exit $s; fi'
)
"""A segment appears under its name only when all of it is on the disk, and is never replaced: ``ln`` refuses a name
that is taken, and one that is there already must be equal. Whatever fails, the server keeps the segment and tries
again."""


def command_for(wal: Path) -> str:
    """The ``archive_command`` that archives into ``wal``."""
    return _SCRIPT.format(wal=shlex.quote(str(wal)).replace("%", "%%"))


async def switch_on(connection: Connection, group: str, wal: Path) -> None:
    """Archive the server's WAL into ``wal`` from now on. Raises BackupFailed if the server was started without."""
    (mode,) = (await (await connection.execute("SHOW archive_mode")).fetchall())[0]
    if mode == "off":
        raise BackupFailed(
            f"group {group} was started with archive_mode = off", hint="pgherd down, then pgherd up, then again"
        )
    await _set(connection, "archive_timeout", f"{FLUSH_EVERY_S}s")
    await _set(connection, "archive_command", command_for(wal))
    await connection.execute("SELECT pg_reload_conf()")


async def switch_off(connection: Connection) -> None:
    """Stop archiving; the server throws its WAL away again when it needs it no more."""
    for name in ("archive_command", "archive_timeout"):
        await connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
    await connection.execute("SELECT pg_reload_conf()")


async def _set(connection: Connection, name: str, value: str) -> None:
    statement = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
    await connection.execute(statement)


async def flush(connection: Connection, group: str, wal: Path, timeout_s: float = 60) -> None:
    """Archive all that was written until now, and wait for it. Raises BackupFailed if it doesn't come."""
    # A commit of ours first: a switch right after a switch does nothing, and a recovery to a time needs a later commit.
    await connection.execute("SELECT pg_logical_emit_message(true, 'pgherd', 'archive'), pg_current_xact_id()")
    done = await connection.execute("SELECT pg_walfile_name(pg_switch_wal() - 1)")
    await await_segments(connection, group, wal, [str((await done.fetchall())[0][0])], timeout_s)


async def await_segments(
    connection: Connection, group: str, wal: Path, names: Sequence[str], timeout_s: float = 60
) -> None:
    """Wait until the segments are in the archive. Raises BackupFailed if they don't come."""
    deadline = time.monotonic() + timeout_s
    while missing := [n for n in names if not (wal / n).exists()]:
        if time.monotonic() > deadline:
            done = await connection.execute("SELECT failed_count, last_failed_wal FROM pg_stat_archiver")
            failed, last = (await done.fetchall())[0]
            said = f"; it failed {failed} times, last with {last}" if failed else ""
            raise BackupFailed(
                f"group {group} does not archive segment {missing[0]} into {wal}{said}",
                hint="is the directory writable for the servers' user, and is there room? The server's log says more",
            )
        await asyncio.sleep(_POLL_S)
