"""Distances between vectors: pgvector's operators, and which of them an index serves (pgvector 0.8, README)."""

from __future__ import annotations

from enum import StrEnum

from ..errors import BadInput
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


def default_metric(column: Column, indexes: tuple[Index, ...]) -> Metric:
    """The distance that the column's index serves; without one, cosine (Hamming for bit vectors)."""
    for index in indexes:
        metric = metric_of_opclass(index.opclass)
        if metric and index.columns[:1] == (column.name,):
            return metric
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
