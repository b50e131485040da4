"""COPY's binary format, encoded a column at a time: by numpy where a column is fixed in width and has no NULLs.

Source: PostgreSQL 18, COPY, "Binary Format": a 16-bit count of fields a row, then for each field a 32-bit length and
that many bytes, or -1 for NULL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.pq import Format

from ..engines.base import Connection
from ..engines.wire import check_half, encode, vector_head
from ..errors import BadInput
from ..model.schema import Column, VectorType
from ..routing.columns import column_datums
from ..routing.types import SqlType, canonical_type
from .batch import Values

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
BLOCK_BYTES = 128 * 1024
"""About what the driver hands to libpq at once."""

_NULL = b"\xff\xff\xff\xff"
_MIXED_ROWS = 512
_NUMERIC_OID = 1700
_WIRE = {
    "smallint": ">i2",
    "integer": ">i4",
    "bigint": ">i8",
    "boolean": "u1",
    "date": ">i4",
    "time": ">i8",
    "timestamp": ">i8",
    "timestamptz": ">i8",
    "real": ">f4",
    "double precision": ">f8",
    "uuid": "u1",
}
"""The types of fixed width: what each datum is on the wire."""
_JSON = {"json": b"", "jsonb": b"\1"}
"""The types sent as JSON text, after these bytes (jsonb_recv wants a version)."""


@dataclass(slots=True)
class Fixed:
    """A column without NULLs whose fields are all ``head`` and then a row of ``values`` as ``wire`` numbers."""

    head: bytes
    values: NDArray[Any]
    wire: str

    @property
    def width(self) -> int:
        """Bytes of a field, its length word included."""
        return len(self.head) + int(self.values.shape[1]) * np.dtype(self.wire).itemsize

    def fill(self, target: NDArray[np.uint8], start: int, stop: int) -> None:
        """Encode rows ``start`` to ``stop`` into ``target``, (stop - start, width) uint8."""
        head = len(self.head)
        target[:, :head] = np.frombuffer(self.head, np.uint8)
        target[:, head:].view(self.wire)[:] = self.values[start:stop]


@dataclass(slots=True)
class Varying:
    """A column without NULLs whose rows differ in length; length words are made by the block, while others are sent."""

    values: list[bytes]

    def heads(self, start: int, stop: int) -> list[bytes]:
        """The length words of rows ``start`` to ``stop``."""
        lengths = np.fromiter(map(len, self.values[start:stop]), ">i4", stop - start)
        return _split(lengths.view(np.uint8).reshape(-1, 4))


Field = Fixed | Varying | list[bytes]
"""A column ready to be sent; a list holds each row's bytes, the length word included."""


def binary_fields(columns: Sequence[Column], values: Sequence[Values], connection: Connection) -> list[Field] | None:
    """The columns in binary, or None when a type or a value among them has to be read by the server as text."""
    fields = []
    for column, column_values in zip(columns, values, strict=True):
        field = _field(column, column_values, connection)
        if field is None:
            return None
        fields.append(field)
    return fields


def blocks(n: int, fields: Sequence[Field]) -> Iterator[bytes]:
    """The rows of a COPY in binary, in blocks of about ``BLOCK_BYTES``; no signature, no trailer."""
    count = Fixed(len(fields).to_bytes(2, "big"), np.empty((n, 0), np.uint8), "u1")
    fixed: list[Fixed] | None = [count]
    runs: list[Any] = [fixed]
    for field in fields:
        if isinstance(field, Fixed):
            if fixed is None:
                fixed = []
                runs.append(fixed)
            fixed.append(field)
        else:
            fixed = None
            runs.append(field)
    if len(runs) == 1:
        step = max(1, BLOCK_BYTES // _width([count, *fields]))
        for start in range(0, n, step):
            yield _matrix([count, *fields], start, min(n, start + step)).tobytes()
        return
    for start in range(0, n, _MIXED_ROWS):
        parts = [part for run in runs for part in _parts(run, start, min(n, start + _MIXED_ROWS))]
        yield b"".join(chain.from_iterable(zip(*parts, strict=True)))


def _parts(run: Sequence[Any] | Varying, start: int, stop: int) -> Iterator[list[bytes]]:
    """What rows ``start`` to ``stop`` need of a run of columns, row by row."""
    if isinstance(run, Varying):
        yield run.heads(start, stop)
        yield run.values[start:stop]
    elif isinstance(run[0], Fixed):
        yield _split(_matrix(run, start, stop))
    else:
        yield list(run[start:stop])


def _width(run: Sequence[Any]) -> int:
    return sum(int(field.width) for field in run)


def _matrix(run: Sequence[Any], start: int, stop: int) -> NDArray[np.uint8]:
    out = np.empty((stop - start, _width(run)), np.uint8)
    at = 0
    for field in run:
        field.fill(out[:, at : at + field.width], start, stop)
        at += field.width
    return out


def _split(matrix: NDArray[np.uint8]) -> list[bytes]:
    n, width = matrix.shape
    data = matrix.tobytes()
    return [data[i : i + width] for i in range(0, n * width, width)]


def _field(column: Column, values: Values, connection: Connection) -> Field | None:
    if column.vector:
        return _vector_field(column.vector[0], values)
    kind = canonical_type(column.type)
    name = kind.name
    if name in _JSON:
        head = _JSON[name]
        return [_NULL if v is None else _sized(head + v.encode()) for v in values] if _all_text(values) else None
    if not kind.known or name == "interval":
        return None
    try:
        datums, present = column_datums(kind, values)
    except BadInput:  # the server is the judge of values that routing doesn't understand
        return None
    if name in _WIRE:
        fixed = _fixed(kind, np.asarray(datums))
        return fixed if present is None else _with_nulls(_split(_matrix([fixed], 0, len(datums))), present, len(values))
    if name == "numeric":
        dumper = connection.adapters.get_dumper_by_oid(_NUMERIC_OID, Format.BINARY)(Decimal, connection)
        return _with_nulls([_sized(bytes(dumper.dump(d) or b"")) for d in datums], present, len(values))
    if present is None:
        return Varying(list(datums))
    return _with_nulls([_sized(d) for d in datums], present, len(values))


def _fixed(kind: SqlType, datums: NDArray[Any]) -> Fixed:
    wire = _WIRE[kind.name]
    if kind.name in ("real", "double precision"):  # routing hashes the little-endian double
        datums = datums.view("<f8")
    size = 16 if kind.name == "uuid" else np.dtype(wire).itemsize
    matrix = datums.reshape(len(datums), size // np.dtype(wire).itemsize)
    return Fixed(size.to_bytes(4, "big"), matrix, wire)


def _vector_field(kind: VectorType, values: Values) -> Field | None:
    if kind not in (VectorType.VECTOR, VectorType.HALFVEC):
        return None
    if isinstance(values, np.ndarray) and values.ndim == 2:
        head, wire = vector_head(values.shape[1], kind)
        if kind is VectorType.HALFVEC:
            check_half(values)
        size = len(head) + values.shape[1] * np.dtype(wire).itemsize
        return Fixed(size.to_bytes(4, "big") + head, values, wire)
    rows = [None if v is None else np.asarray(v, np.float32) for v in values]
    present = np.flatnonzero([v is not None for v in rows])
    known = [v for v in rows if v is not None]
    if len({len(v) for v in known}) == 1:
        encoded: list[bytes] = list(encode(np.stack(known), kind))
    else:
        encoded = [encode(v[None, :], kind)[0] for v in known]
    return _with_nulls([_sized(e) for e in encoded], present, len(rows))


def _all_text(values: Values) -> bool:
    return all(v is None or isinstance(v, str) for v in values)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _with_nulls(present: list[bytes], rows: NDArray[np.intp] | None, n: int) -> list[bytes]:
    if rows is None:
        return present
    out = [_NULL] * n
    for row, data in zip(rows.tolist(), present, strict=True):
        out[row] = data
    return out
