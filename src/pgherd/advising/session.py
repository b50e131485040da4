"""A session that only looks: read-only, with a limit on every statement and every wait for a lock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from ..engines import wire
from ..errors import BadInput, GroupUnavailable, HerdError, ServerRefused

Looking = psycopg.Connection[dict[str, Any]]
CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_MS = 500
STATEMENT_TIMEOUT_S = 30.0
_FATAL = re.compile(r"FATAL:\s+(.+)")
"""What a server says when it lets nobody in; libpq passes it on as text."""


@cache
def script(name: str) -> str:
    """The text of ``advising/sql/<name>.sql``."""
    return files("pgherd.advising").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@contextmanager
def looking(dsn: str) -> Iterator[Looking]:
    """A session on the database of a DSN, each statement a read-only transaction of its own.

    Raises BadInput for a malformed DSN, GroupUnavailable when no server answers, ServerRefused when it refuses.
    """
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise BadInput("--dsn is not a libpq connection string", hint="postgresql://user@host:port/dbname") from error
    connection = _connect(dsn)
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise refused(error, "looking at the database") from error


def _connect(dsn: str) -> Looking:
    try:
        connection: Looking = psycopg.connect(
            dsn, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True, prepare_threshold=None, row_factory=dict_row
        )
    except psycopg.Error as error:
        said = _FATAL.search(str(error))
        if said is not None:
            hint = "check database, user and password of the DSN"
            raise BadInput(f"the server refused the login: {said[1]}", hint=hint) from error
        if error.sqlstate is None:
            hint = "check host and port of the DSN, and that the server runs"
            raise GroupUnavailable("no server of the DSN answers", hint=hint) from error
        raise refused(error, "connecting") from error
    try:
        # Set after connecting, since poolers refuse such options in the DSN.
        for name, value in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", f"{STATEMENT_TIMEOUT_S:.0f}s"),
            ("lock_timeout", f"{LOCK_TIMEOUT_MS}ms"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("application_name", "pgherd advise"),
        ):
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
    except psycopg.Error as error:
        connection.close()
        raise refused(error, "making the session read-only") from error
    return connection


def know_vectors(connection: Looking, schema: str) -> None:
    """Find pgvector's types and operators in ``schema`` (already quoted), wherever the search path leads."""
    connection.execute(
        "SELECT set_config('search_path',"
        " concat_ws(', ', nullif(current_setting('search_path'), ''), %s::text), false)",
        [schema],
    )
    with suppress(psycopg.ProgrammingError):
        register_vector(connection)
        wire.register(connection)


def limit_s(connection: Looking, seconds: float) -> None:
    """Let statements run no longer than this from now on."""
    value = f"{max(1, round(1000 * min(seconds, STATEMENT_TIMEOUT_S)))}ms"
    connection.execute("SELECT set_config('statement_timeout', %s, false)", [value])


def one(connection: Looking, name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The one row of a script."""
    row = connection.execute(script(name).encode(), parameters).fetchone()
    assert row is not None
    return row


def statements(connection: Looking, schema: str) -> dict[str, Any]:
    """The row of ``statements.sql``; ``schema``, already quoted, is where the extension is."""
    row = connection.execute(
        sql.SQL(script("statements")).format(schema=sql.SQL(schema)).as_bytes(connection)
    ).fetchone()
    assert row is not None
    return row


def refused(error: psycopg.Error, what: str) -> HerdError:
    """What a server refused. Its DETAIL is left out, since that quotes rows."""
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
        return GroupUnavailable(f"the server went away while {what}", hint="try again")
    state = f" (SQLSTATE {error.sqlstate})"
    return ServerRefused(
        f"the server refused while {what}: {error.diag.message_primary}{state}", hint=error.diag.message_hint or ""
    )
