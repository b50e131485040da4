"""Hybrid search: the nearest vectors and the best matching texts of the whole herd, fused by reciprocal rank.

Both lists are the herd's own: each group gives the head of its part, the heads are merged, and ranks are counted only
then. So the result does not depend on how rows are spread. That is sound because neither number depends on other rows:
``ts_rank_cd`` is cover density, without document frequencies.
Source: Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods,
SIGIR 2009; PostgreSQL 18 manual, 12.3 Controlling Text Search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any

from ..errors import BadInput
from ..model.names import Name, quote_ident, quote_literal
from ..model.schema import Column, Index, Table
from ..routing.route import Router
from ..rows.quoting import escaped
from ..rows.types import cast_type, reads_binary
from .effort import Via
from .hits import Hit
from .request import MAX_K, Request, request_of
from .statement import MAX_TEXTS, Shape, Statement, distance_sql, source_sql
from .words import Document, Words, document_of

K0 = 60
"""The constant of reciprocal rank fusion, as in the paper: how little the first ranks stand out."""
MIN_DEPTH = 100
NEAR, MATCHING = 0, 1
_ORDERED_ALIKE = frozenset({"smallint", "integer", "bigint", "boolean", "uuid", "date"})
"""Types whose values Python orders as PostgreSQL does; all others are ordered as text, by code point."""


def hybrid_request_of(
    table: Table,
    indexes: tuple[Index, ...],
    router: Router,
    vector: Any,
    words: str,
    *,
    k: int,
    column: Column,
    text_column: str | None = None,
    text_config: str | None = None,
    **options: Any,
) -> Request:
    """Check a hybrid search against ``table``; other options as for ``request_of``. Raises BadInput."""
    if not table.primary_key:
        raise BadInput(f"table {table.name} has no primary key", hint="a hybrid search tells rows apart by it")
    for name in ("after", "min_similarity"):
        if options.get(name) is not None:
            raise BadInput(f"{name} means nothing to a hybrid search", hint="its order is by rank, not by distance")
    if not words.strip():
        raise BadInput("a hybrid search needs words", hint="ask in words, or give them as hybrid='…' with a vector")
    document = document_of(table, indexes, column, text_column, text_config)
    request = request_of(table, indexes, router, vector, k=k, column=column, **options)
    depth = min(MAX_K, max(MIN_DEPTH, 4 * k))
    form = request.form._replace(shape=request.form.shape._replace(k=depth))
    return request._replace(form=form, k=depth, words=Words(words, document, k))


@lru_cache(maxsize=MAX_TEXTS)
def hybrid_statement_of(
    shape: Shape, document: Document, relations: tuple[Name, ...], exact: bool, via: Via | None = None
) -> Statement:
    """SELECT list, value to order by, distance, number of the shard, columns wanted, key: both lists in one statement.

    ``shape.k`` is the depth of each list. Parameters: ``pgherd_q``, ``pgherd_words`` and the condition's.
    """
    near = [_near(shape, relation, number, exact, via) for number, relation in enumerate(relations)]
    matching = [_matching(shape, document, relation, number) for number, relation in enumerate(relations)]
    text = f"({_best(shape, near)}) UNION ALL ({_best(shape, matching)})"
    binary = all(reads_binary(t) for _, t in (*shape.columns, *shape.key))
    return Statement(text.encode(), binary)


def _best(shape: Shape, selects: Sequence[str]) -> str:
    if len(selects) == 1:
        return selects[0]
    union = " UNION ALL ".join(f"({s})" for s in selects)
    return f"SELECT * FROM ({union}) gathered ORDER BY {_order(shape, 'pgherd_value')} LIMIT {shape.k}"


def _near(shape: Shape, relation: Name, number: int, exact: bool, via: Via | None) -> str:
    distance = distance_sql(shape)
    conditions = [shape.condition] if shape.condition else []
    # The index gives the order only to the bare operator; an exact scan can break ties by key as well.
    order = ", ".join([f"{distance} + 0", *_keys(shape)]) if exact or via else distance
    source = source_sql(shape, relation, conditions, None if exact else via)
    return _select(shape, NEAR, distance, number, source, order)


def _matching(shape: Shape, document: Document, relation: Name, number: int) -> str:
    query = f"websearch_to_tsquery({escaped(quote_literal(document.config))}, %(pgherd_words)s)"
    text = escaped(document.expression)
    value = f"-ts_rank_cd({text}, {query})::float8"
    conditions = [f"{text} @@ {query}", *([shape.condition] if shape.condition else [])]
    where = " AND ".join(conditions)
    source = f"{escaped(relation.sql)} AS {escaped(quote_ident(shape.alias))} WHERE {where}"
    return _select(shape, MATCHING, value, number, source, _order(shape, value))


def _select(shape: Shape, which: int, value: str, number: int, source: str, order: str) -> str:
    columns = "".join(", " + escaped(quote_ident(n)) for n, _ in shape.columns)
    keys = "".join(f", {key} AS pgherd_key_{i}" for i, key in enumerate(_keys(shape)))
    return (
        f"SELECT {which}::int2, {value} AS pgherd_value, {distance_sql(shape)}, {number}::int2{columns}{keys}"
        f" FROM {source} ORDER BY {order} LIMIT {shape.k}"
    )


def _keys(shape: Shape) -> list[str]:
    """The key's columns in a form that this program and every server order alike, whatever their collations."""
    return [
        escaped(quote_ident(name)) + ("" if cast_type(kind) in _ORDERED_ALIKE else '::text COLLATE "C"')
        for name, kind in shape.key
    ]


def _order(shape: Shape, value: str) -> str:
    """By value and then by key: by the expressions themselves, or by their names once they have some."""
    named = [f"pgherd_key_{i}" for i in range(len(shape.key))]
    return ", ".join([value, *(named if value == "pgherd_value" else _keys(shape))])


def hits_of(
    rows: Iterable[tuple[Any, ...]], columns: Sequence[str], shards: Sequence[str], home: str
) -> tuple[list[Hit], list[Hit]]:
    """A group's answer as its two lists, nearest and best matching; ``score`` holds the value each is ordered by."""
    lists: tuple[list[Hit], list[Hit]] = ([], [])
    for which, value, distance, number, *rest in rows:
        if value == value:  # not NaN: a vector of zeros is at no cosine distance from anything
            row = dict(zip(columns, rest[: len(columns)], strict=True))
            far = float("nan") if distance is None else distance
            lists[which].append(Hit(far, row, shards[number], home, tuple(rest[len(columns) :]), value))
    return lists


def fuse(parts: Sequence[tuple[list[Hit], list[Hit]]], depth: int, k: int) -> list[Hit]:
    """The k best of two lists in parts, each list the herd's first ``depth``: score is the sum of 1 / (60 + rank).

    ``parts`` are (nearest, matching) of each group, hits with the value they are ordered by as ``score``. Ties of any
    kind go by key, so the same rows always give the same answer.
    """
    scores: dict[tuple[Any, ...], float] = {}
    found: dict[tuple[Any, ...], Hit] = {}
    for which in (NEAR, MATCHING):
        ordered = sorted((h for part in parts for h in part[which]), key=lambda h: (h.score or 0.0, h.key))
        for rank, hit in enumerate(islice(ordered, depth), start=1):
            scores[hit.key] = scores.get(hit.key, 0.0) + 1 / (K0 + rank)
            found.setdefault(hit.key, hit)
    best = sorted(found, key=lambda key: (-scores[key], key))[:k]
    return [replace(found[key], score=scores[key]) for key in best]
