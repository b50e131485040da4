"""Which node a read goes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgherd.engines.reading import (
    MIN_HEDGE_S,
    UNKNOWN_HEDGE_S,
    NodeState,
    Read,
    Reading,
    choose,
    hedge_after_s,
    reading_of,
    staleness_s,
)
from pgherd.errors import BadInput

PRIMARY = NodeState("a", False, 0.0, 5.0)
FRESH = NodeState("b", True, 0.1, 1.0)
OLD = NodeState("c", True, 30.0, 0.5)
UNKNOWN = NodeState("d", True, None, 0.1)


def test_nearest_takes_the_fastest_that_is_fresh_enough():
    assert choose([PRIMARY, FRESH, OLD, UNKNOWN], Reading(Read.NEAREST, 1.0)) == ["b", "a"]
    assert choose([PRIMARY, FRESH, OLD, UNKNOWN], Reading(Read.NEAREST)) == ["c", "b", "a", "d"]


def test_a_replica_is_never_the_primary_and_of_unknown_age_only_where_any_will_do():
    assert choose([PRIMARY, FRESH, OLD, UNKNOWN], Reading(Read.REPLICA, 1.0)) == ["b"]
    assert choose([PRIMARY, UNKNOWN], Reading(Read.REPLICA, 60.0)) == []
    assert choose([PRIMARY, UNKNOWN, OLD], Reading(Read.REPLICA)) == ["c", "d"]


def test_the_primary_alone_unless_asked_otherwise():
    assert choose([PRIMARY, FRESH], Reading()) == ["a"]


def test_a_node_of_unknown_speed_comes_last():
    assert choose([NodeState("x", True, 0.0, None), PRIMARY], Reading(Read.NEAREST)) == ["a", "x"]


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000)), max_size=20), st.integers(0, 1000))
def test_a_standby_is_never_called_fresher_than_it_was_shown_to_be(moves: list[tuple[float, int]], replayed: int):
    """Positions only grow; the bound is the time since the last moment whose position has been replayed."""
    was = list(zip(sorted(m for m, _ in moves), sorted(p for _, p in moves), strict=True))
    found = staleness_s(replayed, was, 100.0)
    reached = [moment for moment, position in was if position <= replayed]
    assert found == (100.0 - max(reached) if reached else None)


def test_the_second_node_is_asked_after_a_few_times_of_what_is_usual():
    assert hedge_after_s([PRIMARY._replace(ms=4.0), FRESH._replace(ms=6.0)]) == pytest.approx(0.008)
    assert hedge_after_s([OLD._replace(ms=0.1)]) == MIN_HEDGE_S
    assert hedge_after_s([]) == UNKNOWN_HEDGE_S


@pytest.mark.parametrize(
    ("read", "age"), [("secondary", None), ("primary", 1.0), (None, 1.0), ("replica", 0), ("nearest", float("nan"))]
)
def test_what_makes_no_sense_is_refused(read: str | None, age: float | None):
    with pytest.raises(BadInput) as caught:
        reading_of(read, age)
    assert caught.value.hint
