"""Commits that a server gave up replicating. Guards invariant 1: what no standby holds was not acknowledged.

A commit that waits for its standbys and is cancelled there succeeds, with a warning: the row is on one server only, and
lost with it. Source: PostgreSQL 18, SyncRepWaitForLSN in src/backend/replication/syncrep.c.
"""

from __future__ import annotations

import psycopg

from ...errors import InDoubt
from ..base import Connection

LOOK_EVERY_S = 15.0
"""How often a commit that has not ended is looked at."""
_STUCK = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep')
       AND NOT EXISTS (SELECT FROM pg_stat_replication
                       WHERE coalesce(sync_state, 'sync') IN ('sync', 'quorum')
                             AND coalesce(state, 'streaming') = 'streaming')
"""
"""Who may not see others' states sees NULL, and takes none for stuck."""
_FUNCTION = "SyncRepWaitForLSN"
"""Which function of the server says so; the words are in the server's language."""


def watch(connection: Connection) -> None:
    """Take note of the warning on ``connection`` from now on."""

    def noticed(said: psycopg.errors.Diagnostic) -> None:
        if said.source_function == _FUNCTION:
            connection.pgherd_gave_up = True  # type: ignore[attr-defined]

    connection.add_notice_handler(noticed)


def check(connection: Connection, group: str) -> None:
    """Raise InDoubt if the server has given up replicating a commit since the last call."""
    if getattr(connection, "pgherd_gave_up", False):
        connection.pgherd_gave_up = False  # type: ignore[attr-defined]
        raise InDoubt(
            f"group {group} committed, but gave up waiting for its standbys: the write is lost if that server is",
            hint="read the rows before writing them again",
        )


async def is_stuck(connection: Connection, pid: int) -> bool:
    """Whether the commit of the server process ``pid`` waits for standbys, none of which can be reached.

    Such a wait may last for ever, and no timeout of the server's ends it. ``connection`` is another one, to its server.
    """
    row = await (await connection.execute(_STUCK, [pid])).fetchone()
    return bool(row and row[0])
