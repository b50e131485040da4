"""Vectors in PostgreSQL's binary format, encoded a whole column at a time.

Source: pgvector 0.8, vector_recv and halfvec_recv: int16 dimensions, int16 unused, then big-endian floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.adapt import Dumper
from psycopg.pq import Format

from ..errors import BadRow
from ..model.schema import VectorType

HALF_MAX = 65504.0


class VectorBytes(bytes):
    """A ``vector`` in binary format."""


class HalfvecBytes(bytes):
    """A ``halfvec`` in binary format."""


class _Encoded(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


@lru_cache(maxsize=256)
def vector_head(dim: int, kind: VectorType) -> tuple[bytes, np.dtype[Any]]:
    """What precedes the components of a value in binary, and what they are there."""
    return dim.to_bytes(2, "big") + b"\0\0", np.dtype(">f2" if kind is VectorType.HALFVEC else ">f4")


def check_half(array: NDArray[np.float32]) -> None:
    """BadRow when a component is beyond what halfvec holds."""
    if array.size and np.abs(array).max() > HALF_MAX:
        raise BadRow(f"a component is beyond what halfvec holds ({HALF_MAX:.0f})", hint="use a vector column")


def encode(array: NDArray[np.float32], kind: VectorType) -> list[bytes]:
    """Each row of an (n, dim) float32 array as a value of ``vector`` or ``halfvec``."""
    n, dim = array.shape
    if kind is VectorType.HALFVEC:
        check_half(array)
    head, wire = vector_head(dim, kind)
    made = HalfvecBytes if kind is VectorType.HALFVEC else VectorBytes
    width = len(head) + dim * wire.itemsize
    whole = np.empty((n, width), np.uint8)
    whole[:, : len(head)] = np.frombuffer(head, np.uint8)
    whole[:, len(head) :].view(wire)[:] = array
    data = whole.tobytes()
    return [made(data[i : i + width]) for i in range(0, n * width, width)]


def encode_one(array: NDArray[np.float32], kind: VectorType) -> bytes:
    """One (dim,) float32 array as a value of ``vector`` or ``halfvec``: as :func:`encode`, with less ado."""
    if kind is VectorType.HALFVEC:
        check_half(array)
    head, wire = vector_head(len(array), kind)
    return (HalfvecBytes if kind is VectorType.HALFVEC else VectorBytes)(head + array.astype(wire).tobytes())


def decode(values: Sequence[bytes], kind: VectorType) -> NDArray[np.float32]:
    """The inverse of :func:`encode`: (n, dim) float32 of values of one dimension."""
    head, wire = vector_head(0, kind)
    rows = [np.frombuffer(value, wire, offset=len(head)) for value in values]
    return np.stack(rows).astype(np.float32)


def register(connection: AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """Let ``connection`` send encoded vectors; a no-op where pgvector's types are not known."""
    for name, kind in (("vector", VectorBytes), ("halfvec", HalfvecBytes)):
        info = connection.adapters.types.get(name)
        if info is not None:
            dumper = type(f"{name.title()}Dumper", (_Encoded,), {"oid": info.oid})
            connection.adapters.register_dumper(kind, dumper)
