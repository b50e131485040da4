"""A column of Python values as datums, at the speed of numpy where the values are all of one plain kind.

Every fast path either handles the whole column exactly as ``values.datum`` would handle each value, or gives up;
then each value is converted on its own, which also finds the row to name in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRow
from .types import SqlType
from .values import EPOCH, EPOCH_UTC, INTEGER_BITS, NAN_BYTES, datum

Column = Sequence[Any] | NDArray[Any]
Datums = NDArray[Any] | list[Any]
"""(n,) int64, or (n, width) uint8 for fixed widths, or a list of bytes or Decimals."""

_VARIABLE = frozenset({"text", "varchar", "bpchar", "bytea", "numeric"})
_WIDTHS = {"uuid": 16, "real": 8, "double precision": 8}
_EPOCH_DAYS = np.datetime64(EPOCH, "D")
_EPOCH_MICROSECONDS = np.datetime64(EPOCH, "us")


def column_datums(kind: SqlType, column: Column) -> tuple[Datums, NDArray[np.intp] | None]:
    """The datums of the values that are not NULL, and their row indexes (None: there are no NULLs).

    None is NULL, and so is numpy's NaT. Raises BadRow, naming the row, if a value doesn't fit the type.
    """
    present: NDArray[np.intp] | None = None
    if isinstance(column, np.ndarray) and column.dtype != object:
        if column.dtype.kind in "mM" and np.isnat(column).any():
            present = np.flatnonzero(~np.isnat(column))
    else:
        column = column.tolist() if isinstance(column, np.ndarray) else column
        nulls = [v is None for v in column]
        if any(nulls):
            present = np.flatnonzero(~np.array(nulls, bool))
    if present is not None:
        column = take(column, present)
    fast = _FAST.get(kind.name)
    datums = fast(kind, column) if fast else None
    return (_one_by_one(kind, column, present) if datums is None else datums), present


def take(column: Column, rows: NDArray[np.intp]) -> Column:
    """The values of those rows."""
    return column[rows] if isinstance(column, np.ndarray) else [column[i] for i in rows.tolist()]


def _one_by_one(kind: SqlType, column: Column, present: NDArray[np.intp] | None) -> Datums:
    datums: list[Any] = []
    for i, value in enumerate(column):
        try:
            datums.append(datum(kind, value))
        except BadRow as e:
            row = i if present is None else int(present[i])
            raise BadRow(f"row {row}: {e.message}", hint=e.hint) from e
    if kind.name in _VARIABLE:
        return datums
    if kind.name in _WIDTHS:
        return np.frombuffer(b"".join(datums), np.uint8).reshape(len(datums), _WIDTHS[kind.name])
    # an interval may exceed 64 bits, of which the lower ones are hashed
    return np.array([(d + (1 << 63)) % (1 << 64) - (1 << 63) for d in datums], np.int64)


def _only(column: Column, wanted: type) -> bool:
    return isinstance(column, list | tuple) and set(map(type, column)) <= {wanted}


def _integers(kind: SqlType, column: Column) -> Datums | None:
    if not isinstance(column, np.ndarray):
        if not _only(column, int):
            return None
        try:
            column = np.array(column, np.int64)
        except OverflowError:
            return None
    if column.dtype.kind not in "iu" or not len(column):
        return None
    bits = INTEGER_BITS[kind.name]
    if int(column.max()) >= 1 << bits - 1 or int(column.min()) < -(1 << bits - 1):
        return None
    return column.astype(np.int64)


def _booleans(kind: SqlType, column: Column) -> Datums | None:
    if isinstance(column, np.ndarray):
        return column.astype(np.int64) if column.dtype.kind == "b" else None
    return np.array(column, np.int64) if _only(column, bool) else None


def _texts(kind: SqlType, column: Column) -> Datums | None:
    texts = column.tolist() if isinstance(column, np.ndarray) and column.dtype.kind == "U" else column
    if kind.name == "bytea":
        return list(texts) if _only(texts, bytes) else None
    if not _only(texts, str) or (kind.modifiers and max(map(len, texts), default=0) > kind.modifiers[0]):
        return None
    if not len(texts):
        return []
    try:
        encoded = "\0".join(texts).encode().split(b"\0")  # all at once: a call for each takes longer than its bytes
    except UnicodeEncodeError:
        return None
    if len(encoded) != len(texts):  # one holds a NUL, which no text may
        return None
    return [e.rstrip(b" ") for e in encoded] if kind.name == "bpchar" else encoded


def _uuids(kind: SqlType, column: Column) -> Datums | None:
    if _only(column, UUID):
        data = b"".join([u.bytes for u in column])
    elif _only(column, str):
        digits = [u.replace("-", "") for u in column]
        if set(map(len, digits)) != {32}:
            return None
        try:
            data = bytes.fromhex("".join(digits))
        except ValueError:
            return None
        if len(data) != 16 * len(digits):  # fromhex skips blanks, a uuid doesn't
            return None
    else:
        return None
    return np.frombuffer(data, np.uint8).reshape(len(column), 16)


def _dates(kind: SqlType, column: Column) -> Datums | None:
    if isinstance(column, np.ndarray):
        if column.dtype.kind != "M":
            return None
        days = column.astype("M8[D]")
    elif _only(column, date):
        days = np.array(column, "M8[D]")
    elif _only(column, str):
        try:
            days = np.array([date.fromisoformat(text) for text in column], "M8[D]")
        except ValueError:
            return None
    else:
        return None
    return (days - _EPOCH_DAYS).astype(np.int64)


def _timestamps(kind: SqlType, column: Column) -> Datums | None:
    if kind.modifiers:
        return None
    if isinstance(column, np.ndarray):
        if column.dtype.kind != "M" or kind.name == "timestamptz":
            return None
        exact = column.astype("M8[us]")
        return (exact - _EPOCH_MICROSECONDS).astype(np.int64) if np.array_equal(exact, column) else None
    if not _only(column, datetime):
        return None
    epoch = EPOCH_UTC if kind.name == "timestamptz" else EPOCH
    try:
        return np.array([v - epoch for v in column], "m8[us]").astype(np.int64)
    except TypeError:  # a time zone where there must be none, or none where there must be one
        return None


def _floats(kind: SqlType, column: Column) -> Datums | None:
    if isinstance(column, np.ndarray):
        numbers = column
    elif _only(column, float):
        numbers = np.array(column, np.float64)
    else:
        return None
    if numbers.dtype.kind != "f" or numbers.dtype.itemsize > 8:
        return None
    numbers = numbers.astype(np.float64)
    if kind.name == "real":
        with np.errstate(over="ignore", under="ignore"):
            narrow = numbers.astype(np.float32).astype(np.float64)
        if not np.array_equal(np.isinf(narrow), np.isinf(numbers)) or not np.array_equal(narrow == 0, numbers == 0):
            return None
        numbers = narrow
    data = (numbers + 0.0).astype("<f8").view(np.uint8).reshape(len(numbers), 8)
    data[np.isnan(numbers)] = np.frombuffer(NAN_BYTES, np.uint8)
    return data


_FAST: dict[str, Callable[[SqlType, Column], Datums | None]] = {
    "smallint": _integers,
    "integer": _integers,
    "bigint": _integers,
    "boolean": _booleans,
    "text": _texts,
    "varchar": _texts,
    "bpchar": _texts,
    "bytea": _texts,
    "uuid": _uuids,
    "date": _dates,
    "timestamp": _timestamps,
    "timestamptz": _timestamps,
    "real": _floats,
    "double precision": _floats,
}
