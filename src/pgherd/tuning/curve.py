"""What was measured of one index, and what follows: the least effort that reaches a recall. Pure.

Guards the promise of ``search(recall=…)``: wherever something had to be assumed, more effort is taken, not less.
Recalls are lower bounds (mean minus one standard error); a dip at more effort counts for all less; between two points
the chord is used, which lies below recall's true course (it bends downwards over the logarithm of the effort); and a k
between two measured depths is taken as the deeper one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, log
from typing import Any, NamedTuple

from ..search.effort import ALL, MAX_SCAN_TUPLES

DEPTHS = (1, 3, 10, 30, 100)
"""Recall is known for the first so many rows."""
MAX_EFFORT = {"hnsw": 1000, "ivfflat": 32768}
"""The most pgvector takes: hnsw.ef_search, and ivfflat.probes (as many as there are lists)."""


class Choice(NamedTuple):
    """How to search an index. ``recall`` (None: unknown) and ``ms`` are what the curve expects of it."""

    effort: int
    exact: bool
    recall: float | None
    ms: float


@dataclass(frozen=True, slots=True)
class Point:
    """One effort: median milliseconds, and per depth the lower bound of recall; None where it can't be known.

    ``recall`` is the share of the shard's own nearest that is found; ``among`` of the whole table's, when all its
    shards are asked at this effort: each then needs to find fewer and nearer rows, and gets there with less.
    """

    effort: int
    ms: float
    recall: tuple[float | None, ...]
    among: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """What a table's shards find when those alone are asked whose nearest centroid is no more than ``gap`` farther from
    the question than the nearest of all: ``asked`` of them, on average.

    ``covered`` is per depth the recall if they read every row, ``among`` at the effort of each of the curve's points.
    """

    gap: float
    asked: float
    covered: tuple[float | None, ...]
    among: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """Recall and time over effort: ``ef_search`` for hnsw, probes for ivfflat; points in order of effort.

    ``reaches``, of a table that is shared out by cells, in order of their gaps.
    """

    method: str
    points: tuple[Point, ...]
    exact_ms: float
    depths: tuple[int, ...] = DEPTHS
    reaches: tuple[Reach, ...] = ()

    def effort_for(self, recall: float, k: int, *, promised: bool = True, within: float | None = None) -> Choice:
        """The cheapest way to find ``recall`` (0 to 1) of the ``k`` nearest: least effort, or reading every row.

        ``within``: of the k nearest of the whole table, with every shard asked that is within that gap of the nearest
        (``ALL``: every one). A k beyond the last depth takes effort in proportion. Where no effort is enough, every row
        is read; with ``promised`` False only if that takes no longer than the most effort does.
        """
        known = self._known(k, within)
        reached = _least(known, recall)
        if reached is not None:
            effort = max(ceil(reached * max(1.0, k / self.depths[-1])), self._floor(k))
            if effort <= MAX_EFFORT[self.method]:
                return self._cheaper(effort, k, within)
        most = MAX_EFFORT[self.method] if k > self.depths[-1] else self.points[-1].effort
        if promised or self.exact_ms <= self.ms_at(most):
            return Choice(most, True, 1.0, self.exact_ms)
        return self._cheaper(most, k, within)

    def recall_at(self, effort: int, k: int, *, within: float | None = None) -> float | None:
        """The lower bound of recall at an effort; None below the least one measured for that k, and beyond depths."""
        known = self._known(k, within)
        if not known or k > self.depths[-1] or effort < known[0][0]:
            return None
        for (low, below), (high, above) in pairwise(known):
            if low <= effort < high:
                return below + (above - below) * (log(effort) - log(low)) / (log(high) - log(low))
        return known[-1][1]

    def ms_at(self, effort: int) -> float:
        """Milliseconds at an effort, on a line through the points next to it."""
        for low, high in pairwise(self.points):
            if effort < high.effort:
                part = max(0.0, (effort - low.effort) / (high.effort - low.effort))
                return low.ms + (high.ms - low.ms) * part
        return self.points[-1].ms

    @property
    def max_scan(self) -> int:
        """How many rows a scan of the index can look at in the time that reading every row takes; hnsw only."""
        low, high = self.points[0], self.points[-1]
        each_ms = (high.ms - low.ms) / max(1, high.effort - low.effort)
        return int(min(self.exact_ms / each_ms, MAX_SCAN_TUPLES)) if each_ms > 0 else MAX_SCAN_TUPLES

    def as_json(self) -> dict[str, Any]:
        """As it is kept in the herd."""
        points = [
            {"effort": p.effort, "ms": round(p.ms, 4), "recall": list(p.recall), "among": list(p.among)}
            for p in self.points
        ]
        document = {
            "method": self.method, "depths": list(self.depths), "exact_ms": round(self.exact_ms, 4), "points": points
        }  # fmt: skip
        if self.reaches:
            document["reaches"] = [
                {"gap": r.gap, "asked": r.asked, "covered": list(r.covered), "among": [list(a) for a in r.among]}
                for r in self.reaches
            ]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Curve:
        """The inverse of :meth:`as_json`."""
        points = tuple(
            Point(p["effort"], p["ms"], tuple(p["recall"]), tuple(p.get("among", ()))) for p in document["points"]
        )
        reaches = tuple(
            Reach(r["gap"], r["asked"], tuple(r["covered"]), tuple(tuple(a) for a in r["among"]))
            for r in document.get("reaches", ())
        )
        return cls(document["method"], points, document["exact_ms"], tuple(document["depths"]), reaches)

    def covers(self, reach: Reach, recall: float, k: int) -> bool:
        """Whether the shards within reach hold that share of the k nearest."""
        covered = reach.covered[self._depth(k)]
        return covered is not None and covered >= recall

    def _depth(self, k: int) -> int:
        """Which of the depths stands for k."""
        return next((i for i, d in enumerate(self.depths) if d >= k), len(self.depths) - 1)

    def _known(self, k: int, within: float | None) -> list[tuple[int, float]]:
        """(effort, recall) at the depth that stands for k, never falling."""
        depth = self._depth(k)
        recalls = [(p.effort, r[depth]) for p, r in zip(self.points, self._recalls(within), strict=True)]
        known = [(effort, r) for effort, r in recalls if r is not None]
        least = 1.0
        for i in reversed(range(len(known))):
            least = min(least, known[i][1])
            known[i] = (known[i][0], least)
        return known

    def _recalls(self, within: float | None) -> list[tuple[float | None, ...]]:
        """Per point and depth; of a gap that was not measured, what a smaller one finds."""
        if within is None:
            return [p.recall for p in self.points]
        if within == ALL:
            return [p.among or p.recall for p in self.points]
        below = [r for r in self.reaches if r.gap <= within]
        return list(below[-1].among) if below else [p.recall for p in self.points]

    def _floor(self, k: int) -> int:
        """An hnsw scan holds ef_search candidates: fewer than k means starting over."""
        return min(k, MAX_EFFORT["hnsw"]) if self.method == "hnsw" else 1

    def _cheaper(self, effort: int, k: int, within: float | None) -> Choice:
        ms = self.ms_at(effort)
        if self.exact_ms <= ms:
            return Choice(effort, True, 1.0, self.exact_ms)
        return Choice(effort, False, self.recall_at(effort, k, within=within), ms)


def _least(known: list[tuple[int, float]], recall: float) -> int | None:
    """The least effort that reaches ``recall``, between points on a line over the logarithm of the effort."""
    for i, (effort, found) in enumerate(known):
        if found >= recall:
            if i == 0:
                return effort
            low, below = known[i - 1]
            part = (recall - below) / (found - below)
            return min(effort, ceil(exp(log(low) + (log(effort) - log(low)) * part) - 1e-9))
    return None


def lower_bound(recalls: Iterable[float]) -> float:
    """The mean of some questions' recalls, minus one standard error of it."""
    values = list(recalls)
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return float(max(0.0, mean - (variance / len(values)) ** 0.5))
