"""Running a checked query: read-only, alone on its connection, in limited time, for a limited answer.

Each table name becomes a WITH query over the shards that the reader may read, and the answer comes as JSON text, so
that the server cuts a row that is too large before it is sent. Rows are taken one by one, as many as the limits allow.
The extended protocol takes one statement only. The transaction can't be made read-write once it has a snapshot.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pglast import parse_sql
from pglast.parser import ParseError
from pglast.stream import RawStream
from psycopg import AsyncConnection
from psycopg.errors import OutOfMemory, QueryCanceled

from ..engines.base import Connection
from ..engines.failures import talking_to
from ..errors import QueryRefused
from ..model.names import Name, quote_ident
from ..model.schema import Table
from .fence import Checked
from .memory import limit_memory

ROW = "pgherd_row"
_SETTINGS = """
    SELECT set_config('statement_timeout', %(ms)s, true), set_config('lock_timeout', '2s', true),
        set_config('search_path', 'pg_catalog, public, pg_temp', true), set_config('work_mem', '16MB', true),
        set_config('max_parallel_workers_per_gather', '0', true), pg_export_snapshot(), pg_backend_pid()
"""
"""A transaction that has exported its snapshot can't be prepared, and so can't outlive its connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer may cost: seconds, rows, bytes in all, bytes of a single row, and the server's private memory.

    ``memory_bytes`` counts where the server is on this machine (memory.py).
    """

    seconds: float = 10.0
    rows: int = 500
    bytes: int = 256 * 1024
    row_bytes: int = 64 * 1024
    memory_bytes: int = 1 << 30


@dataclass(slots=True)
class Answer:
    """Rows, and whether there would have been more: ``truncated`` says which limit ended it, None if none did."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    truncated: str | None = None


def wrapped(query: Checked, relations: Mapping[str, tuple[Table, Sequence[Name]]], limits: Limits) -> str:
    """The statement to run; ``relations`` maps each table the query names to itself and its readable shards."""
    tables = ",\n".join(_shards(name, *relations[name]) for name in query.tables)
    inner = f"SELECT row_to_json(pgherd_query)::text AS {ROW} FROM (\n{query.text}\n) AS pgherd_query"
    outer = (
        f"SELECT left({ROW}, {limits.row_bytes}), octet_length({ROW}) FROM ({inner}) AS pgherd_rows"
        f" LIMIT {limits.rows + 1}"
    )
    _check_shape(outer, query.text)
    return f"WITH {tables}\n{outer}" if tables else outer


def _shards(name: str, table: Table, shards: Sequence[Name]) -> str:
    columns = ", ".join(quote_ident(c.name) for c in table.columns)
    parts = [f"SELECT {columns} FROM {shard.sql}" for shard in shards]
    return f"{quote_ident(name)} AS NOT MATERIALIZED ({' UNION ALL '.join(parts)})"


def _check_shape(outer: str, text: str) -> None:
    """The text must mean inside the parentheses what it meant alone."""
    try:
        statements: Any = parse_sql(outer)
        inner = statements[0].stmt.fromClause[0].subquery.fromClause[0].subquery
        alone: Any = parse_sql(text)
        same = len(statements) == 1 and RawStream()(inner) == RawStream()(alone[0].stmt)
    except (ParseError, AttributeError, RecursionError):
        same = False
    if not same:
        raise QueryRefused("refused: this can't be run as part of a statement", hint="end it without ; and comments")


async def run(conninfo: dict[str, Any], group: str, statement: str, limits: Limits) -> Answer:
    """Run a wrapped statement. Raises QueryRefused for a row that is too large or a query that takes too long."""
    answer, size = Answer(), 0
    async with reading(conninfo, group, limits) as connection, aclosing(streamed(connection, statement)) as rows:
        async for text, length in rows:
            if len(answer.rows) == limits.rows:
                answer.truncated = f"there are more than {limits.rows} rows"
                break
            if length > limits.row_bytes:
                raise QueryRefused(
                    f"row {len(answer.rows) + 1} holds {length} bytes, more than {limits.row_bytes}",
                    hint="select fewer columns, or left(column, 1000)",
                )
            size += length
            if size > limits.bytes:
                answer.truncated = f"the rows hold more than {limits.bytes} bytes"
                break
            try:
                answer.rows.append(json.loads(text, object_pairs_hook=_pairs))
            except RecursionError:
                hint = "select parts of it (column -> 'key')"
                raise QueryRefused(f"row {len(answer.rows) + 1} is nested too deeply", hint=hint) from None
    return answer


async def streamed(connection: Connection, statement: str) -> AsyncGenerator[tuple[Any, ...]]:
    """The rows of one statement, one by one: streaming uses the extended protocol, which takes no second statement."""
    async for row in connection.cursor().stream(statement.encode()):
        yield row


@asynccontextmanager
async def reading(conninfo: dict[str, Any], group: str, limits: Limits) -> AsyncIterator[Connection]:
    """A connection of its own in a read-only transaction, which is undone; everything in the block has limited time."""
    try:
        with talking_to(group):
            connection = await AsyncConnection.connect(**conninfo, autocommit=True)
            try:
                async with asyncio.timeout(limits.seconds + 2):
                    await connection.execute("BEGIN READ ONLY")
                    set_up = await connection.execute(_SETTINGS, {"ms": str(int(limits.seconds * 1000))})
                    if row := await set_up.fetchone():
                        await limit_memory(connection, row[-1], limits.memory_bytes)
                    yield connection
            finally:
                await connection.close()
    except TimeoutError as error:
        raise _too_long(limits) from error
    except Exception as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise _too_long(limits) from error
        if isinstance(error.__cause__, OutOfMemory):
            hint = "ask for less: shorter values, or fewer at once"
            raise QueryRefused("the query took more memory than it may", hint=hint) from error
        raise


def _too_long(limits: Limits) -> QueryRefused:
    return QueryRefused(f"the query took longer than {limits.seconds:g} s", hint="ask for less, or use a condition")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A row as a dict; a second column of the same name gets a number."""
    row: dict[str, Any] = {}
    for name, value in pairs:
        unique, n = name, 1
        while unique in row:
            n += 1
            unique = f"{name}_{n}"
        row[unique] = value
    return row
