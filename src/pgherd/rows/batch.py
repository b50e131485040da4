"""Rows by column: whatever the caller has (dicts, arrow, pandas, polars), in one shape that routes and copies fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, BadRow, DimensionMismatch
from ..model.schema import Column, Table, VectorType

Values = Sequence[Any] | NDArray[Any]


@dataclass(slots=True)
class Batch:
    """``n`` rows by column; a dense vector column is an (n, dim) float32 array, or a list of (dim,) arrays and None."""

    n: int
    columns: dict[str, Values] = field(default_factory=dict)

    def take(self, indexes: NDArray[np.intp]) -> Batch:
        """The rows at ``indexes``."""
        if len(indexes) == self.n and (self.n == 0 or (indexes[0] == 0 and indexes[-1] == self.n - 1)):
            return self
        return Batch(len(indexes), {name: _take(values, indexes) for name, values in self.columns.items()})

    def slices(self, size: int) -> Iterator[Batch]:
        """The rows in order, at most ``size`` at a time."""
        if self.n <= size:
            yield self
            return
        for start in range(0, self.n, size):
            stop = min(self.n, start + size)
            yield Batch(stop - start, {name: values[start:stop] for name, values in self.columns.items()})

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """The rows as tuples in column order."""
        return zip(*self.columns.values(), strict=True)


def _take(values: Values, indexes: NDArray[np.intp]) -> Values:
    return values[indexes] if isinstance(values, np.ndarray) else [values[i] for i in indexes.tolist()]


def batches_of(rows: Any, table: Table) -> list[Batch]:
    """``rows`` as batches: one for each set of columns that occurs, since a column left out takes its default.

    Accepts one dict, an iterable of dicts, or a pyarrow, pandas or polars table. Raises BadInput, BadRow for an unknown
    or generated column, DimensionMismatch or BadRow for a bad vector; row numbers count from 0.
    """
    found = [Batch(n, columns) for columns, n in _column_sets(rows, table)]
    for batch in found:
        _check_columns(batch, table)
        for name in batch.columns:
            column = table.column(name)
            if column is not None and column.vector:
                batch.columns[name] = vectors(batch.columns[name], column)
    return [b for b in found if b.n]


def _column_sets(rows: Any, table: Table) -> list[tuple[dict[str, Values], int]]:
    if isinstance(rows, Mapping):
        rows = [rows]
    if hasattr(rows, "to_arrow"):  # polars
        rows = rows.to_arrow()
    if hasattr(rows, "iloc") and hasattr(rows, "to_dict"):  # pandas
        return [({str(c): _pandas_values(rows[c]) for c in rows.columns}, len(rows))]
    if hasattr(rows, "column_names") and hasattr(rows, "num_rows"):  # pyarrow
        vectors_of = {c.name for c in table.vector_columns}
        return [({n: arrow_values(rows.column(n), n in vectors_of) for n in rows.column_names}, rows.num_rows)]
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
        raise BadInput(
            f"rows can't be read from {type(rows).__name__}", hint="give dicts, or an arrow/pandas/polars table"
        )
    sets: dict[tuple[str, ...], dict[str, list[Any]]] = {}
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise BadInput(f"row {i} is {type(row).__name__}, not a dict", hint="give dicts of column to value")
        key = tuple(row)
        known = sets.get(key)
        if known is None:
            known = sets[key] = {k: [] for k in key}
        for name, value in row.items():
            known[name].append(value)
    return [(dict(columns), len(next(iter(columns.values()), []))) for columns in sets.values()]


def _pandas_values(series: Any) -> list[Any]:
    missing = series.isna() if series.dtype != object else series.map(lambda v: v is None)
    return [None if gone else value for value, gone in zip(series.tolist(), missing.tolist(), strict=True)]


def arrow_values(column: Any, vector: bool) -> Values:
    """An arrow column as Python values, or as an array where it has numbers and no NULLs.

    ``vector``: lists of floats become an (n, dim) float32 array, or where some are NULL or differ in length a list of
    (dim,) arrays and None.
    """
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    kind = column.type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if vector and is_list and pa.types.is_floating(kind.value_type):
        return _arrow_vectors(column)
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and column.null_count == 0:
        return _numbers(column)
    values: list[Any] = column.to_pylist()
    return values


def _arrow_vectors(column: Any) -> Values:
    n = len(column)
    if n and column.null_count == 0:
        size = getattr(column.type, "list_size", 0)
        ends = np.arange(column.offset, column.offset + n + 1) * size if size else _numbers(column.offsets)
        if (np.diff(ends) == ends[1] - ends[0]).all():
            start, stop = int(ends[0]), int(ends[-1])
            return _floats(column.values.slice(start, stop - start)).reshape(n, (stop - start) // n)
    flat = _floats(column.flatten())  # without what lies under NULLs
    lengths = _numbers(column.value_lengths().fill_null(0))
    stops = np.cumsum(lengths).tolist()
    valid = column.is_valid().to_pylist()
    return [flat[stop - n : stop] if ok else None for stop, n, ok in zip(stops, lengths.tolist(), valid, strict=True)]


def _floats(values: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = _numbers(values).astype(np.float32, copy=False)
    return found


def _numbers(values: Any) -> NDArray[Any]:
    # pyarrow's own to_numpy imports pandas, which takes longer than reading many a file
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False) if values.null_count else np.from_dlpack(values)
    return found


def _check_columns(batch: Batch, table: Table) -> None:
    for name in batch.columns:
        column = table.column(name)
        if column is None:
            known = ", ".join(c.name for c in table.columns)
            raise BadRow(f"table {table.name} has no column {name!r}", hint=f"columns: {known}")
        if column.generated is not None:
            raise BadRow(f"column {name!r} of {table.name} is generated", hint="leave it out of the rows")


def vectors(values: Values, column: Column) -> Values:
    """Check a vector column's values and bring dense ones into arrays of the column's dimension."""
    kind = column.vector
    assert kind is not None
    if kind[0] in (VectorType.SPARSEVEC, VectorType.BIT):
        return values
    dim = kind[1]
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype != object:
        return _checked(values.astype(np.float32, copy=False), dim, column.name)
    parsed = [_one_vector(v, i, column.name) for i, v in enumerate(values)]
    present = [(i, v) for i, v in enumerate(parsed) if v is not None]
    for i, v in present:
        if dim is not None and len(v) != dim:
            raise DimensionMismatch(
                f"row {i}: {column.name!r} has {len(v)} dimensions, the column {dim}",
                hint="use the embedding model that the column was made for",
            )
    if present and len(present) == len(parsed) and len({len(v) for _, v in present}) == 1:
        return _checked(np.stack([v for _, v in present]), dim, column.name)
    for i, v in present:
        if not np.isfinite(v).all():
            raise BadRow(f"row {i}: {column.name!r} holds NaN or infinity", hint="compute the vector again")
    return parsed


def _one_vector(value: Any, row: int, column: str) -> NDArray[np.float32] | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = [float(x) for x in value.strip().removeprefix("[").removesuffix("]").split(",")]
        elif hasattr(value, "to_numpy"):
            value = value.to_numpy()
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        hint = "give a list of numbers, a numpy array, or '[1, 2, …]'"
        raise BadRow(f"row {row}: {column!r} is not a vector", hint=hint) from error
    if array.ndim != 1:
        raise BadRow(f"row {row}: {column!r} is not a vector", hint="give one list of numbers a row")
    return array


def all_finite(array: NDArray[Any]) -> bool:
    """Whether no number is NaN or infinity: one of them would stay in the sum, and a sum is quick and takes no room."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def _checked(array: NDArray[np.float32], dim: int | None, column: str) -> NDArray[np.float32]:
    if dim is not None and array.shape[1] != dim:
        raise DimensionMismatch(
            f"{column!r} has {array.shape[1]} dimensions, the column {dim}",
            hint="use the embedding model that the column was made for",
        )
    if not all_finite(array):
        row = int(np.argmax(~np.isfinite(array).all(axis=1)))
        raise BadRow(f"row {row}: {column!r} holds NaN or infinity", hint="compute the vector again")
    return array
