"""COPY of a batch into one relation: binary where the client knows how values are stored, text otherwise."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.pq import ConnStatus
from psycopg.types.json import Json, Jsonb

from ..engines.base import Connection
from ..engines.wire import encode
from ..model.names import Name
from ..model.schema import Column, Table, VectorType
from ..routing.types import canonical_type
from .batch import Batch, Values
from .binary import SIGNATURE, TRAILER, Field, binary_fields, blocks

_PATIENCE_MS = 60_000
_MANY_ROWS = 1_000
"""Fewer fit into what the operating system takes for the server, and its machine's end is noticed as soon as ever."""


def _is_json(column: Column) -> bool:
    return canonical_type(column.type).name in ("json", "jsonb")


def json_text(value: Any) -> str | None:
    """A value for a json or jsonb column as JSON text; a str is JSON text already, None is NULL."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value.obj if isinstance(value, (Json, Jsonb)) else value)


def sendable(values: Values, column: Column) -> Sequence[Any]:
    """The values as the driver takes them: vectors encoded or as text, numpy scalars as Python's."""
    kind = column.vector
    if kind and kind[0] in (VectorType.VECTOR, VectorType.HALFVEC):
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return encode(values, kind[0])
        return [None if v is None else encode(np.asarray(v, np.float32)[None, :], kind[0])[0] for v in values]
    if _is_json(column):
        return [json_text(v) for v in values]
    return values.tolist() if isinstance(values, np.ndarray) else values


@dataclass(slots=True)
class Outgoing:
    """A batch made ready to be copied: ``fields`` in binary, or where that can't be, ``values`` as the driver's."""

    columns: list[Column]
    fields: list[Field] | None
    values: list[Sequence[Any]]


def outgoing(connection: Connection, table: Table, batch: Batch) -> Outgoing:
    """Encode a batch, once for all the shards that its rows go to; any connection of the herd's will do."""
    columns = [c for c in (table.column(name) for name in batch.columns) if c is not None]
    given = [_for_copy(batch.columns[c.name], c) for c in columns]
    fields = binary_fields(columns, given, connection)
    texts = [] if fields else [_as_text(sendable(v, c), c) for v, c in zip(given, columns, strict=True)]
    return Outgoing(columns, fields, texts)


async def copy_into(connection: Connection, relation: Name, batch: Outgoing, rows: NDArray[np.intp]) -> None:
    """COPY these rows of the batch into ``relation``, inside the caller's transaction."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN{}").format(
        sql.Identifier(*relation),
        sql.SQL(", ").join(sql.Identifier(c.name) for c in batch.columns),
        sql.SQL("" if batch.fields is None else " (FORMAT BINARY)"),
    )
    async with connection.cursor() as cursor, patient(connection, len(rows)), cursor.copy(statement) as copy:
        if batch.fields is None:
            for i in rows.tolist():
                await copy.write_row([values[i] for values in batch.values])
            return
        await copy.write(SIGNATURE)
        for block in blocks(len(rows), batch.fields, rows):
            await copy.write(block)
        await copy.write(TRAILER)


@asynccontextmanager
async def patient(connection: Connection, rows: int) -> AsyncIterator[None]:
    """Give the server time to take what it is sent: a server that puts rows into an HNSW index, or waits for a lock,
    reads nothing for seconds, and TCP_USER_TIMEOUT counts that too. Source: Linux manual, tcp(7).
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if (
        option is None
        or rows < _MANY_ROWS
        or connection.pgconn.status != ConnStatus.OK
        or connection.info.host.startswith("/")
    ):
        yield
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as tcp:
        usual = tcp.getsockopt(socket.IPPROTO_TCP, option)
        tcp.setsockopt(socket.IPPROTO_TCP, option, max(usual, _PATIENCE_MS) if usual else 0)
        try:
            yield
        finally:
            with suppress(OSError):  # the connection is no more
                tcp.setsockopt(socket.IPPROTO_TCP, option, usual)


def _for_copy(values: Values, column: Column) -> Values:
    return [json_text(v) for v in values] if _is_json(column) else values


def _as_text(values: Sequence[Any], column: Column) -> Sequence[Any]:
    kind = column.vector
    if kind is None or kind[0] not in (VectorType.VECTOR, VectorType.HALFVEC):
        return values
    dtype = ">f2" if kind[0] is VectorType.HALFVEC else ">f4"
    return [None if v is None else vector_text(np.frombuffer(v[4:], dtype)) for v in values]


def vector_text(vector: Iterable[float]) -> str:
    """``[1, 2.5, …]``: a dense vector as pgvector reads it."""
    return "[" + ",".join(repr(float(x)) for x in vector) + "]"
