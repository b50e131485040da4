"""COPY into one server with nothing but the driver: what bulk loads are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from .data import Corpus
from .herds import COLUMNS

_BLOCK_ROWS = 512
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def copy_blocks(connection: psycopg.Connection[Any], table: str, corpus: Corpus) -> None:
    """As fast as it gets with psycopg: rows encoded by the block with numpy, one COPY for all of them."""
    with connection.cursor() as cursor, cursor.copy(_copy_statement(table)) as copy:
        copy.write(_SIGNATURE)
        for block in _blocks(corpus):
            copy.write(block)
        copy.write(b"\xff\xff")


def copy_rows(connection: psycopg.Connection[Any], table: str, corpus: Corpus) -> None:
    """As the drivers' own manuals show it: binary COPY, a row at a time."""
    register_vector(connection)
    with connection.cursor() as cursor, cursor.copy(_copy_statement(table)) as copy:
        copy.set_types(["int8", "text", "text", "text", "vector"])
        rows = zip(corpus.ids.tolist(), corpus.regions, corpus.codes, corpus.descriptions, corpus.vectors, strict=True)
        for row in rows:
            copy.write_row(row)


def _copy_statement(table: str) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table), names)


def _blocks(corpus: Corpus) -> Iterator[bytes]:
    for start in range(0, corpus.n, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, corpus.n)
        n, dim = stop - start, corpus.dim
        ids = np.zeros(n, np.dtype([("fields", ">i2"), ("size", ">i4"), ("id", ">i8")]))
        ids["fields"], ids["size"], ids["id"] = len(COLUMNS), 8, corpus.ids[start:stop]
        vectors = np.zeros(n, np.dtype([("size", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("values", ">f4", (dim,))]))
        vectors["size"], vectors["dim"], vectors["values"] = 4 + 4 * dim, dim, corpus.vectors[start:stop]
        columns = (
            _cut(ids),
            _texts(corpus.regions[start:stop]),
            _texts(corpus.codes[start:stop]),
            _texts(corpus.descriptions[start:stop]),
            _cut(vectors),
        )
        yield b"".join(chain.from_iterable(zip(*columns, strict=True)))


def _cut(records: np.ndarray[Any, Any]) -> list[bytes]:
    data, size = records.tobytes(), records.itemsize
    return [data[i : i + size] for i in range(0, len(data), size)]


def _texts(values: Sequence[str]) -> list[bytes]:
    encoded = [v.encode() for v in values]
    return [len(v).to_bytes(4, "big") + v for v in encoded]
