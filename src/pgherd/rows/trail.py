"""The audit trail: a line in the access log of each group that reads or writes for a client of pgherd.

A line is written by the server (engines/sql/trail.sql), which knows who asks and from where, in the transaction of what
it is about: what can't be written down doesn't happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import DictRow

from ..engines.base import Connection
from ..model.names import Name, quote_literal
from .quoting import escaped
from .statements import tables_in

LINE = "SELECT pgherd.trail(%s, %s, %s, NULL)"
"""Parameters: the operation, tables, number of rows."""


class Line(NamedTuple):
    """What a search leaves; ``question`` only if the herd keeps texts and it was asked in words."""

    tool: str
    question: str | None = None


def noted(select: str, tool: str, table: Name, *, question: bool = False) -> str:
    """A SELECT that leaves a line as well, in the same round trip; ``question`` makes ``pgherd_question`` a parameter.

    The condition does not depend on rows, so PostgreSQL looks at it once, before the first row, if there is any or not.
    What is found is counted by then. Source: PostgreSQL's planner, createplan.c, gating Result nodes.
    """
    said = "%(pgherd_question)s::text" if question else "NULL"
    values = f"{quote_literal(tool)}, ARRAY[{escaped(quote_literal(str(table)))}]"
    return (
        f"WITH pgherd_found AS MATERIALIZED ({select}) SELECT * FROM pgherd_found"
        f" WHERE (SELECT pgherd.trail({values}, (SELECT count(*) FROM pgherd_found), {said}))"
    )


async def note(connection: Connection, tool: str, table: Name, rows: int) -> None:
    """Leave a line of ``rows`` written in the transaction that is under way on ``connection``."""
    await connection.execute(LINE, [tool, [str(table)], rows])


async def run_noted(
    connection: Connection, cursor: psycopg.AsyncCursor[DictRow], query: str, params: Any
) -> Sequence[DictRow]:
    """The rows of any statement, which leaves a line with the tables that it names, never with its text."""
    tables = tables_in(query)
    try:
        async with connection.transaction():
            await cursor.execute(query, params)
            rows = await cursor.fetchall() if cursor.description else []
            await connection.execute(LINE, ["sql", tables, max(0, cursor.rowcount)])
            return rows
    except psycopg.errors.ActiveSqlTransaction:  # VACUUM and the like: how many rows can't be told before
        await connection.execute(LINE, ["sql", tables, None])
        await cursor.execute(query, params)
        return await cursor.fetchall() if cursor.description else []
