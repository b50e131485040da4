"""A sample of a file's vectors, from anywhere in it, to learn a table's cells from before its first row is written."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..routing.nearest import Vectors
from ..rows.batch import Values
from .prepare import Preparer
from .records import Chunk, Part


def vectors_in(chunks: Iterator[Chunk], preparer: Preparer, column: str, wanted: int) -> Vectors:
    """About ``wanted`` vectors of a file, or all it has; (n, dim). Texts are embedded for rows of the sample only.

    Each row is kept by the same chance, which halves whenever a quarter more than wanted are held.
    """
    rng = np.random.default_rng(0)
    share, held = 1.0, list[Part]()
    for chunk in chunks:
        held += [_some(part, share, rng) for part in chunk.parts]
        while sum(len(p.lines) for p in held) > 1.25 * wanted:
            share /= 2
            held = [_some(part, 0.5, rng) for part in held]
    ready = preparer.prepare(Chunk(held))
    found = [v for part in ready.parts for v in part.batch.columns[column] if v is not None]
    return np.stack(found) if found else np.empty((0, 0), np.float32)


def _some(part: Part, share: float, rng: np.random.Generator) -> Part:
    if share == 1:
        return part
    rows = np.flatnonzero(rng.random(len(part.lines)) < share)
    chosen = rows.tolist()
    columns: dict[str, Values] = {
        name: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in chosen]
        for name, values in part.columns.items()
    }
    records = None if part.records is None else [part.records[i] for i in chosen]
    return Part([part.lines[i] for i in chosen], columns, records)
