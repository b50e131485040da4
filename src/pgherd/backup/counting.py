"""Rows and their values as one number, the same on a restored server as on the one that was backed up."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from ..engines.base import Connection
from ..model.names import Name
from .manifest import Count

DIGEST_BELOW_BYTES = 64 << 20
"""Tables up to this size are read whole; of larger ones rows are counted."""
_SAME_TEXT = (
    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres';"
    " SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL row_security = off"
)


async def begin_snapshot(connection: Connection) -> None:
    """Begin a transaction that sees the rows as they are now."""
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute("SELECT pg_current_snapshot()")


async def count(connection: Connection, tables: Iterable[Name]) -> tuple[Count, ...]:
    """Rows and digests of tables, inside a transaction."""
    await connection.execute(_SAME_TEXT)
    return tuple([await _count(connection, t) for t in tables])


async def _count(connection: Connection, table: Name) -> Count:
    size = await (await connection.execute("SELECT pg_table_size(%s::regclass)", [table.sql])).fetchone()
    assert size is not None
    whole = size[0] <= DIGEST_BELOW_BYTES
    digest = sql.SQL("sum(hashtextextended(t::text, 0)::numeric)" if whole else "NULL")
    query = sql.SQL("SELECT count(*), {}::text FROM ONLY {} t").format(digest, sql.Identifier(*table))
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return Count(table.sql, int(row[0]), None if not whole else str(row[1] or 0))
