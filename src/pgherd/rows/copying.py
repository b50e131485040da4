"""COPY of a batch into one relation: binary where every value is of its column's own type, text otherwise."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from psycopg import sql

from ..engines.base import Connection
from ..engines.wire import encode
from ..model.names import Name
from ..model.schema import Column, Table, VectorType
from .batch import Batch, Values

_BINARY: dict[str, tuple[str, frozenset[type]]] = {
    "smallint": ("int2", frozenset({int})),
    "integer": ("int4", frozenset({int})),
    "bigint": ("int8", frozenset({int})),
    "real": ("float4", frozenset({float})),
    "double precision": ("float8", frozenset({float})),
    "numeric": ("numeric", frozenset({decimal.Decimal, int})),
    "text": ("text", frozenset({str})),
    "character varying": ("varchar", frozenset({str})),
    "boolean": ("bool", frozenset({bool})),
    "bytea": ("bytea", frozenset({bytes})),
    "uuid": ("uuid", frozenset({uuid.UUID})),
    "date": ("date", frozenset({datetime.date})),
    "timestamp with time zone": ("timestamptz", frozenset({datetime.datetime})),
    "timestamp without time zone": ("timestamp", frozenset({datetime.datetime})),
}
"""Canonical type -> (psycopg's name, Python types whose binary form is exactly that)."""


def base_type(column: Column) -> str:
    """The column's type without its modifiers: ``timestamp(3) with time zone`` is ``timestamp with time zone``."""
    head, _, tail = column.type.partition("(")
    return (head.strip() + tail.rpartition(")")[2]).strip()


def sendable(values: Values, column: Column) -> Sequence[Any]:
    """The values as the driver takes them: vectors encoded or as text, numpy scalars as Python's."""
    kind = column.vector
    if kind and kind[0] in (VectorType.VECTOR, VectorType.HALFVEC):
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return encode(values, kind[0])
        return [None if v is None else encode(np.asarray(v, np.float32)[None, :], kind[0])[0] for v in values]
    return values.tolist() if isinstance(values, np.ndarray) else values


def _binary_types(columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> list[str] | None:
    """psycopg's type names when the whole batch can go in binary."""
    names = []
    for column, column_values in zip(columns, values, strict=True):
        kind = column.vector
        if kind:
            if kind[0] not in (VectorType.VECTOR, VectorType.HALFVEC):
                return None
            names.append(kind[0].value)
            continue
        known = _BINARY.get(base_type(column))
        if known is None or not set(map(type, column_values)) <= known[1] | {type(None)}:
            return None
        names.append(known[0])
    return names


async def copy_into(connection: Connection, relation: Name, table: Table, batch: Batch) -> None:
    """COPY the batch into ``relation``, inside the caller's transaction."""
    columns = [table.column(name) for name in batch.columns]
    known = [c for c in columns if c is not None]
    values = [sendable(batch.columns[c.name], c) for c in known]
    types = _binary_types(known, values)
    statement = sql.SQL("COPY {} ({}) FROM STDIN{}").format(
        sql.Identifier(*relation),
        sql.SQL(", ").join(sql.Identifier(c.name) for c in known),
        sql.SQL(" (FORMAT BINARY)" if types else ""),
    )
    if types is None:
        values = [_as_text(v, c) for v, c in zip(values, known, strict=True)]
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        if types:
            copy.set_types(types)
        for row in zip(*values, strict=True):
            await copy.write_row(row)


def _as_text(values: Sequence[Any], column: Column) -> Sequence[Any]:
    kind = column.vector
    if kind is None or kind[0] not in (VectorType.VECTOR, VectorType.HALFVEC):
        return values
    dtype = ">f2" if kind[0] is VectorType.HALFVEC else ">f4"
    return [None if v is None else vector_text(np.frombuffer(v[4:], dtype)) for v in values]


def vector_text(vector: Iterable[float]) -> str:
    """``[1, 2.5, …]``: a dense vector as pgvector reads it."""
    return "[" + ",".join(repr(float(x)) for x in vector) + "]"
