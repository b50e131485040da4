"""What is asked: a search, checked against its table, before any server is talked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import sql

from ..engines.wire import encode
from ..errors import BadInput, DimensionMismatch
from ..model.schema import Column, Table, VectorType
from ..model.topology import Topology
from ..model.vectors import Metric, check_metric, default_metric
from ..rows.where import Condition, condition_of

MAX_K = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page of hits ended: its last distance and the keys of all hits at exactly that distance."""

    distance: float
    keys: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A search that can be carried out. ``vector`` is what is bound to the statement's ``q`` parameter."""

    table: Table
    column: Column
    metric: Metric
    vector: Any
    k: int
    condition: Condition
    columns: tuple[str, ...]
    exact: bool
    max_distance: float | None
    after: Page | None
    ef_search: int


def request_of(
    topology: Topology,
    table: Table,
    vector: Any,
    *,
    k: int,
    column: Column,
    where: Mapping[str, Any] | str | None = None,
    params: Mapping[str, Any] | None = None,
    min_similarity: float | None = None,
    after: Page | None = None,
    exact: bool = False,
    columns: Sequence[str] | None = None,
    metric: str | None = None,
    ef_search: int | None = None,
) -> Request:
    """Check a search against ``table``. Raises BadInput, DimensionMismatch."""
    if not 1 <= k <= MAX_K:
        raise BadInput(f"k is {k}", hint=f"ask for 1 to {MAX_K} rows; page with after= for more")
    if ef_search is not None and not 1 <= ef_search <= 1000:
        raise BadInput(f"ef_search is {ef_search}", hint="pgvector takes 1 to 1000")
    try:
        distance = Metric(metric) if metric else default_metric(column, topology.indexes(table))
    except ValueError as error:
        raise BadInput(f"{metric!r} is not a distance", hint="one of: " + ", ".join(Metric)) from error
    check_metric(distance, column)
    if after is not None and not table.primary_key:
        raise BadInput(f"paging needs a primary key, and {table.name} has none", hint="ask for a larger k")
    dim = column.vector[1] if column.vector else None
    return Request(
        table,
        column,
        distance,
        _bindable(vector, column),
        k,
        condition_of(where, params, table),
        _wanted(columns, table),
        exact,
        None if min_similarity is None else distance.max_distance(min_similarity, dim),
        after,
        ef_search or min(1000, max(40, k)),
    )


def vector_column(table: Table, name: str | None) -> Column:
    """The vector column named, or the table's only one. Raises BadInput."""
    columns = table.vector_columns
    if name is None and len(columns) == 1:
        return columns[0]
    known = ", ".join(c.name for c in columns) or "none"
    found = next((c for c in columns if c.name == name), None)
    if found is None:
        what = f"has no vector column {name!r}" if name else f"has {len(columns)} vector columns"
        raise BadInput(f"table {table.name} {what}", hint=f"vector columns: {known}")
    return found


def _wanted(columns: Sequence[str] | None, table: Table) -> tuple[str, ...]:
    if columns is None:
        return tuple(c.name for c in table.columns if not c.vector)
    for name in columns:
        if table.column(name) is None:
            known = ", ".join(c.name for c in table.columns)
            raise BadInput(f"table {table.name} has no column {name!r}", hint=f"columns: {known}")
    return tuple(columns)


def _bindable(vector: Any, column: Column) -> Any:
    assert column.vector is not None
    kind, dim = column.vector
    if kind in (VectorType.SPARSEVEC, VectorType.BIT):
        if kind is VectorType.BIT and isinstance(vector, (list, np.ndarray)):
            vector = "".join("1" if x else "0" for x in vector)
        return vector if isinstance(vector, str) or not hasattr(vector, "to_text") else vector.to_text()
    try:
        array = np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise BadInput("the question is not a vector", hint="give a list of numbers, or a text") from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise BadInput("the question is not one vector of finite numbers", hint="check the embedding model's output")
    if dim is not None and len(array) != dim:
        raise DimensionMismatch(
            f"the question has {len(array)} dimensions, column {column.name!r} {dim}",
            hint="embed the question with the model that filled the column",
        )
    return encode(array[None, :], kind)[0]


def parameters_of(request: Request) -> dict[str, Any]:
    """The values of the statement's parameters."""
    values = {**request.condition.parameters, "pgherd_q": request.vector}
    if request.after is not None:
        values["pgherd_after"] = request.after.distance
        for i, key in enumerate(request.after.keys):
            values |= {f"pgherd_seen_{i}_{j}": v for j, v in enumerate(key)}
    return values


def seen_condition(request: Request) -> sql.Composable:
    """Leave out the keys of the page before that have exactly its last distance."""
    assert request.after is not None
    columns = sql.SQL(", ").join(sql.Identifier(c) for c in request.table.primary_key)
    tuples = []
    for i, key in enumerate(request.after.keys):
        casts = [
            sql.SQL("{}::{}").format(sql.Placeholder(f"pgherd_seen_{i}_{j}"), sql.SQL(_type(request.table, c)))
            for j, c in enumerate(request.table.primary_key[: len(key)])
        ]
        tuples.append(sql.SQL("({})").format(sql.SQL(", ").join(casts)))
    return sql.SQL("({}) NOT IN ({})").format(columns, sql.SQL(", ").join(tuples))


def _type(table: Table, name: str) -> str:
    column = table.column(name)
    assert column is not None
    return column.type
