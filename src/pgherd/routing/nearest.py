"""Which cell a vector belongs to: the one whose centroid is nearest. And how far each shard's nearest centroid is.

Rows that are near each other are then in one shard, so that a search need ask few of them: the shards whose nearest
centroid is not much farther from the question than the nearest of all. (The coarse quantizer of an inverted file, with
shards in the place of its lists: Jégou, Douze, Schmid, Product Quantization for Nearest Neighbor Search, 2011.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ..model.schema import CELLS_PER_SHARD
from ..model.vectors import Metric

Vectors = NDArray[np.float32]
_BLOCK_ROWS = 8192
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Centroids:
    """The cells of a table: ``numbers`` (c,) ascending, and their centroids, ``vectors`` (c, dim) float32.

    Of the metric ``COSINE`` or ``L2``; for COSINE the centroids have length 1.
    """

    numbers: NDArray[np.int64]
    vectors: Vectors
    metric: Metric

    def cells(self, vectors: Vectors) -> NDArray[np.int64]:
        """The cell of each of (n, dim) vectors; (n,)."""
        found = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = vectors[start : start + _BLOCK_ROWS]
            found[start : start + _BLOCK_ROWS] = self.numbers[self._closeness(block).argmax(axis=1)]
        return found

    def gaps(self, vectors: Vectors) -> Vectors:
        """By how much each shard's nearest centroid is farther from (n, dim) vectors than the nearest; (n, shards).

        Shards in order of their cells, see ``shards``. A difference of distances: of cosine distances, or Euclidean.
        """
        closeness = np.maximum.reduceat(self._closeness(vectors), self._starts, axis=1)
        squares = np.einsum("ij,ij->i", vectors, vectors)[:, None]
        if self.metric is Metric.COSINE:
            far = closeness / -np.sqrt(np.maximum(squares, _TINY))
        else:
            far = np.sqrt(np.maximum(squares - 2 * closeness, 0))
        gaps: Vectors = far - far.min(axis=1, keepdims=True)
        return gaps

    def within(self, question: Vectors, gap: float) -> tuple[int, ...]:
        """The shards that ``gaps`` finds no farther than ``gap`` for one question, (dim,): their numbers, ascending."""
        closeness = np.maximum.reduceat(self._closeness(question), self._starts).tolist()
        square = float(np.vdot(question, question))
        best = max(closeness)
        if self.metric is Metric.COSINE:
            least = best - gap * sqrt(square)
        else:
            least = (square - (sqrt(max(square - 2 * best, 0)) + gap) ** 2) / 2
        return tuple([n for n, c in zip(self.shards, closeness) if c >= least or c == best])  # noqa: B905  # faster

    @cached_property
    def shards(self) -> tuple[int, ...]:
        """The numbers of the shards that have cells, ascending: cell // CELLS_PER_SHARD."""
        return tuple(int(n) for n in np.unique(self.numbers // CELLS_PER_SHARD))

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        return np.unique(self.numbers // CELLS_PER_SHARD, return_index=True)[1]

    @cached_property
    def _halves(self) -> Vectors:
        halves: Vectors = np.einsum("ij,ij->i", self.vectors, self.vectors) / 2
        return halves

    def _closeness(self, vectors: Vectors) -> Vectors:
        """(n, cells), the larger the nearer: the inner product, less half the centroid's square where that counts.

        Of one vector, (dim,), it is (cells,).
        """
        products: Vectors = vectors @ self.vectors.T if vectors.ndim == 2 else self.vectors @ vectors
        return products if self.metric is Metric.COSINE else products - self._halves
