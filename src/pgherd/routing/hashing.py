"""PostgreSQL's hash partitioning, bit for bit: which remainder a key has, computed by the client.

The hash of a row is that of compute_partition_hash_value (src/backend/partitioning/partbounds.c, PostgreSQL 11 to 18):
the extended hash function of each key column's default operator class, seeded with HASH_PARTITION_SEED and combined;
NULLs are skipped. Taken for granted: servers are little-endian, databases UTF8, collations deterministic (the default).
A leaf partition checks its own bounds on every write, so a wrong hash is an error, never a row in the wrong place.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from .columns import Column, column_datums
from .jenkins import (
    HASH_PARTITION_SEED,
    Hashes,
    Words,
    combine,
    combine_rows,
    hash_byte_matrix,
    hash_byte_rows,
    hash_bytes,
    hash_word,
    hash_words,
)
from .types import SqlType, canonical_type
from .values import Datum, datum, is_null

__all__ = ["HASH_PARTITION_SEED", "canonical_type", "check_hashable", "hash_key", "hash_rows"]

_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF
_ZERO_BYTES = bytes(8)
_FLOATS = frozenset({"real", "double precision"})


def hash_key(types: Sequence[str], values: Sequence[Any]) -> int:
    """The 64-bit partition hash of one key: ``values`` of columns of the SQL ``types``; None is NULL (so is NaT).

    Raises:
        BadRow: a value doesn't fit its type.
        BadInput: a type's hash depends on the server (enums, domains, …).
    """
    row = 0
    for kind, value in zip(map(check_hashable, types), values, strict=True):
        if not is_null(value):
            row = combine(row, _hash_datum(kind, datum(kind, value)))
    return row


def hash_rows(types: Sequence[str], columns: Sequence[Column]) -> Hashes:
    """The partition hashes of n keys, given as one sequence or array of n values a column; (n,) uint64.

    Raises:
        BadRow: a value doesn't fit its type; the message names the row.
        BadInput: a type's hash depends on the server (enums, domains, …), or columns differ in length.
    """
    kinds = [check_hashable(t) for t in types]
    lengths = {len(c) for c in columns}
    if len(kinds) != len(columns) or len(lengths) != 1:
        raise BadInput("a key needs one column of values for each type, all of one length", hint="check the arguments")
    rows = np.zeros(lengths.pop(), np.uint64)
    for kind, column in zip(kinds, columns, strict=True):
        datums, present = column_datums(kind, column)
        hashes = _hash_datums(kind, datums)
        if present is None:
            rows = combine_rows(rows, hashes)
        else:
            rows[present] = combine_rows(rows[present], hashes)
    return rows


def check_hashable(type_text: str) -> SqlType:
    """The type, if its partition hash can be computed outside the server; BadInput otherwise."""
    kind = canonical_type(type_text)
    if not kind.known:
        raise BadInput(
            f"the partition hash of type {kind} can only be computed by the server that holds the table",
            hint="hash-partition by a column of a built-in type (an enum's hash is its oid, which differs on every "
            "server: use text, or PARTITION BY LIST)",
        )
    return kind


def _hash_datum(kind: SqlType, value: Datum) -> int:
    if isinstance(value, int):
        return hash_word(_fold(value))
    if isinstance(value, Decimal):
        return _hash_numeric(value)
    assert isinstance(value, bytes)
    return HASH_PARTITION_SEED if value == _ZERO_BYTES and kind.name in _FLOATS else hash_bytes(value)


def _hash_datums(kind: SqlType, datums: NDArray[Any] | Sequence[Any]) -> Hashes:
    if kind.name == "numeric":
        return np.fromiter(map(_hash_numeric, datums), np.uint64, len(datums))
    if not isinstance(datums, np.ndarray):
        return hash_byte_rows(datums)
    if datums.ndim == 1:
        return hash_words(_fold_rows(datums))
    hashes = hash_byte_matrix(datums)
    if kind.name in _FLOATS:
        hashes[~datums.any(axis=1)] = HASH_PARTITION_SEED
    return hashes


def _fold(number: int) -> int:
    """64 bits to 32, so that a number hashes alike whatever the width of its column (hashint8extended)."""
    number = (number + (1 << 63)) % (1 << 64) - (1 << 63)  # an interval's 128 bits: the lower half counts
    high = number >> 32
    return (number ^ (high if number >= 0 else ~high)) & _M32


def _fold_rows(numbers: NDArray[np.int64]) -> Words:
    high = numbers >> 32
    high ^= numbers >> 63  # all ones where negative: the complement
    return (numbers ^ high).astype(np.uint32)


def _hash_numeric(value: Decimal) -> int:
    """hash_numeric_extended: the base-10000 digits without outer zeros, and the power of the first one."""
    if not value.is_finite():
        return HASH_PARTITION_SEED
    if not value:
        return HASH_PARTITION_SEED - 1
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0") + "0" * (exponent % 4)
    weight = (len(text) + 3) // 4 - 1 + exponent // 4
    text = "0" * (-len(text) % 4) + text
    groups = np.array([int(text[i : i + 4]) for i in range(0, len(text), 4)], "<i2")
    return hash_bytes(np.trim_zeros(groups, "b").tobytes()) ^ weight & _M64
