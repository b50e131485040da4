"""What follows from a curve: never less effort than was measured to be needed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgherd.tuning.curve import DEPTHS, Choice, Curve, Point, lower_bound
from pgherd.tuning.recall import recall_of

EFFORTS = (10, 20, 40, 80, 160, 320, 640, 1000)


def curve(*recalls: float, exact_ms: float = 50.0, efforts: tuple[int, ...] = EFFORTS, method: str = "hnsw") -> Curve:
    points = tuple(
        Point(e, 0.1 * (i + 1), tuple(r if method != "hnsw" or d <= e else None for d in DEPTHS))
        for i, (e, r) in enumerate(zip(efforts, recalls, strict=False))
    )
    return Curve(method, points, exact_ms)


GOOD = curve(0.6, 0.7, 0.8, 0.9, 0.94, 0.96, 0.98, 0.99)


def test_the_least_effort_measured_to_be_enough() -> None:
    assert GOOD.effort_for(0.9, 10).effort == 80
    assert GOOD.effort_for(0.5, 10).effort == 10
    between = GOOD.effort_for(0.95, 10)
    assert 160 < between.effort < 320
    assert between.recall is not None
    assert between.recall >= 0.95
    assert 0.5 < between.ms < 0.6


def test_a_dip_counts_for_all_effort_below_it() -> None:
    dips = curve(0.95, 0.6, 0.8, 0.9, 0.97)
    assert dips.effort_for(0.8, 1).effort == 40
    assert dips.recall_at(10, 1) == 0.6


def test_where_no_effort_is_enough_every_row_is_read() -> None:
    assert GOOD.effort_for(0.995, 10) == Choice(1000, True, 1.0, 50.0)
    unasked = GOOD.effort_for(0.995, 10, promised=False)
    assert (unasked.effort, unasked.exact) == (1000, False)


def test_a_shard_read_faster_than_its_index_is_read() -> None:
    small = curve(0.6, 0.7, 0.8, 0.9, exact_ms=0.25)
    assert not small.effort_for(0.7, 10).exact
    assert small.effort_for(0.9, 10).exact
    assert small.effort_for(0.999, 10, promised=False).exact


def test_another_k() -> None:
    assert GOOD.effort_for(0.5, 7).effort == 10
    assert GOOD.effort_for(0.5, 25).effort == 40, "fewer candidates than rows wanted were never measured"
    assert GOOD.effort_for(0.5, 90).effort == 160
    assert GOOD.effort_for(0.9, 200).effort == 320
    assert GOOD.effort_for(0.98, 400).exact
    assert not GOOD.effort_for(0.98, 400, promised=False).exact
    assert GOOD.recall_at(320, 200) is None
    assert GOOD.recall_at(5, 10) is None


def test_probes_have_nothing_to_do_with_k() -> None:
    lists = curve(0.5, 0.8, 0.97, 1.0, efforts=(1, 2, 4, 8), method="ivfflat")
    assert lists.effort_for(0.4, 100) == Choice(1, False, 0.5, 0.1)
    assert lists.effort_for(0.97, 3).effort == 4
    assert lists.effort_for(1.0, 10).effort == 8


recalls = st.lists(st.floats(0, 1), min_size=8, max_size=8)
targets = st.floats(0.01, 1)


@given(recalls, targets, targets, st.integers(1, 1000))
def test_more_recall_never_takes_less_effort(values: list[float], one: float, other: float, k: int) -> None:
    found = curve(*values, exact_ms=1e9)
    low, high = sorted((one, other))
    less, more = found.effort_for(low, k), found.effort_for(high, k)
    assert (less.exact, less.effort) <= (more.exact, more.effort)
    assert 1 <= less.effort <= 1000


@given(recalls, targets, st.sampled_from(DEPTHS))
def test_what_is_chosen_is_expected_to_be_enough(values: list[float], target: float, k: int) -> None:
    choice = curve(*values).effort_for(target, k)
    assert choice.exact or (choice.recall is not None and choice.recall >= target - 1e-9)


@given(recalls, targets, st.integers(1, 1000), st.integers(1, 1000))
def test_more_rows_never_take_less_effort(values: list[float], target: float, one: int, other: int) -> None:
    found = curve(*values, exact_ms=1e9)
    low, high = (found.effort_for(target, k) for k in sorted((one, other)))
    assert (low.exact, low.effort) <= (high.exact, high.effort)


@given(recalls, st.floats(0.01, 1000))
def test_a_curve_survives_being_kept(values: list[float], exact_ms: float) -> None:
    found = curve(*values, exact_ms=round(exact_ms, 4))
    assert Curve.from_json(json.loads(json.dumps(found.as_json()))).as_json() == found.as_json()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_the_lower_bound_is_not_above_the_mean(values: list[float]) -> None:
    assert 0 <= lower_bound(values) <= sum(values) / len(values) + 1e-12


def test_the_lower_bound_is_one_standard_error_below() -> None:
    assert lower_bound([1.0] * 50) == 1.0
    assert lower_bound([0.0, 1.0] * 50) == pytest.approx(0.5 - 0.0502519, abs=1e-6)


def test_rows_at_the_same_distance_are_as_good() -> None:
    assert recall_of([1, 2, 2], [1, 2, 2, 2], 3) == 1
    assert recall_of([1, 2, 3], [1, 2, 2, 2], 3) == pytest.approx(2 / 3)
    assert recall_of([2, 3], [1, 2], 2) == 0.5
    assert recall_of([1, 2], [1, 2], 10) == 1, "there are no more"
    assert recall_of([], [1, 2], 1) == 0
