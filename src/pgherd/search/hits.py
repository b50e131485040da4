"""What comes back: hits in order of distance, and who answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from .request import Page, Request

Row = tuple[Any, ...]


@dataclass(slots=True)
class Hit:
    """One row: its distance to the question, its columns, and where it lives.

    A hybrid search gives a ``score`` (higher is better), and NaN as the distance of a row that has no vector.
    ``key`` is the row's primary key where that may not be among its columns.
    """

    distance: float
    row: dict[str, Any]
    shard: str
    group: str
    key: tuple[Any, ...] = field(default=(), repr=False)
    score: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Its stable keys; ``score`` only if there is one."""
        distance = self.distance if self.distance == self.distance else None
        document = {"distance": distance, "row": self.row, "shard": self.shard, "group": self.group}
        return document if self.score is None else {"score": self.score, **document}


class GroupTiming(NamedTuple):
    """How long a group took to answer, in milliseconds, seen from the client.

    ``node`` is which of its nodes answered, where that was a choice.
    """

    name: str
    ms: float
    node: str | None = None


class Hits(list[Hit]):
    """Hits in order of distance. ``complete`` is False when groups are ``missing`` (only if partial=True)."""

    def __init__(
        self,
        hits: Iterable[Hit],
        groups: Sequence[GroupTiming],
        missing: Sequence[str],
        page: Page | None,
        shards: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(hits)
        self.shards_asked, self.shards = shards
        """how many shards were asked, of how many that may hold a hit"""
        self.groups = tuple(groups)
        self.missing = tuple(missing)
        self.next = page
        """Give this as ``after=`` to get the next page; None after the last one."""

    @property
    def complete(self) -> bool:
        """Whether every group that could hold a hit has answered."""
        return not self.missing

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``pgherd search --json``."""
        return {
            "hits": [h.as_json() for h in self],
            "groups": [{"name": g.name, "ms": round(g.ms, 3), "node": g.node} for g in self.groups],
            "complete": self.complete,
            "missing": list(self.missing),
            "shards_asked": self.shards_asked,
            "shards": self.shards,
        }


def merge(lists: Sequence[Sequence[Row]], k: int, max_distance: float | None = None) -> list[tuple[Row, int]]:
    """The k nearest rows of several lists in any order, each with the number of its list; ties keep the lists' order.

    A row begins with its distance. NaN is no distance: a vector of zeros is at no cosine distance from anything.
    """
    near = [(row[0], row, number) for number, rows in enumerate(lists) for row in rows if row[0] == row[0]]
    near.sort(key=itemgetter(0))
    return [(row, number) for far, row, number in near[:k] if max_distance is None or far <= max_distance]


class Found(NamedTuple):
    """What one group gave: rows as ``statement_of`` has them, with the ``names`` of its shards by their number."""

    rows: Sequence[Row]
    names: Sequence[str]
    group: str


def nearest_hits(found: Sequence[Found], columns: Sequence[str], k: int, max_distance: float | None) -> list[Hit]:
    """The ``k`` nearest of what groups gave."""
    end = 2 + len(columns)
    return [
        Hit(row[0], dict(zip(columns, row[2:end])), found[n].names[row[1]], found[n].group, row[end:])  # noqa: B905  # faster
        for row, n in merge([f.rows for f in found], k, max_distance)
    ]


def next_page(request: Request, hits: Sequence[Hit]) -> Page | None:
    """Where to go on after these hits; None when there are no more."""
    if len(hits) < request.k or request.words or not request.form.shape.key:
        return None
    last = hits[-1].distance
    first = len(hits) - 1
    while first and hits[first - 1].distance == last:
        first -= 1
    keys: tuple[tuple[Any, ...], ...] = ()
    places: tuple[tuple[str, str], ...] = ()
    for hit in hits[first:]:
        keys += (hit.key or tuple([hit.row[n] for n, _ in request.form.shape.key]),)
        places += ((hit.shard, hit.group),)
    if request.after is not None and request.after.distance == last:
        keys, places = (*request.after.keys, *keys), (*request.after.places, *places)
    return Page(last, keys, places if len(places) == len(keys) else ())
