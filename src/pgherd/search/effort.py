"""How hard to search: settings of the indexes, given outright or chosen for a recall by who knows the indexes."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ..model.names import Name
from ..model.vectors import Metric


class Effort(NamedTuple):
    """Settings of one group for one search. ``probes`` None leaves ivfflat's to the server."""

    ef_search: int
    probes: int | None = None
    exact: bool = False


class Aim(NamedTuple):
    """What a search wants of an index: the share of the nearest rows to be found, at any price if ``promised``."""

    column: str
    metric: Metric
    recall: float
    promised: bool
    default: Effort
    """for indexes of which nothing is known"""


class Knowledge(Protocol):
    """Who knows what effort the indexes of a herd need."""

    async def effort(self, connection: Any, home: str, relations: tuple[Name, ...], k: int, aim: Aim) -> Effort:
        """The effort to find the ``k`` nearest in these shards of one group, to which ``connection`` (any kind) is."""
        ...
