"""Distances between vectors: pgvector's operators, and which of them an index serves (pgvector 0.8, README)."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from ..errors import BadInput
from .names import quote_ident
from .schema import Column, Index, VectorType


class Metric(StrEnum):
    """A distance; smaller is nearer for all of them (inner product is negated by pgvector)."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "ip"
    L1 = "l1"
    HAMMING = "hamming"
    JACCARD = "jaccard"

    @property
    def operator(self) -> str:
        """pgvector's operator."""
        return _OPERATORS[self]

    def max_distance(self, min_similarity: float, dim: int | None) -> float:
        """The largest distance whose similarity is at least ``min_similarity``.

        Similarity is 1 - distance for cosine and Jaccard, 1 - distance / bits for Hamming, the inner product itself,
        and 1 / (1 + distance) for L2 and L1.
        """
        match self:
            case Metric.COSINE | Metric.JACCARD:
                return 1.0 - min_similarity
            case Metric.HAMMING:
                if not dim:
                    raise BadInput("min_similarity with Hamming distance needs a bit column of fixed length")
                return (1.0 - min_similarity) * dim
            case Metric.INNER_PRODUCT:
                return -min_similarity
            case _:
                if min_similarity <= 0:
                    return float("inf")
                return 1.0 / min_similarity - 1.0


_OPERATORS = {
    Metric.COSINE: "<=>",
    Metric.L2: "<->",
    Metric.INNER_PRODUCT: "<#>",
    Metric.L1: "<+>",
    Metric.HAMMING: "<~>",
    Metric.JACCARD: "<%>",
}
_BIT = frozenset({Metric.HAMMING, Metric.JACCARD})


def metric_of_opclass(opclass: str | None) -> Metric | None:
    """The distance an operator class such as ``halfvec_cosine_ops`` orders by, None if it is not pgvector's."""
    words = (opclass or "").rsplit(".", 1)[-1].split("_")
    try:
        return Metric(words[1]) if len(words) == 3 and words[2] == "ops" and words[0] in set(VectorType) else None
    except ValueError:
        return None


class Served(NamedTuple):
    """What a vector index answers: searches of a column by ``metric``; ``stored`` is the type its entries have."""

    stored: VectorType
    metric: Metric


MAX_INDEXED = {VectorType.VECTOR: 2000, VectorType.HALFVEC: 4000, VectorType.BIT: 64_000}
"""Dimensions that an index takes, by the type of its entries (pgvector 0.8, README)."""
_CAST = re.compile(r"\(CAST\((?P<column>.+) AS (?:public\.)?halfvec\((?P<dim>\d+)\)\)\)")
_SIGNS = re.compile(
    r"\(CAST\((?:public\.)?binary_quantize\((?P<column>.+)\) AS (?:pg_catalog\.)?bit\((?P<dim>\d+)\)\)\)"
)


def served_by(index: Index, column: Column) -> Served | None:
    """What ``index`` answers about a vector column; None where it is about something else.

    Beside the column itself an index may hold its values as halfvec, or their signs as bits (``binary_quantize``),
    whose Hamming distance stands for the cosine distance. Rows found by either are ranked by the column itself.
    """
    kind = column.vector
    metric = metric_of_opclass(index.opclass)
    if kind is None or metric is None or index.method not in ("hnsw", "ivfflat"):
        return None
    if index.columns:
        return Served(kind[0], metric) if index.columns[0] == column.name else None
    found = quantized(index)
    if found is None or found[:2] != (quote_ident(column.name), kind[1]):
        return None
    return Served(found[2], Metric.COSINE if found[2] is VectorType.BIT else metric)


@lru_cache(maxsize=1024)
def quantized(index: Index) -> tuple[str, int, VectorType] | None:
    """(column as SQL, dimensions, type) of an index over values made smaller; None for any other."""
    if index.columns or len(index.elements) != 1:
        return None
    element = index.elements[0]
    for pattern, stored in ((_CAST, VectorType.HALFVEC), (_SIGNS, VectorType.BIT)):
        if match := pattern.match(element):
            return match["column"], int(match["dim"]), stored
    return None


def quantized_sql(value: str, stored: VectorType, dim: int) -> str:
    """``value`` (SQL of a vector or halfvec) as an index of that type holds it."""
    return f"({value}::halfvec({dim}))" if stored is VectorType.HALFVEC else f"(binary_quantize({value})::bit({dim}))"


def default_metric(column: Column, indexes: tuple[Index, ...]) -> Metric:
    """The distance that the column's index serves; without one, cosine (Hamming for bit vectors)."""
    for index in indexes:
        if served := served_by(index, column):
            return served.metric
    kind = column.vector
    return Metric.HAMMING if kind and kind[0] is VectorType.BIT else Metric.COSINE


def check_metric(metric: Metric, column: Column) -> None:
    """BadInput when the column's type has no such distance."""
    kind = column.vector
    if kind is None:
        raise BadInput(f"column {column.name!r} is {column.type}, not a vector", hint="name a vector column")
    if (kind[0] is VectorType.BIT) != (metric in _BIT):
        allowed = ", ".join(m for m in Metric if (m in _BIT) == (kind[0] is VectorType.BIT))
        raise BadInput(f"{kind[0]} has no {metric} distance", hint=f"use one of: {allowed}")
