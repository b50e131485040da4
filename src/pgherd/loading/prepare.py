"""Chunks made ready to be written: values read, rows checked, vectors computed, and every row known to have a home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..embedding.base import Embedder
from ..errors import BadInput, BadRow
from ..model.schema import Column, Table
from ..routing.nearest import Centroids
from ..routing.route import Router
from ..rows.batch import Batch
from ..rows.cells import put_into_cells
from .convert import Problem, Problems, convert
from .records import Chunk, Part, Reject

HOPELESS_ROWS = 1000
"""When so many rows at the beginning of a file are all bad, the file is the wrong one."""


@dataclass(frozen=True, slots=True)
class Filler:
    """Computes a vector column from a text column."""

    text: str
    vector: str
    models: Callable[[Mapping[str, Any], int], list[tuple[Embedder, NDArray[np.intp]]]]
    """who embeds which rows, given by column and number"""


@dataclass(slots=True)
class ReadyPart:
    """A batch to write; ``rows[i]`` is the row of ``part`` that became row i of it."""

    part: Part
    rows: NDArray[np.intp]
    batch: Batch

    def reject(self, i: int, code: str, message: str) -> Reject:
        """Row i of the batch as rejected."""
        row = int(self.rows[i])
        return Reject(self.part.lines[row], code, message, self.part.row(row))


@dataclass(slots=True)
class Ready:
    """A chunk's good rows, and its bad ones in the file's order."""

    parts: list[ReadyPart]
    rejects: list[Reject]
    lines_done: int
    bytes_done: int

    @property
    def rows(self) -> int:
        """How many good rows."""
        return sum(p.batch.n for p in self.parts)


class Preparer:
    """Prepares the chunks of one load. No I/O but the embedding models'; meant to run on a thread."""

    def __init__(
        self,
        table: Table,
        router: Router,
        fillers: Sequence[Filler],
        *,
        json_values: bool,
        centroids: Centroids | None = None,
    ) -> None:
        self._table = table
        self._centroids = centroids
        self._router = router
        self._fillers = fillers
        self._json_values = json_values

    def prepare(self, chunk: Chunk) -> Ready:
        """Raises BadInput when a model fails, or when nothing in a long first chunk is any good."""
        rejects = list(chunk.rejects)
        parts = [ready for part in chunk.parts for ready in self._part(part, rejects)]
        rejects.sort(key=lambda r: r.line)
        return Ready(parts, rejects, chunk.lines_done, chunk.bytes_done)

    def all(self, chunks: Iterator[Chunk]) -> Iterator[Ready]:
        """Every chunk, prepared."""
        for i, chunk in enumerate(chunks):
            ready = self.prepare(chunk)
            if i == 0 and not ready.rows and len(ready.rejects) >= HOPELESS_ROWS:
                first = ready.rejects[0]
                raise BadInput(
                    f"none of {len(ready.rejects)} rows can be loaded into {self._table.name}; line {first.line}: "
                    + first.message,
                    hint="is it the right file for this table?",
                )
            yield ready

    def _part(self, part: Part, rejects: list[Reject]) -> Iterator[ReadyPart]:
        unknown = self._unknown(part)
        if unknown:
            rejects.extend(Reject(line, *unknown, part.row(i)) for i, line in enumerate(part.lines))
            return
        ready = ReadyPart(part, np.arange(len(part.lines)), Batch(len(part.lines)))
        problems: Problems = {}
        for name, values in part.columns.items():
            column = self._column(name)
            ready.batch.columns[name], found = convert(column, values, json_values=self._json_values)
            problems = found | problems
        fillers = [f for f in self._fillers if f.vector not in part.columns and f.text in part.columns]
        problems |= self._nulls(ready.batch, problems)
        ready = _sifted(ready, problems, rejects)
        ready = _sifted(ready, self._homeless(ready.batch), rejects)  # before a text is sent anywhere
        for filler in fillers:
            ready = _sifted(ready, self._fill(filler, ready.batch), rejects)
        if ready.batch.n:
            if self._centroids is not None:
                put_into_cells(self._table, self._centroids, ready.batch)
            yield ready

    def _column(self, name: str) -> Column:
        column = self._table.column(name)
        assert column is not None
        return column

    def _unknown(self, part: Part) -> Problem | None:
        """What is wrong with the columns of rows that say themselves which they have."""
        try:
            check_columns(tuple(part.columns), self._table, {f.vector for f in self._fillers if f.text in part.columns})
        except BadInput as error:
            return "bad_row", error.message
        return None

    def _nulls(self, batch: Batch, problems: Problems) -> Problems:
        found: Problems = {}
        for name, values in batch.columns.items():
            if isinstance(values, np.ndarray) or not self._must(name):
                continue
            for i, value in enumerate(values):
                if value is None and i not in problems:
                    found[i] = ("bad_row", f"column {name} must not be NULL")
        return found

    def _must(self, name: str) -> bool:
        return self._column(name).not_null or name in self._table.primary_key

    def _fill(self, filler: Filler, batch: Batch) -> Problems:
        texts = batch.columns[filler.text]
        present = [i for i, t in enumerate(texts) if t is not None and not str(t).isspace() and str(t)]
        made: dict[int, Any] = {}
        problems: Problems = {}
        for model, rows in filler.models(batch.columns, batch.n) if present else ():
            mine = set(rows.tolist()).intersection(present)
            vectors, wrong = _embedded(model, [(i, str(texts[i])) for i in sorted(mine)])
            made, problems = made | vectors, problems | wrong
        if len(made) == batch.n:
            batch.columns[filler.vector] = np.stack([made[i] for i in range(batch.n)]) if batch.n else []
        else:
            batch.columns[filler.vector] = [made.get(i) for i in range(batch.n)]
            if self._must(filler.vector):
                reason = ("bad_row", f"column {filler.text} has no text to compute {filler.vector} from")
                problems = {i: reason for i in range(batch.n) if i not in made} | problems
        _, wrong = convert(self._column(filler.vector), batch.columns[filler.vector], json_values=False)
        return problems | wrong

    def _homeless(self, batch: Batch) -> Problems:
        columns = self._table.partition_columns
        if any(c not in batch.columns for c in columns):
            return {}  # an identity column, drawn when the rows are written
        try:
            self._router.route_many(batch.columns)
        except BadRow:
            pass
        else:
            return {}
        found: Problems = {}
        for i, key in enumerate(zip(*(batch.columns[c] for c in columns), strict=True)):
            try:
                self._router.route(dict(zip(columns, key, strict=True)))
            except BadRow as error:
                found[i] = (error.code, error.message)
        return found


def check_columns(names: Sequence[str], table: Table, filled: set[str]) -> None:
    """BadInput when rows with these columns can't be rows of the table; ``filled`` are vectors computed from texts."""
    known = "columns: " + ", ".join(c.name for c in table.columns)
    for name in names:
        column = table.column(name)
        if column is None:
            raise BadInput(f"table {table.name} has no column {name!r}", hint=known)
        if column.generated is not None:
            raise BadInput(f"column {name!r} of {table.name} is generated", hint="leave it out of the file")
    for column in table.columns:
        if column.name in names or column.name in filled or column.identity is not None:
            continue
        if table.cells is not None and column.name == table.cells.column:
            continue
        placed = table.cells is not None and column.name == table.cells.vector_column
        required = column.not_null or column.name in table.primary_key
        if (
            placed
            or column.name in table.partition_columns
            or (required and column.default is None and column.generated is None and "serial" not in column.type)
        ):
            raise BadInput(f"column {column.name} of {table.name} is missing", hint=known)


def _sifted(ready: ReadyPart, problems: Problems, rejects: list[Reject]) -> ReadyPart:
    if not problems:
        return ready
    rejects.extend(ready.reject(i, *problem) for i, problem in problems.items())
    good = np.array([i for i in range(ready.batch.n) if i not in problems], np.intp)
    batch = ready.batch.take(good) if len(good) else Batch(0, dict.fromkeys(ready.batch.columns, ()))
    return ReadyPart(ready.part, ready.rows[good], batch)


def _embedded(model: Embedder, texts: list[tuple[int, str]]) -> tuple[dict[int, Any], Problems]:
    """The vectors by row; texts that the model refuses are found by halving."""
    if not texts:
        return {}, {}
    try:
        return dict(zip((i for i, _ in texts), model.embed([t for _, t in texts]), strict=True)), {}
    except BadRow as error:
        if len(texts) == 1:
            return {}, {texts[0][0]: (error.code, error.message)}
    half = len(texts) // 2
    left, left_problems = _embedded(model, texts[:half])
    right, right_problems = _embedded(model, texts[half:])
    return left | right, left_problems | right_problems
