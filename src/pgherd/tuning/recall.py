"""What share of the true nearest some shards' answers hold. Pure: answers and truths are lists of distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..engines.wire import decode
from ..model.schema import Table, VectorType
from ..routing.nearest import Centroids
from ..search.homes import cell_number
from .curve import DEPTHS, Reach, lower_bound
from .indexes import IndexFacts
from .tasks import Task

EFFORTS = (10, 20, 40, 80, 160, 320, 640, 1000)
"""Values of hnsw.ef_search that are measured."""
ASKED = (1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 6, 8, 12, 16, 24, 32)
"""How many shards are asked on average at the gaps that are looked at, of a table that is shared out by cells."""


def efforts_of(facts: IndexFacts) -> tuple[int, ...]:
    """The efforts to measure: for ivfflat all powers of two up to its number of lists."""
    if facts.method == "hnsw":
        return EFFORTS
    lists = int(facts.parameters["lists"])
    return (*(2**i for i in range(lists.bit_length()) if 2**i < lists), lists)


def asked_at(facts: IndexFacts, effort: int) -> int:
    """Up to as many rows as a scan holds candidates, the first k of them are what a search for k gets."""
    return min(effort, DEPTHS[-1]) if facts.method == "hnsw" else DEPTHS[-1]


def recalls_of(
    truths: Sequence[Sequence[list[float]]], answers: Sequence[Sequence[list[float]]], asked: int
) -> tuple[float | None, ...]:
    """Per depth the lower bound of the recall of some shards' answers, merged; both are lists by shard and question."""
    nearest = [sorted(d for part in parts for d in part)[: DEPTHS[-1]] for parts in zip(*truths, strict=True)]
    found = [sorted(d for part in parts for d in part) for parts in zip(*answers, strict=True)]
    return tuple(
        round(lower_bound(recall_of(a, t, depth) for a, t in zip(found, nearest, strict=True)), 4)
        if depth <= asked
        else None
        for depth in DEPTHS
    )


def recall_of(answer: Sequence[float], truth: Sequence[float], depth: int) -> float:
    """The share of the ``depth`` nearest that an answer holds, by distance: rows at an equal distance are as good."""
    nearest = truth[:depth]
    if not nearest:
        return 1.0
    return min(1.0, sum(d <= nearest[-1] for d in answer[:depth]) / len(nearest))


def reaches_of(table: Table, tasks: Sequence[Task], centroids: Centroids) -> dict[VectorType, tuple[Reach, ...]]:
    """By type of index, what the shards within some gaps find together at equal effort; ``tasks``: of one subject."""
    subject, cells = tasks[0].subject, table.cells
    if cells is None or (subject.column.name, subject.metric) != (cells.vector_column, centroids.metric):
        return {}
    places = {number: i for i, number in enumerate(centroids.shards)}
    numbers = [places[n] for n in (cell_number(t.shard) for t in tasks) if n in places]
    if len(numbers) < max(2, len(tasks)):  # a shard without a centroid has rows that somebody else put there
        return {}
    gaps = centroids.gaps(decode(tasks[0].questions, subject.own))[:, numbers]
    others = np.sort(gaps, axis=1)[:, 1:]
    shares = [(asked - 1) / others.shape[1] for asked in ASKED if asked < len(tasks)]
    limits = [float(gap) for gap in np.unique(np.quantile(others, shares))]
    return {
        stored: tuple(_reach(tasks, stored, gaps, limit) for limit in limits)
        for stored in subject.stored
        if all(stored in t.facts for t in tasks)
    }


def _reach(tasks: Sequence[Task], stored: VectorType, gaps: NDArray[np.float32], limit: float) -> Reach:
    near = gaps <= limit
    truths = [t.truth for t in tasks]

    def within(answers: Sequence[Sequence[list[float]]]) -> list[list[list[float]]]:
        return [
            [answer if near[question, shard] else [] for question, answer in enumerate(of_shard)]
            for shard, of_shard in enumerate(answers)
        ]

    among = []
    for effort in efforts_of(tasks[0].facts[stored]):
        found = [a for a in (t.answers.get((stored, effort)) for t in tasks) if a is not None]
        whole = len(found) == len(tasks)
        asked = asked_at(tasks[0].facts[stored], effort)
        among.append(recalls_of(truths, within(found), asked) if whole else (None,) * len(DEPTHS))
    covered = recalls_of(truths, within(truths), DEPTHS[-1])
    return Reach(round(limit, 6), round(float(near.sum(axis=1).mean()), 3), covered, tuple(among))
