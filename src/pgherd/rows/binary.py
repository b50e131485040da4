"""COPY's binary format, encoded a column at a time: by numpy where a column is fixed in width and has no NULLs.

Source: PostgreSQL 18, COPY, "Binary Format": a 16-bit count of fields a row, then for each field a 32-bit length and
that many bytes, or -1 for NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
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
BLOCK_BYTES = 256 * 1024
"""Enough rows for numpy to be worth its calls, and few enough to stay in a processor's cache until they are sent."""

_NULL = b"\xff\xff\xff\xff"
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
    wire: DTypeLike

    @property
    def width(self) -> int:
        """Bytes of a field, its length word included."""
        return len(self.head) + int(self.values.shape[1]) * np.dtype(self.wire).itemsize

    def fill(self, target: NDArray[np.uint8], rows: Chosen) -> None:
        """Encode these rows into ``target``, (len(rows), width) uint8."""
        head = len(self.head)
        target[:, :head] = np.frombuffer(self.head, np.uint8)
        target[:, head:].view(self.wire)[:] = self.values[rows]


@dataclass(slots=True)
class Varying:
    """A column whose rows differ in length. ``sized``: each row's bytes hold its length word, or that of NULL."""

    values: list[bytes]
    sized: bool = False


Field = Fixed | Varying
"""A column ready to be sent."""
Rows = NDArray[np.intp]
Chosen = Rows | slice


@dataclass(slots=True)
class _Run:
    """What stands before a varying column, or after the last: columns of fixed width, perhaps that one's length."""

    fixed: list[Fixed]
    length: bool = False

    @property
    def width(self) -> int:
        return sum(field.width for field in self.fixed) + 4 * self.length

    def matrix(self, n: int, rows: Chosen, lengths: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """(n, width) uint8."""
        out, at = np.empty((n, self.width), np.uint8), 0
        for field in self.fixed:
            field.fill(out[:, at : at + field.width], rows)
            at += field.width
        if self.length:
            out[:, at:].view(">i4")[:, 0] = lengths
        return out


def binary_fields(columns: Sequence[Column], values: Sequence[Values], connection: Connection) -> list[Field] | None:
    """The columns in binary, or None when a type or a value among them has to be read by the server as text."""
    fields = []
    for column, column_values in zip(columns, values, strict=True):
        field = _field(column, column_values, connection)
        if field is None:
            return None
        fields.append(field)
    return fields


def blocks(n: int, fields: Sequence[Field], rows: Rows | None = None) -> Iterator[memoryview]:
    """``n`` rows, all or those at ``rows``, in blocks of about ``BLOCK_BYTES``; no signature, no trailer.

    A block is laid out by joining varying columns with gaps; numpy puts the rest of all rows into these gaps at once.
    """
    runs = [_Run([Fixed(len(fields).to_bytes(2, "big"), np.empty((_count(n, rows), 0), np.uint8), "u1")])]
    varying: list[list[bytes]] = []
    for field in fields:
        if isinstance(field, Fixed):
            runs[-1].fixed.append(field)
        else:
            runs[-1].length = not field.sized
            runs.append(_Run([]))
            varying.append(_taken(field.values, rows))
    lengths = [np.fromiter(map(len, values), np.int64, n) for values in varying]
    gaps = [bytes(run.width) for run in runs]
    fixed = sum(map(len, gaps))
    step = max(1, BLOCK_BYTES // (fixed + sum(int(v.sum()) for v in lengths) // max(1, n)))
    for start in range(0, n, step):
        stop = min(n, start + step)
        chosen = slice(start, stop) if rows is None else rows[start:stop]
        if not varying:
            yield runs[0].matrix(stop - start, chosen, None).reshape(-1).data
            continue
        parts: list[Iterable[bytes]] = [repeat(gaps[0])]
        for values, gap in zip(varying, gaps[1:], strict=True):
            parts += [values[start:stop], repeat(gap)]
        block = bytearray().join(chain.from_iterable(zip(*parts, strict=False)))
        sizes = [v[start:stop] for v in lengths]
        whole: NDArray[np.int64] = np.sum([*sizes, np.full(stop - start, fixed)], axis=0)
        at = np.cumsum(whole) - whole
        for run, gap, size in zip(runs, gaps, [*sizes, None], strict=True):
            if gap:
                _put(block, at, run.matrix(stop - start, chosen, size))
            if size is not None:
                at += len(gap) + size
        yield memoryview(block)


def _count(n: int, rows: Rows | None) -> int:
    return n if rows is None or not n else int(rows[-1]) + 1


def _taken(values: list[bytes], rows: Rows | None) -> list[bytes]:
    if rows is None or len(rows) < 2:  # itemgetter of one row gives no tuple
        return values if rows is None else [values[i] for i in rows.tolist()]
    return list(itemgetter(*rows.tolist())(values))


def _put(block: bytearray, at: NDArray[np.int64], matrix: NDArray[np.uint8]) -> None:
    """Row i of the matrix goes to byte ``at[i]`` of the block: to numpy a row is one element, of type void."""
    kind = np.dtype((np.void, matrix.shape[1]))
    windows: NDArray[np.void] = np.ndarray((len(block) - kind.itemsize + 1,), kind, block, strides=(1,))
    windows[at] = matrix.view(kind)[:, 0]


def _encoded(field: Fixed) -> list[bytes]:
    """Each row's field by itself."""
    n, width = len(field.values), field.width
    out = np.empty((n, width), np.uint8)
    field.fill(out, slice(None))
    data = out.tobytes()
    return [data[i : i + width] for i in range(0, n * width, width)]


def _field(column: Column, values: Values, connection: Connection) -> Field | None:
    if column.vector:
        return _vector_field(column.vector[0], values)
    kind = canonical_type(column.type)
    name = kind.name
    if name in _JSON:
        head = _JSON[name]
        if not _all_text(values):
            return None
        return Varying([_NULL if v is None else _sized(head + v.encode()) for v in values], sized=True)
    if not kind.known or name == "interval":
        return None
    try:
        datums, present = column_datums(kind, values)
    except BadInput:  # the server is the judge of values that routing doesn't understand
        return None
    if name in _WIRE:
        fixed = _fixed(kind, np.asarray(datums))
        return fixed if present is None else _with_nulls(_encoded(fixed), present, len(values))
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


def _with_nulls(present: list[bytes], rows: Rows | None, n: int) -> Varying:
    if rows is None:
        return Varying(present, sized=True)
    out = [_NULL] * n
    for row, data in zip(rows.tolist(), present, strict=True):
        out[row] = data
    return Varying(out, sized=True)
