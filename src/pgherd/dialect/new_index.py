"""A vector index that somebody asks for by column and type -> the Index that a schema file with it would say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import BadInput
from ..model.names import Name, derived_name, quote_ident
from ..model.schema import Column, Index, Schema, Table, VectorType
from ..model.vectors import MAX_INDEXED, Metric, quantized_sql
from .build import build
from .render import render
from .source import Source

_TYPES = {
    VectorType.VECTOR: (VectorType.VECTOR, VectorType.HALFVEC, VectorType.BIT),
    VectorType.HALFVEC: (VectorType.HALFVEC, VectorType.BIT),
    VectorType.SPARSEVEC: (VectorType.SPARSEVEC,),
    VectorType.BIT: (VectorType.BIT,),
}
"""What an index on a column of each type may hold."""


def new_index(
    schema: Schema,
    table: Table,
    column: Column,
    *,
    method: str = "hnsw",
    stored: VectorType | None = None,
    metric: Metric | None = None,
    options: Mapping[str, int] | None = None,
    name: str | None = None,
) -> Index:
    """The index; one that ``schema`` has already is given as it is there, whatever its name.

    ``stored`` None takes the column's own type, or the largest that has room for its dimensions. A name that nothing in
    ``schema`` has is chosen as PostgreSQL would. Raises BadInput and BadSchema for what there is not.
    """
    own, dimension = column.vector or (None, None)
    if own is None or dimension is None:
        raise BadInput(f"column {column.name!r} is {column.type}", hint="index a vector column of fixed dimension")
    if stored is None:
        stored = next((t for t in _TYPES[own] if dimension <= MAX_INDEXED.get(t, 16_000)), own)
    if stored not in _TYPES[own]:
        raise BadInput(f"no {stored} index on a {own} column", hint=f"types: {', '.join(_TYPES[own])}")
    element = _element(column, own, stored, dimension, metric)
    given = ", ".join(f"{k} = {v}" for k, v in (options or {}).items())
    index_name = name or _free_name(schema, table, column, stored)
    text = f"CREATE INDEX {quote_ident(index_name)} ON {table.name.sql} USING {method} ({element})"
    text += f" WITH ({given})" if given else ""
    # Through the parser, so that a file that says the same later finds nothing to do.
    alone = Schema(items=(Table(Name("public", table.name.name), (column,)),))
    source = Source("index create", render(alone) + text.replace(table.name.sql, alone.tables[0].name.sql, 1))
    (index,) = build(source).indexes
    index = replace(index, name=Name(table.name.schema, index.name.name), table=table.name)
    if name is None:
        for there in schema.indexes:
            if replace(there, name=index.name) == index:
                return there
    return index


def _element(column: Column, own: VectorType, stored: VectorType, dimension: int, metric: Metric | None) -> str:
    text = quote_ident(column.name)
    if metric is None:
        metric = Metric.HAMMING if own is VectorType.BIT else Metric.COSINE
    if stored is own:
        return f"{text} {stored}_{metric}_ops"
    if stored is VectorType.BIT:
        if metric is not Metric.COSINE:
            raise BadInput(f"a bit index can't stand for {metric} distance", hint="signs tell of angles: metric cosine")
        metric = Metric.HAMMING
    return f"{quantized_sql(text, stored, dimension)} {stored}_{metric}_ops"


def _free_name(schema: Schema, table: Table, column: Column, stored: VectorType) -> str:
    """``table_column_idx``, or ``table_column_halfvec_idx`` for values made smaller; numbered until it is free."""
    smaller = column.vector is not None and stored is not column.vector[0]
    base = "_".join((table.name.name, column.name, *([stored] if smaller else [])))
    taken = {i.name for i in schema.indexes} | {t.name for t in schema.tables}
    number = 0
    while Name(table.name.schema, found := derived_name(base, f"_idx{number or ''}")) in taken:
        number += 1
    return found
