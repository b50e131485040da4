"""Cells learned from a sample, rows put into them, and which shards a question needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgherd.errors import BadInput
from pgherd.model.names import Name
from pgherd.model.schema import CELLS_PER_SHARD, VectorType
from pgherd.model.vectors import Metric
from pgherd.routing.learning import learn
from pgherd.routing.nearest import Centroids, Vectors
from pgherd.search.effort import ALL, Aim, usual_effort
from pgherd.tuning.curve import DEPTHS, Curve, Point, Reach
from pgherd.tuning.knowledge import cheapest_reach, reach_of

DIM = 16
METRICS = pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2])


def families(n: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(7).standard_normal((40, DIM))
    return (middles[rng.integers(0, 40, n)] + 0.2 * rng.standard_normal((n, DIM))).astype(np.float32)


def distances(metric: Metric, questions: Vectors, rows: Vectors) -> Vectors:
    if metric is Metric.L2:
        return np.linalg.norm(questions[:, None] - rows[None], axis=2)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (questions, rows)]
    return 1 - unit[0] @ unit[1].T


@METRICS
def test_shards_get_about_equal_shares_and_no_more_cells_than_fit(metric: Metric) -> None:
    rows = families(4000, 1)
    for shards in (2, 5):
        found = learn(rows, shards, metric)
        assert found.shards == tuple(range(shards))
        assert np.bincount(found.numbers // CELLS_PER_SHARD).max() <= CELLS_PER_SHARD
        assert (np.diff(found.numbers) > 0).all()
        share = np.bincount(found.cells(rows) // CELLS_PER_SHARD, minlength=shards) / len(rows)
        assert 0.6 / shards < share.min() <= share.max() < 1.3 / shards


@METRICS
def test_the_same_sample_gives_the_same_cells(metric: Metric) -> None:
    one, two = learn(families(1000, 1), 4, metric), learn(families(1000, 1), 4, metric)
    assert (one.numbers == two.numbers).all()
    assert np.allclose(one.vectors, two.vectors)


@METRICS
def test_a_row_is_in_the_cell_of_its_nearest_centroid(metric: Metric) -> None:
    found, rows = learn(families(2000, 1), 4, metric), families(300, 2)
    nearest = distances(metric, rows, found.vectors).argmin(axis=1)
    assert (found.cells(rows) == found.numbers[nearest]).mean() > 0.99, "all but those at equal distances"


@METRICS
def test_gaps_are_differences_of_distances(metric: Metric) -> None:
    found, questions = learn(families(2000, 1), 4, metric), families(50, 3)
    far = distances(metric, questions, found.vectors)
    nearest = np.stack([far[:, found.numbers // CELLS_PER_SHARD == s].min(axis=1) for s in found.shards], axis=1)
    assert np.allclose(found.gaps(questions), nearest - nearest.min(axis=1, keepdims=True), atol=2e-3)
    assert (found.gaps(questions).min(axis=1) == 0).all(), "the nearest shard is always asked"


@METRICS
@pytest.mark.parametrize("gap", [0.0, 0.05, 0.4, 10.0])
def test_the_shards_within_a_gap_are_those_that_gaps_tells_of(metric: Metric, gap: float) -> None:
    found, questions = learn(families(2000, 1), 4, metric), families(50, 3)
    gaps = found.gaps(questions)
    for question, own in zip(questions, gaps, strict=True):
        sure = {n for n, g in zip(found.shards, own, strict=True) if g <= gap - 1e-3 or g == 0}
        may = {n for n, g in zip(found.shards, own, strict=True) if g <= gap + 1e-3}
        assert sure <= set(found.within(question, gap)) <= may


@METRICS
def test_a_question_beyond_what_squares_hold_is_within_reach_of_no_shard_or_some(metric: Metric) -> None:
    found = learn(families(2000, 1), 4, metric)
    assert set(found.within(np.full(DIM, 1e30, np.float32), 0.1)) <= set(found.shards)


@METRICS
def test_the_nearest_shard_holds_most_of_what_is_near(metric: Metric) -> None:
    rows, questions = families(4000, 1), families(100, 3)
    found = learn(rows, 4, metric)
    shard = found.cells(rows) // CELLS_PER_SHARD
    nearest = np.argsort(distances(metric, questions, rows), axis=1)[:, :10]
    there = shard[nearest] == found.gaps(questions).argmin(axis=1)[:, None]
    assert there.mean() > 0.9, "a hash would leave a quarter of them there"


def test_few_vectors_and_few_that_differ_are_refused() -> None:
    with pytest.raises(BadInput, match="100 vectors are too few to learn the cells of 4 shards"):
        learn(families(100, 1), 4, Metric.L2)
    with pytest.raises(BadInput, match="1 vectors that differ, and there are 4 shards"):
        learn(np.ones((500, DIM), np.float32), 4, Metric.L2)
    with pytest.raises(BadInput, match="0 vectors are too few"):
        learn(np.zeros((500, DIM), np.float32), 4, Metric.COSINE)


@given(st.integers(2, 6), st.integers(0, 5))
def test_few_different_vectors_are_enough_for_as_many_shards(shards: int, more: int) -> None:
    rng = np.random.default_rng(shards * 10 + more)
    distinct = rng.standard_normal((shards + more, DIM)).astype(np.float32)
    found = learn(distinct[rng.permutation(np.resize(np.arange(len(distinct)), 400))], shards, Metric.L2)
    assert len(found.numbers) == len(distinct)
    assert len(found.shards) == shards, "each shard gets one"


def test_a_zero_vector_has_a_cell() -> None:
    found = Centroids(np.array([0, 64]), np.eye(2, dtype=np.float32), Metric.COSINE)
    assert found.cells(np.zeros((1, 2), np.float32)).tolist() == [0]
    assert np.isfinite(found.gaps(np.zeros((1, 2), np.float32))).all()


# how many shards are asked

NAMES = tuple(Name("public", f"doc_{i}") for i in range(4))
AIM = Aim(
    "v",
    Metric.COSINE,
    0.95,
    False,
    VectorType.VECTOR,
    (VectorType.VECTOR,),
    usual_effort(VectorType.VECTOR, VectorType.VECTOR, 10),
)


def curve(*reaches: tuple[float, float, float, tuple[float, float]], exact_ms: float = 1e3) -> Curve:
    """(gap, asked, covered, recalls at 20 and 80 candidates); all shards find 0.9 and 0.99."""
    alone, among = (0.8,) * len(DEPTHS), [(r,) * len(DEPTHS) for r in (0.9, 0.99)]
    points = (Point(20, 1.0, alone, among[0]), Point(80, 2.0, alone, among[1]))
    found = tuple(
        Reach(gap, asked, (covered,) * len(DEPTHS), tuple((r,) * len(DEPTHS) for r in recalls))
        for gap, asked, covered, recalls in reaches
    )
    return Curve("hnsw", points, exact_ms, reaches=found)


def test_the_fewest_shards_that_hold_enough_and_find_it_cheaply() -> None:
    near, middle, far = (0.1, 1.1, 0.94, (0.8, 0.94)), (0.2, 1.3, 0.97, (0.9, 0.96)), (0.3, 2.0, 0.999, (0.95, 0.99))
    assert cheapest_reach([curve(near, middle, far)] * 4, 0.95, 10)[0] == 0.3, "2 x 1 ms, to 1.3 x 1.73 ms"
    assert cheapest_reach([curve(near, middle)] * 4, 0.95, 10)[0] == 0.2
    assert cheapest_reach([curve(near)] * 4, 0.95, 10) == (None, pytest.approx(4 * 1.4))
    curves = {(n.sql, "v", "cosine", "vector"): curve(near, middle) for n in NAMES}
    assert reach_of(curves, NAMES, 10, AIM) == 0.2
    assert reach_of({}, NAMES, 10, AIM) is None


def test_reading_every_row_of_shards_that_hold_too_little_is_not_enough() -> None:
    tiny = curve((0.1, 1.1, 0.9, (0.8, 0.9)), exact_ms=0.1)
    assert cheapest_reach([tiny] * 4, 0.95, 10) == (None, pytest.approx(0.4))


def test_a_gap_between_two_that_were_measured_counts_as_the_smaller() -> None:
    found = curve((0.1, 1.1, 0.94, (0.5, 0.94)), (0.3, 2.0, 0.999, (0.95, 0.99)))
    assert found.recall_at(20, 10, within=0.29) == 0.5
    assert found.recall_at(20, 10, within=0.3) == 0.95
    assert found.recall_at(20, 10, within=0.05) == 0.8, "nothing is known of it: what the shard finds of its own"
    assert found.recall_at(20, 10, within=ALL) == 0.9


def test_reaches_survive_being_kept() -> None:
    found = curve((0.1, 1.1, 0.94, (0.5, 0.94)))
    assert Curve.from_json(found.as_json()) == found
