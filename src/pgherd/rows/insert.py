"""INSERT of many rows by one statement: an array a column, whatever the number of rows; no right to make tables needed.

Source: PostgreSQL 18 manual, unnest and INSERT ... ON CONFLICT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from psycopg.adapt import PyFormat, Transformer

from ..engines.base import Connection
from ..model.names import Name
from ..model.schema import Column, Table, VectorType
from .batch import Batch, Values
from .copying import sendable
from .quoting import escaped, identifier
from .types import cast_type

_COMMA = sql.SQL(", ")


def insert_rows(
    connection: Connection, table: Table, relation: Name, batch: Batch, *, upsert: bool
) -> tuple[sql.Composed, list[Any]]:
    """The statement that writes the batch into ``relation``, and its parameters."""
    columns = [c for c in map(table.column, batch.columns) if c is not None]
    arrays: list[sql.Composable] = []
    picked: list[sql.Composable] = []
    values = []
    for i, column in enumerate(columns):
        sent = list(sendable(batch.columns[column.name], column))
        kind, given = sql.SQL(escaped(cast_type(column.type))), sql.Identifier(f"c{i}")
        as_text = column.type.endswith("]") or _is_mixed(sent)
        if as_text:
            # No array holds arrays of different lengths, nor values of different types; as text any value fits.
            sent = texts_of(connection, sent)
        form = sql.Placeholder(format=PyFormat.BINARY if is_dense(column) else PyFormat.AUTO)
        arrays.append(sql.SQL("{}::{}[]").format(form, sql.SQL("text") if as_text else kind))
        picked.append(sql.SQL("{}::{}").format(given, kind) if as_text else given)
        values.append(sent)
    return _insert(table, relation, [c.name for c in columns], arrays, picked, upsert), values


def insert_texts(
    table: Table, relation: Name, rows: Sequence[Sequence[str | None]], *, upsert: bool = False
) -> tuple[sql.Composed, list[Any]]:
    """The statement that writes whole rows read with :func:`as_texts`, and its parameters."""
    columns = stored_columns(table)
    arrays = [sql.SQL("{}::text[]").format(sql.Placeholder())] * len(columns)
    picked = [
        sql.SQL("{}::{}").format(sql.Identifier(f"c{i}"), sql.SQL(escaped(cast_type(c.type))))
        for i, c in enumerate(columns)
    ]
    statement = _insert(table, relation, [c.name for c in columns], arrays, picked, upsert)
    return statement, [list(v) for v in zip(*rows, strict=True)]


def stored_columns(table: Table) -> list[Column]:
    """The columns that a row is made of; the generated ones follow from them."""
    return [c for c in table.columns if c.generated is None]


def as_texts(table: Table) -> sql.Composed:
    """The stored columns as text, the one form that loses nothing of any type on its way to another server."""
    return _COMMA.join(sql.SQL("{}::text").format(identifier(c.name)) for c in stored_columns(table))


def is_dense(column: Column) -> bool:
    """Whether its values are sent encoded; those exist in binary only, and the driver would send a list as text."""
    return column.vector is not None and column.vector[0] in (VectorType.VECTOR, VectorType.HALFVEC)


def _insert(
    table: Table,
    relation: Name,
    names: Sequence[str],
    arrays: Sequence[sql.Composable],
    picked: Sequence[sql.Composable],
    upsert: bool,
) -> sql.Composed:
    statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM unnest({}) AS given ({})").format(
        identifier(relation),
        _COMMA.join(map(identifier, names)),
        _COMMA.join(picked),
        _COMMA.join(arrays),
        _COMMA.join(sql.Identifier(f"c{i}") for i in range(len(names))),
    )
    return statement + _on_conflict(table, names) if upsert else statement


def _on_conflict(table: Table, names: Sequence[str]) -> sql.Composed:
    key = table.primary_key
    changed = [n for n in names if n not in key]
    action: sql.Composable = sql.SQL("NOTHING")
    if changed:
        action = sql.SQL("UPDATE SET {}").format(
            _COMMA.join(sql.SQL("{0} = excluded.{0}").format(identifier(n)) for n in changed)
        )
    return sql.SQL(" ON CONFLICT ({}) DO {}").format(_COMMA.join(map(identifier, key)), action)


def _is_mixed(values: Sequence[Any]) -> bool:
    """Whether the driver can't make one array of the values."""
    kinds = set(map(type, values)) - {type(None)}
    return len(kinds) > 1 or bool(kinds & {list, tuple, dict})


def texts_of(connection: Connection, values: Values) -> list[str | None]:
    """Values as the server reads them from text."""
    adapt = Transformer(connection)

    def text(value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if hasattr(value, "tolist"):  # numpy
            value = value.tolist()
        dumped = adapt.get_dumper(value, PyFormat.TEXT).dump(value)
        return None if dumped is None else bytes(dumped).decode()

    return [text(v) for v in values]
