"""The statement one group gets: each of its shards ordered by distance and limited, then the best of all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ..model.names import Name, quote_ident
from ..model.schema import Table, VectorType
from ..model.vectors import Metric, quantized_sql
from ..rows.quoting import escaped
from ..rows.trail import noted
from ..rows.types import cast_type, reads_binary
from .effort import Via

MAX_TEXTS = 2048


class Shape(NamedTuple):
    """All that a statement's text depends on, but for the shards and whether it is exact. Column types are SQL."""

    alias: str
    column: str
    column_type: str
    nullable: bool
    operator: str
    condition: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[tuple[str, str], ...]
    k: int
    paging: bool


class Statement(NamedTuple):
    """A statement, and whether its rows may come in binary: the driver must know the form of every column."""

    text: bytes
    binary: bool


def typed(table: Table, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Columns by name with their types."""
    return tuple((c.name, c.type) for c in map(table.column, names) if c is not None)


@lru_cache(maxsize=MAX_TEXTS)
def statement_of(shape: Shape, relations: tuple[Name, ...], exact: bool, via: Via | None = None) -> Statement:
    """SELECT distance, number of the shard, columns wanted, and the key unless it is among these.

    ``exact`` keeps the vector index out of it.

    Parameters: ``pgherd_q``, the condition's, and for paging ``pgherd_after`` and a ``pgherd_seen_N`` list per key
    column. The ORDER BY is the bare operator, which is the only form that pgvector's indexes serve (pgvector README,
    Querying). Always the same object for the same arguments, which is what the driver's own cache is fastest for.
    """
    binary = all(reads_binary(t) for _, t in (*shape.columns, *shape.key))
    parts = [_shard_select(shape, relation, number, exact, via) for number, relation in enumerate(relations)]
    if len(parts) == 1:
        return Statement(parts[0].encode(), binary)
    union = " UNION ALL ".join(f"({p})" for p in parts)
    return Statement(f"SELECT * FROM ({union}) gathered ORDER BY 1 LIMIT {shape.k}".encode(), binary)


@lru_cache(maxsize=MAX_TEXTS)
def noted_statement(statement: Statement, table: Name, tool: str, question: bool) -> Statement:
    """The same, and it leaves a line in the trail; the same object for the same arguments, too."""
    return Statement(noted(statement.text.decode(), tool, table, question=question).encode(), statement.binary)


def _shard_select(shape: Shape, relation: Name, number: int, exact: bool, via: Via | None) -> str:
    distance = distance_sql(shape)
    conditions = [shape.condition] if shape.condition else []
    if shape.paging:
        conditions += [f"{distance} >= %(pgherd_after)s", _not_seen(shape)]
    key = () if set(shape.key) <= set(shape.columns) else shape.key
    columns = "".join(", " + escaped(quote_ident(n)) for n, _ in (*shape.columns, *key))
    source = source_sql(shape, relation, conditions, None if exact else via)
    # Ranked outside, rows must not be taken in the order that the index scan claims to give.
    order = f"{distance} + 0" if exact or via else distance
    return f"SELECT {distance}, {number}::int2{columns} FROM {source} ORDER BY {order} LIMIT {shape.k}"


def source_sql(shape: Shape, relation: Name, conditions: Sequence[str], via: Via | None) -> str:
    """What a shard's nearest rows come from: FROM and WHERE.

    Where an index gives more than is wanted, in an order that is not quite right, they are ranked outside.
    """
    column, alias = escaped(quote_ident(shape.column)), escaped(quote_ident(shape.alias))
    if shape.nullable:
        # Rows without a vector are on no index; any other scan has to leave them out itself.
        conditions = [*conditions, f"{column} IS NOT NULL"]
    where = " WHERE " + " AND ".join(conditions) if conditions else ""
    source = f"{escaped(relation.sql)} AS {alias}{where}"
    if via is None:
        return source
    names = dict.fromkeys([shape.column, *(n for n, _ in (*shape.columns, *shape.key))])
    listed = ", ".join(escaped(quote_ident(n)) for n in names)
    order = _distance_by(shape, via.stored)
    return f"(SELECT {listed} FROM {source} ORDER BY {order} LIMIT {via.ranked}) AS {alias}"


def distance_sql(shape: Shape) -> str:
    """The distance of a row to the question."""
    return f"({escaped(quote_ident(shape.column))} {escaped(shape.operator)} {question_sql(shape)})"


def own_type(shape: Shape) -> VectorType:
    """The column's own type."""
    return next(t for t in VectorType if shape.column_type.partition("(")[0].rsplit(".", 1)[-1].strip() == t)


def _distance_by(shape: Shape, stored: VectorType) -> str:
    """The distance that an index with entries of that type orders by."""
    if own_type(shape) is stored:
        return distance_sql(shape)
    dim = int(shape.column_type.partition("(")[2].rstrip(")"))
    column = quantized_sql(quote_ident(shape.column), stored, dim)
    operator = Metric.HAMMING.operator if stored is VectorType.BIT else shape.operator
    question = quantized_sql(f"%(pgherd_q)s::{cast_type(shape.column_type)}", stored, dim)
    return f"({escaped(column)} {escaped(operator)} {question})"


def question_sql(shape: Shape) -> str:
    """The question as a value of the column's own type: a bit string of another length is an error, not a distance."""
    if shape.column_type.startswith((VectorType.SPARSEVEC, VectorType.BIT)):
        return f"%(pgherd_q)s::{escaped(cast_type(shape.column_type))}"
    return "%(pgherd_q)s"


def _not_seen(shape: Shape) -> str:
    """Leave out the rows of the page before that have exactly its last distance."""
    key = ", ".join(escaped(quote_ident(n)) for n, _ in shape.key)
    lists = ", ".join(f"%(pgherd_seen_{i})s::{escaped(cast_type(t))}[]" for i, (_, t) in enumerate(shape.key))
    return f"({key}) NOT IN (SELECT * FROM unnest({lists}))"
