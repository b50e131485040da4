"""Commits that a server gave up replicating. Guards invariant 1: what no standby holds was not acknowledged.

A commit that waits for its standbys and is cancelled there succeeds, with a warning: the row is on one server only, and
lost with it. Source: PostgreSQL 18, SyncRepWaitForLSN in src/backend/replication/syncrep.c.
"""

from __future__ import annotations

import psycopg

from ...errors import InDoubt
from ..base import Connection

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
