"""How hard to search: settings of the indexes, given outright or chosen for a recall by who knows the indexes."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple, Protocol

from ..model.names import Name
from ..model.schema import VectorType
from ..model.vectors import Metric
from .homes import Home

MAX_EF = 1000
"""The most that pgvector takes for hnsw.ef_search."""
SPARE = 10
"""Half precision swaps near neighbours only: so many rows more than asked for are ranked by the column itself."""
OVERSAMPLING = 20
"""Signs tell little: so many times the rows asked for are ranked by the column itself, where nothing was measured."""
AHEAD = 2
"""A scan that goes on until enough rows match gives the ones it comes upon first, which are not quite the nearest. So
many times the rows asked for are ranked by the column itself."""
ALL = inf
"""The gap that every shard of a table is within."""
USUAL_EF, USUAL_EF_OF_BITS = 200, 400
MAX_SCAN_TUPLES = 20_000
"""pgvector's own hnsw.max_scan_tuples: how many rows a scan looks at in search of some that match a condition."""


class Via(NamedTuple):
    """An index that gives more rows than wanted, ``ranked`` of them, to be ranked by the column itself.

    ``stored`` is the type of its entries: values made smaller, or those of the column.
    """

    stored: VectorType
    ranked: int


class Effort(NamedTuple):
    """Settings of one group for one search. ``probes`` None leaves ivfflat's to the server.

    ``via`` None takes the rows as the column's own index gives them. ``max_scan`` is how many rows a scan of an hnsw
    index may look at.
    """

    ef_search: int
    probes: int | None = None
    exact: bool = False
    via: Via | None = None
    max_scan: int = MAX_SCAN_TUPLES


class Aim(NamedTuple):
    """What a search wants of an index: the share of the nearest rows to be found, at any price if ``promised``.

    ``indexes`` are the types of the entries of the indexes there are, the column's ``own`` type first if it is one.
    """

    column: str
    metric: Metric
    recall: float
    promised: bool
    own: VectorType
    indexes: tuple[VectorType, ...]
    default: Effort
    """for indexes of which nothing is known"""


class Edition(NamedTuple):
    """What is known at one time of a herd's indexes: good ``until`` then, by the monotonic clock."""

    until: float


class Knowledge(Protocol):
    """Who knows what effort the indexes of a herd need."""

    async def effort(
        self, connection: Any, home: str, relations: tuple[Name, ...], k: int, aim: Aim, within: float | None
    ) -> Effort:
        """The effort to find the ``k`` nearest in these shards of one group, to which ``connection`` (any kind) is.

        ``within``: all shards of the table are asked (``ALL``), or all within that gap, so that each need only find its
        share of the ``k``; None where nothing is known of the others.
        """
        ...

    def known(self, home: str, relations: tuple[Name, ...], k: int, aim: Aim, within: float | None) -> Effort | None:
        """The same, as far as it is known already; None where the group would have to be asked."""
        ...

    @property
    def edition(self) -> Edition:
        """What is known now: another object once any of it is known anew."""
        ...

    def reach(self, table: Name, homes: tuple[Home, ...], k: int, aim: Aim) -> float | None:
        """The gap within which it is cheapest to ask shards; None: ask all, or not everything is known yet."""
        ...


Settings = tuple[int, int | None, int]


def settings_of(effort: Effort) -> Settings:
    """What a session must have set for it: hnsw.ef_search, ivfflat.probes, hnsw.max_scan_tuples."""
    return effort.ef_search, effort.probes, effort.max_scan


def usual_effort(stored: VectorType, own: VectorType, k: int) -> Effort:
    """The effort for an index of which nothing is known."""
    quantized = stored is VectorType.BIT and own is not VectorType.BIT
    ef = max(USUAL_EF_OF_BITS, OVERSAMPLING * k) if quantized else max(USUAL_EF, 4 * k)
    return with_index(Effort(min(MAX_EF, ef)), stored, own, k)


def with_index(effort: Effort, stored: VectorType, own: VectorType, k: int) -> Effort:
    """The same effort on the index of that type. Of an hnsw index of bits all candidates are ranked by the column."""
    if stored is own:
        return effort._replace(via=None)
    if stored is VectorType.BIT:
        return effort._replace(via=Via(stored, max(effort.ef_search, 2 * k)))
    return effort._replace(via=Via(stored, k + SPARE))
