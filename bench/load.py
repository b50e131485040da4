"""Bulk load: the client's insert into two groups, against COPY into one server; no vector index on either."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pgvector.psycopg import register_vector
from psycopg import sql

from pgherd.sync import Herd

from .data import Corpus
from .herds import FLEET_1, SINGLE, Pair, empty
from .measure import Series, take_turns

BATCH_ROWS = 20_000
COLUMNS = ("id", "region", "code", "description", "embedding")
_BLOCK_ROWS = 512
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def measure_load(pair: Pair, single: Herd, fleet: Herd, corpus: Corpus, rounds: int) -> dict[str, Series]:
    """Rows per second of each way to load all rows; the tables are full afterwards.

    Each way is given the rows as it takes them best: arrow tables, or lists and arrays.
    """
    tables = batches(corpus)
    ways: dict[str, tuple[Path, Herd, str, Callable[[], None]]] = {
        "psycopg COPY, 1 server": (pair.single, single, SINGLE, lambda: _copy_blocks(pair, corpus)),
        "pgherd insert, 2 groups": (pair.fleet, fleet, FLEET_1, lambda: insert(fleet, FLEET_1, tables)),
        "pgherd insert, 1 server": (pair.single, single, SINGLE, lambda: insert(single, SINGLE, tables)),
        "psycopg COPY write_row, 1 server": (pair.single, single, SINGLE, lambda: _copy_rows(pair, corpus)),
    }
    series = {name: Series(name) for name in ways}

    def turn(name: str) -> None:
        home, herd, table, load = ways[name]
        empty(pair, home, herd, table)
        started = time.perf_counter()
        load()
        series[name].rounds.append(corpus.n / (time.perf_counter() - started))

    take_turns([lambda name=name: turn(name) for name in ways], rounds)  # type: ignore[misc]
    return series


def batches(corpus: Corpus) -> list[pa.Table]:
    """All rows as arrow tables of ``BATCH_ROWS``."""
    starts = range(0, corpus.n, BATCH_ROWS)
    return [corpus.arrow(start, min(start + BATCH_ROWS, corpus.n)) for start in starts]


def insert(herd: Herd, table: str, tables: Sequence[pa.Table]) -> None:
    """All rows through the client, one commit a batch."""
    target = herd.table(table)
    for rows in tables:
        target.insert(rows)


def _copy_statement() -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(SINGLE), names)


def _copy_blocks(pair: Pair, corpus: Corpus) -> None:
    """As fast as it gets with psycopg: rows encoded by the block with numpy, one COPY for all of them."""
    with pair.connect(pair.single) as connection, connection.cursor() as cursor, cursor.copy(_copy_statement()) as copy:
        copy.write(_SIGNATURE)
        for block in _blocks(corpus):
            copy.write(block)
        copy.write(b"\xff\xff")


def _blocks(corpus: Corpus) -> Iterator[bytes]:
    for start in range(0, corpus.n, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, corpus.n)
        n, dim = stop - start, corpus.vectors.shape[1]
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


def _copy_rows(pair: Pair, corpus: Corpus) -> None:
    """As the drivers' own manuals show it: binary COPY, a row at a time."""
    with pair.connect(pair.single) as connection:
        register_vector(connection)
        with connection.cursor() as cursor, cursor.copy(_copy_statement()) as copy:
            copy.set_types(["int8", "text", "text", "text", "vector"])
            rows = zip(
                corpus.ids.tolist(), corpus.regions, corpus.codes, corpus.descriptions, corpus.vectors, strict=True
            )
            for row in rows:
                copy.write_row(row)
