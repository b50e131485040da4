"""What a client knows of the herd's indexes: calibrations, read once a group and again every few minutes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Any

from ..engines.failures import talking_to
from ..model.names import Name
from ..model.schema import VectorType
from ..search.effort import ALL, Aim, Edition, Effort, usual_effort, with_index
from ..search.homes import Home
from .curve import Curve
from .store import Key, read_calibrations

CLEARLY = 0.8
"""Of the time of one index, the most that another may take to be preferred."""
MAX_AGE_S = 300.0
"""After so long a group is asked again, since somebody else may have tuned it."""


class _Group:
    """One group's curves, and the efforts worked out from them so far."""

    def __init__(self, curves: dict[Key, Curve]) -> None:
        self.read_at = monotonic()
        self.curves = curves
        self.efforts: dict[tuple[tuple[Name, ...], int, Aim, float | None], Effort] = {}


class Calibrations:
    """See :class:`pgherd.search.effort.Knowledge`. For any number of threads: what is known is replaced whole."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._reaches: dict[tuple[Name, int, Aim], tuple[dict[str, _Group], float | None]] = {}
        self.edition = Edition(-inf)
        """what is known now: another object once any of it is known anew"""

    def forget(self) -> None:
        """Read again at the next use."""
        self._groups, self._reaches, self.edition = {}, {}, Edition(-inf)

    def reach(self, table: Name, homes: tuple[Home, ...], k: int, aim: Aim) -> float | None:
        """The gap within which shards are asked, if that is cheaper than asking all; None until all are known."""
        key = (table, k, aim)
        known = self._reaches.get(key)
        if known is None or known[0] is not self._groups:
            groups = self._groups
            if any(h.name not in groups for h in homes):
                return None
            curves = {key: curve for h in homes for key, curve in groups[h.name].curves.items()}
            relations = tuple(r for h in homes for r in h.relations)
            known = self._reaches[key] = (groups, reach_of(curves, relations, k, aim))
        return known[1]

    async def effort(
        self, connection: Any, home: str, relations: tuple[Name, ...], k: int, aim: Aim, within: float | None
    ) -> Effort:
        """The effort that brings every one of these shards to the aim; GroupUnavailable if the group goes away."""
        known = self.known(home, relations, k, aim, within)
        if known is not None:
            return known
        with talking_to(home, "reading calibrations"):
            found = await read_calibrations(connection)
        self._groups = groups = {**self._groups, home: _Group({c.key: c.curve for c in found})}
        self.edition = Edition(min(g.read_at for g in groups.values()) + MAX_AGE_S)
        return self._effort(groups[home], relations, k, aim, within)

    def known(self, home: str, relations: tuple[Name, ...], k: int, aim: Aim, within: float | None) -> Effort | None:
        """The same, as far as it is known already; None where the group has to be asked."""
        group = self._groups.get(home)
        if group is None or monotonic() - group.read_at > MAX_AGE_S:
            return None
        return self._effort(group, relations, k, aim, within)

    @staticmethod
    def _effort(group: _Group, relations: tuple[Name, ...], k: int, aim: Aim, within: float | None) -> Effort:
        key = (relations, k, aim, within)
        effort = group.efforts.get(key)
        if effort is None:
            if len(group.efforts) > 1000:
                group.efforts.clear()
            effort = group.efforts[key] = effort_of(group.curves, relations, k, aim, within)
        return effort


def reach_of(curves: dict[Key, Curve], relations: tuple[Name, ...], k: int, aim: Aim) -> float | None:
    """The gap within which these shards, all of a table, find the aim in the least time; None: all of them do. Pure."""
    best: tuple[float, float | None] = (inf, None)
    for stored in aim.indexes:
        found = [c for c in _curves(curves, relations, stored, aim) if c is not None]
        if found:
            gap, ms = cheapest_reach(found, aim.recall, k, promised=aim.promised)
            best = min(best, (ms, gap), key=lambda pair: pair[0])
    return best[1]


def cheapest_reach(
    curves: Sequence[Curve], recall: float, k: int, *, promised: bool = True
) -> tuple[float | None, float]:
    """(gap, None for all shards; milliseconds that the shards within it take one after the other, on average)."""

    def ms_each(within: float) -> float:
        times = [c.effort_for(recall, k, promised=promised, within=within).ms for c in curves]
        return sum(times) / len(times)

    enough = [r for r in curves[0].reaches if curves[0].covers(r, recall, k)]
    found: list[tuple[float | None, float]] = [(r.gap, r.asked * ms_each(r.gap)) for r in enough]
    return min([(None, len(curves) * ms_each(ALL)), *found], key=lambda pair: pair[1])


def _curves(curves: dict[Key, Curve], relations: tuple[Name, ...], stored: VectorType, aim: Aim) -> list[Curve | None]:
    return [curves.get((r.sql, aim.column, aim.metric.value, stored.value)) for r in relations]


def effort_of(curves: dict[Key, Curve], relations: tuple[Name, ...], k: int, aim: Aim, within: float | None) -> Effort:
    """The cheapest index for all these shards, at the effort that the neediest of them needs. Pure.

    Times are measured, and differ by chance from group to group: an index further back in ``aim.indexes`` is taken only
    if it is clearly cheaper. One session's settings serve all shards of a group, and what was never measured gets the
    usual effort.
    """
    known = []
    for stored in aim.indexes:
        found = _curves(curves, relations, stored, aim)
        if any(found):
            known.append(_effort_via(found, stored, k, aim, within))
    if not known:
        return aim.default
    chosen = known[0]
    for other in known[1:]:
        if other[0] < CLEARLY * chosen[0]:
            chosen = other
    return chosen[1]


def _effort_via(
    curves: list[Curve | None], stored: VectorType, k: int, aim: Aim, within: float | None
) -> tuple[float, Effort]:
    """(milliseconds, effort) of searching all these shards through their indexes of one type."""
    usual = usual_effort(stored, aim.own, k)
    ef_search, probes, exact, ms, max_scan = 0, usual.probes, False, 0.0, usual.max_scan
    for curve in curves:
        if curve is None:
            ef_search = max(ef_search, usual.ef_search)
            continue
        choice = curve.effort_for(aim.recall, k, promised=aim.promised, within=within)
        ms, exact = ms + choice.ms, exact or choice.exact
        if curve.method == "hnsw":
            ef_search = max(ef_search, choice.effort)
            max_scan = min(max_scan, max(curve.max_scan, choice.effort, 2 * k))
        else:
            probes = max(probes or 0, choice.effort)
    return ms, with_index(Effort(ef_search or usual.ef_search, probes, exact, None, max_scan), stored, aim.own, k)
