"""From a round's history to its figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from .checker import Anomaly, Violation, check, torn
from .history import Kind, Op, Outcome


@dataclass(frozen=True, slots=True)
class Round:
    """One round. ``rto_s`` is the longest time without an acknowledged write from the break on, ``usual_s`` before it.

    ``acknowledged`` counts writes, of 1 + ``rows_each`` rows. ``lost`` counts those that are gone, or of which a part
    is, or elsewhere, ``two_primaries`` writes acknowledged by a primary that another had followed already,
    ``stale_reads`` reads at the primary that lacked what was acknowledged before.
    ``redundant_again_s`` counts from the break, or, where machines had to be given back, from then on.
    """

    rto_s: float
    usual_s: float
    acknowledged: int
    unknown: int
    lost: int
    two_primaries: int
    reads: int
    reads_refused: int
    stale_reads: int
    redundant_again_s: float
    hit: tuple[str, ...]
    violations: tuple[Violation, ...]
    rows_each: int = 0

    @property
    def rows(self) -> int:
        """Rows acknowledged."""
        return self.acknowledged * (1 + self.rows_each)

    @property
    def kept(self) -> bool:
        """Whether all promises were kept: nothing lost, doubled or reordered, never two primaries."""
        return all(v.anomaly is Anomaly.STALE for v in self.violations)

    def as_json(self) -> dict[str, Any]:
        """The stable keys of a round, and more."""
        return {
            "rto_s": round(self.rto_s, 3),
            "acknowledged": self.acknowledged,
            "rows": self.rows,
            "lost": self.lost,
            "two_primaries": self.two_primaries,
            "redundant_again_s": round(self.redundant_again_s, 3),
            "usual_s": round(self.usual_s, 3),
            "unknown": self.unknown,
            "reads": self.reads,
            "reads_refused": self.reads_refused,
            "stale_reads": self.stale_reads,
            "hit": list(self.hit),
            "violations": [{"anomaly": v.anomaly.value, "key": v.key, "detail": v.detail} for v in self.violations],
        }


def longest_gap_s(history: Sequence[Op], from_s: float, to_s: float) -> float:
    """The longest time in which no write was acknowledged, counted from the last one before ``from_s``."""
    times = sorted(op.ended_s for op in history if op.kind is Kind.APPEND and op.outcome is Outcome.OK)
    before = [t for t in times if t <= from_s]
    points = [before[-1] if before else from_s, *(t for t in times if from_s < t <= to_s), to_s]
    return max(b - a for a, b in pairwise(points))


def measure(
    history: Sequence[Op],
    final: Mapping[int, Sequence[int]],
    *,
    broken_s: float,
    ended_s: float,
    redundant_again_s: float,
    reads_refused: int,
    hit: Sequence[str],
    rows: Mapping[int, int],
    rows_each: int,
) -> Round:
    """The figures of a round whose break began at ``broken_s`` and whose clients worked until ``ended_s``.

    ``rows`` are those there are of each append, by its value, of ``rows_each``.
    """
    violations = (*check(history, final), *torn(final, rows, rows_each))
    appends = [op for op in history if op.kind is Kind.APPEND]
    gone = (Anomaly.LOST, Anomaly.REORDERED, Anomaly.VANISHED, Anomaly.TORN)
    return Round(
        rto_s=longest_gap_s(history, broken_s, ended_s),
        usual_s=longest_gap_s(history, min((op.began_s for op in appends), default=0.0), broken_s),
        acknowledged=sum(op.outcome is Outcome.OK for op in appends),
        unknown=sum(op.outcome is Outcome.UNKNOWN for op in appends),
        lost=len({(v.key, v.value) for v in violations if v.anomaly in gone}),
        two_primaries=sum(v.anomaly is Anomaly.TWO_PRIMARIES for v in violations),
        reads=sum(op.kind is Kind.READ for op in history),
        reads_refused=reads_refused,
        stale_reads=sum(v.anomaly is Anomaly.STALE for v in violations),
        redundant_again_s=redundant_again_s,
        hit=tuple(hit),
        violations=violations,
        rows_each=rows_each,
    )


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Least, median and most of the rounds' RTO, and what was lost in all."""
    times = [r.rto_s for r in rounds]
    return {
        "rto_s": {"min": round(min(times), 3), "median": round(median(times), 3), "max": round(max(times), 3)},
        "lost": sum(r.lost for r in rounds),
        "two_primaries": sum(r.two_primaries for r in rounds),
        "kept": all(r.kept for r in rounds),
    }
