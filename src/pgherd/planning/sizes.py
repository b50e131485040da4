"""How many bytes PostgreSQL and pgvector store for vectors: their page layouts, worked out. Pure.

Source: PostgreSQL 18 manual, 66.2 TOAST and 66.6 Database Page Layout; heaptoast.h; pgvector 0.8, src/hnsw.h and
CreateGraphPages in src/hnswbuild.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from math import ceil

from ..model.schema import VectorType

PAGE = 8192
HEAP_ROOM = PAGE - 24
HNSW_ROOM = PAGE - 24 - 8
BTREE_ROOM = (PAGE - 24 - 16) * 0.9
TOAST_THRESHOLD = 2032
CHUNK = 1996
SAMPLE = 4096
"""Rows that are laid out one by one; more go on as these do."""
REMEMBERED = 64
"""Pages that are looked at for room left over; more would change little."""
MAX_HNSW_DIM = {VectorType.VECTOR: 2000, VectorType.HALFVEC: 4000, VectorType.BIT: 64_000}


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of rows together, and how they come about."""

    bytes: int
    formula: str


def raw_bytes(rows: int, dim: int, kind: VectorType) -> Size:
    """The components alone."""
    each = _component_bytes(dim, kind)
    unit = {VectorType.VECTOR: "4", VectorType.HALFVEC: "2"}.get(kind, "1/8")
    return Size(rows * each, f"{rows:,} rows x {dim:,} x {unit} B")


def heap_bytes(rows: int, dim: int, kind: VectorType, other: int) -> Size:
    """The table with its TOAST, for rows of one vector and ``other`` bytes; vectors are not compressed (EXTERNAL)."""
    value = value_bytes(dim, kind)
    inline = value - 3 if value - 3 < 127 else value
    row = 24 + other + inline
    if row <= TOAST_THRESHOLD:
        formula = f"{rows:,} rows x (24 header + {other} others + {inline} vector + 4 line pointer), in pages"
        return Size(_heap(rows, [_aligned(row)]), formula)
    chunks = _chunks(value - 4)
    main = _heap(rows, [_aligned(24 + other + 18)])
    toast = _heap(rows, [_aligned(36 + c) for c in chunks])
    index = ceil(rows * len(chunks) * 20 / BTREE_ROOM) * PAGE
    formula = (
        f"{rows:,} rows x (24 header + {other} others + 18 TOAST pointer + 4) + {len(chunks)} TOAST chunks each"
        f" ({value - 4:,} B + {len(chunks)} x 40), in pages, + 20 B of TOAST index a chunk"
    )
    return Size(main + toast + index, formula)


def hnsw_bytes(rows: int, dim: int, kind: VectorType, m: int) -> Size:
    """An HNSW index that was just built."""
    value = value_bytes(dim, kind)
    element = _aligned(72 + value)
    elements = ((element, _neighbours(level, m)) for level in _levels(m))
    formula = (
        f"{rows:,} rows x ({element:,} element (72 + {value:,}) + {_neighbours(0, m)} neighbours (4 + 6 x 2 x {m};"
        f" 1 in {m} has a level more) + 8 line pointers), in pages of {PAGE - 32} B"
    )
    return Size(PAGE + _hnsw(rows, elements), formula)


def ivfflat_bytes(rows: int, dim: int, kind: VectorType, lists: int) -> Size:
    """An IVFFlat index that was just built; lists of equal length."""
    value = value_bytes(dim, kind)
    entry = _aligned(8 + value) + 4
    each = max(1, ceil(ceil(rows / lists) / max(1, HNSW_ROOM // entry)))
    centres = ceil(lists / max(1, HNSW_ROOM // (_aligned(12 + value) + 4)))
    formula = f"{lists:,} lists x {each:,} pages of {HNSW_ROOM // entry} entries (8 + {value:,} + 4), and their centres"
    return Size(PAGE * (1 + centres + lists * each), formula)


def value_bytes(dim: int, kind: VectorType) -> int:
    """One value with its header."""
    return 8 + _component_bytes(dim, kind)


def _component_bytes(dim: int, kind: VectorType) -> int:
    match kind:
        case VectorType.VECTOR:
            return 4 * dim
        case VectorType.HALFVEC:
            return 2 * dim
        case _:
            return -(-dim // 8)


def _chunks(data: int) -> list[int]:
    return [CHUNK] * (data // CHUNK) + ([data % CHUNK] if data % CHUNK else [])


def _neighbours(level: int, m: int) -> int:
    return _aligned(4 + 6 * (level + 2) * m)


def _levels(m: int) -> Iterator[int]:
    """Levels of SAMPLE elements, of which one in m**l reaches level l, spread evenly."""
    for i in range(1, SAMPLE + 1):
        level = 0
        while i % m == 0:
            level, i = level + 1, i // m
        yield level


def _aligned(size: int) -> int:
    return (size + 7) // 8 * 8


def _heap(rows: int, tuples: list[int]) -> int:
    """Bytes of the pages that rows of these tuples fill: on the page in use, else any with room, else a new one."""
    free: list[int] = []
    used, laid = 0, min(rows, SAMPLE)
    for size in chain.from_iterable(repeat(tuples, laid)):
        if not free or free[used] < size + 4:
            known = range(max(0, len(free) - REMEMBERED), len(free))
            used = next((i for i in known if free[i] // 32 * 32 >= size + 4), len(free))
            if used == len(free):
                free.append(HEAP_ROOM)
        free[used] -= size + 4
    return _scaled(rows, laid, len(free) - free[-1] / HEAP_ROOM) if free else 0


def _hnsw(rows: int, elements: Iterable[tuple[int, int]]) -> int:
    """Bytes of the pages that elements and their neighbours fill, in order; the two stay together if they can."""
    pages, free, laid = 0, 0, min(rows, SAMPLE)
    for tuples in islice(elements, laid):
        together = sum(tuples) + 8
        if together <= HNSW_ROOM and free < together:
            pages, free = pages + 1, HNSW_ROOM
        for size in tuples:
            if free < size + 4:
                pages, free = pages + 1, HNSW_ROOM
            free -= size + 4
    return _scaled(rows, laid, pages - free / HNSW_ROOM) if laid else 0


def _scaled(rows: int, laid: int, pages: float) -> int:
    return ceil(pages * rows / laid) * PAGE
