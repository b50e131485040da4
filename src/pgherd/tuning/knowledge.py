"""What a client knows of the herd's indexes: calibrations, read once a group and again every few minutes."""

from __future__ import annotations

from time import monotonic
from typing import Any

from ..engines.failures import talking_to
from ..model.names import Name
from ..search.effort import Aim, Effort
from .curve import Curve
from .store import read_calibrations

MAX_AGE_S = 300.0
"""After so long a group is asked again, since somebody else may have tuned it."""


class _Group:
    """One group's curves, and the efforts worked out from them so far."""

    def __init__(self, curves: dict[tuple[str, str, str], Curve]) -> None:
        self.read_at = monotonic()
        self.curves = curves
        self.efforts: dict[tuple[tuple[Name, ...], int, Aim], Effort] = {}


class Calibrations:
    """See :class:`pgherd.search.effort.Knowledge`. For any number of threads: a group's entry is replaced whole."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def forget(self) -> None:
        """Read again at the next use."""
        self._groups = {}

    async def effort(self, connection: Any, home: str, relations: tuple[Name, ...], k: int, aim: Aim) -> Effort:
        """The effort that brings every one of these shards to the aim; GroupUnavailable if the group goes away."""
        group = self._groups.get(home)
        if group is None or monotonic() - group.read_at > MAX_AGE_S:
            with talking_to(home, "reading calibrations"):
                found = await read_calibrations(connection)
            group = self._groups[home] = _Group({c.key: c.curve for c in found})
        key = (relations, k, aim)
        effort = group.efforts.get(key)
        if effort is None:
            if len(group.efforts) > 1000:
                group.efforts.clear()
            effort = group.efforts[key] = _effort(group.curves, relations, k, aim)
        return effort


def _effort(curves: dict[tuple[str, str, str], Curve], relations: tuple[Name, ...], k: int, aim: Aim) -> Effort:
    """One session's settings serve all shards of a group: the most that any of them needs."""
    ef_search, probes, exact = 0, aim.default.probes, aim.default.exact
    for relation in relations:
        curve = curves.get((relation.sql, aim.column, aim.metric.value))
        if curve is None:
            ef_search = max(ef_search, aim.default.ef_search)
            continue
        choice = curve.effort_for(aim.recall, k, promised=aim.promised)
        exact = exact or choice.exact
        if curve.method == "hnsw":
            ef_search = max(ef_search, choice.effort)
        else:
            probes = max(probes or 0, choice.effort)
    return Effort(ef_search or aim.default.ef_search, probes, exact)
