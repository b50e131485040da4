"""Which node of a group a read goes to: pure. A standby counts as stale as it was last *shown* not to be.

The primary's position in the log was asked for at some moment; a standby that has replayed as much has all that was
acknowledged before that moment. So its staleness is at most the time since then, by one clock, the reader's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from ..errors import BadInput

HEDGE_FACTOR = 2.0
"""A read is asked a second time elsewhere when it takes so many times what the group's fastest node usually takes."""
MIN_HEDGE_S = 0.002
UNKNOWN_HEDGE_S = 0.02
"""Where nothing is known yet of how long reads take."""


class Read(StrEnum):
    """Where a read may be answered."""

    PRIMARY = "primary"
    """by the primary: it sees every acknowledged write"""
    NEAREST = "nearest"
    """by the node that answers fastest, and by another one too when that is slow"""
    REPLICA = "replica"
    """by a standby: the primary is left alone"""


class Reading(NamedTuple):
    """What a reader wants: where, and how old the answer may be in seconds (None: any age)."""

    read: Read = Read.PRIMARY
    max_staleness_s: float | None = None


BY_THE_PRIMARY = Reading()
"""What a reader gets who asks for nothing."""


class NodeState(NamedTuple):
    """What is known of a node that answers. ``stale_s`` and ``ms`` are None when unknown; a primary is 0 s stale."""

    name: str
    standby: bool
    stale_s: float | None
    ms: float | None


def reading_of(read: str | None, max_staleness_s: float | None) -> Reading:
    """Check what a caller asks for. Raises BadInput."""
    if read is None and max_staleness_s is None:
        return BY_THE_PRIMARY
    try:
        wanted = Read(read or Read.PRIMARY)
    except ValueError as error:
        raise BadInput(f"read is {read!r}", hint="one of: " + ", ".join(Read)) from error
    if max_staleness_s is not None:
        if wanted is Read.PRIMARY:
            raise BadInput("max_staleness_s belongs to reads from replicas", hint="say read='nearest' or 'replica'")
        if not 0 < max_staleness_s < float("inf"):
            raise BadInput(f"max_staleness_s is {max_staleness_s!r}", hint="a number of seconds above zero")
    return Reading(wanted, max_staleness_s)


def choose(states: Iterable[NodeState], reading: Reading) -> list[str]:
    """The nodes that may answer, the fastest first, and after them those of unknown age; none when no node fits."""
    fitting = [s for s in states if _fits(s, reading)]

    def order(s: NodeState) -> tuple[object, ...]:
        return (s.stale_s is None, float("inf") if s.ms is None else s.ms, s.standby, s.name)

    return [s.name for s in sorted(fitting, key=order)]


def _fits(state: NodeState, reading: Reading) -> bool:
    if not state.standby:
        return reading.read is not Read.REPLICA
    if reading.read is Read.PRIMARY:
        return False
    limit_s = reading.max_staleness_s
    return limit_s is None or (state.stale_s is not None and state.stale_s <= limit_s)


def hedge_after_s(states: Sequence[NodeState]) -> float:
    """How long to wait for the first answer before another node is asked as well."""
    known = [s.ms for s in states if s.ms is not None]
    return max(MIN_HEDGE_S, HEDGE_FACTOR * min(known) / 1000) if known else UNKNOWN_HEDGE_S


def staleness_s(replayed: int, primary_was: Sequence[tuple[float, int]], now: float) -> float | None:
    """How stale a standby that has replayed up to ``replayed`` is at most; None when it can't be said.

    ``primary_was``: moments at which the primary's position was asked for, and the position, in order.
    """
    return next((now - moment for moment, position in reversed(primary_was) if position <= replayed), None)
