"""Which index a search takes, and how hard it is searched, by what was measured of all of them."""

from __future__ import annotations

import pytest

from pgherd.model.names import Name
from pgherd.model.schema import VectorType
from pgherd.model.vectors import Metric
from pgherd.search.effort import ALL, Aim, Effort, Via, usual_effort
from pgherd.search.narrowing import Matching, under_condition
from pgherd.tuning.curve import DEPTHS, Curve, Point
from pgherd.tuning.knowledge import effort_of
from pgherd.tuning.store import Calibration

ONE, TWO = Name("public", "doc_0"), Name("public", "doc_1")
VECTOR, BIT = VectorType.VECTOR, VectorType.BIT
AIM = Aim("v", Metric.COSINE, 0.95, False, VECTOR, (VECTOR, BIT), usual_effort(VECTOR, VECTOR, 10))


def curve(ms: float, *recalls: tuple[float, float], exact_ms: float = 1e3) -> Curve:
    """(alone, among) recalls at 20, 40, 80 … candidates, which take ``ms`` a candidate."""
    points = tuple(
        Point(20 * 2**i, ms * 20 * 2**i, (alone,) * len(DEPTHS), (among,) * len(DEPTHS))
        for i, (alone, among) in enumerate(recalls)
    )
    return Curve("hnsw", points, exact_ms)


def key(relation: Name, stored: VectorType) -> tuple[str, str, str, str]:
    return relation.sql, "v", "cosine", stored.value


SLOW = curve(0.1, (0.8, 0.9), (0.9, 0.96), (0.96, 0.99))
FAST = curve(0.01, (0.5, 0.6), (0.9, 0.9), (0.94, 0.97))


def test_nothing_known_means_the_usual() -> None:
    assert effort_of({}, (ONE, TWO), 10, AIM, within=ALL) == Effort(200)
    assert usual_effort(BIT, VECTOR, 10) == Effort(400, via=Via(BIT, 400))
    assert usual_effort(VectorType.HALFVEC, VECTOR, 10).via == Via(VectorType.HALFVEC, 20)
    assert usual_effort(BIT, BIT, 10).via is None, "a column of bits is searched as it is"
    assert usual_effort(BIT, VECTOR, 1000).via == Via(BIT, 2000)


def test_a_shard_alone_takes_more_than_one_among_others() -> None:
    curves = {key(ONE, VECTOR): SLOW, key(TWO, VECTOR): SLOW}
    assert effort_of(curves, (ONE, TWO), 10, AIM, within=ALL).ef_search == 36
    assert effort_of(curves, (ONE,), 10, AIM, within=None).ef_search == 72


def test_the_cheapest_index_is_taken() -> None:
    curves = {key(r, s): c for r in (ONE, TWO) for s, c in ((VECTOR, SLOW), (BIT, FAST))}
    found = effort_of(curves, (ONE, TWO), 10, AIM, within=ALL)
    assert found.via is not None
    assert found.via.stored is BIT
    assert found.via.ranked == found.ef_search < 80
    alone = effort_of(curves, (ONE, TWO), 10, AIM._replace(promised=True), within=None)
    assert (alone.via, alone.exact) == (None, False), "bits alone never find so many"


def test_an_index_that_is_hardly_cheaper_is_not_preferred() -> None:
    for share, stored in ((0.85, None), (0.75, BIT)):
        recalls = ((0.8, 0.9), (0.9, 0.96), (0.96, 0.99))
        curves = {key(ONE, VECTOR): SLOW, key(ONE, BIT): curve(0.1 * share, *recalls)}
        via = effort_of(curves, (ONE,), 10, AIM, within=ALL).via
        assert (via and via.stored) == stored


def test_every_row_is_read_where_that_is_cheaper() -> None:
    small = curve(0.1, (0.8, 0.9), (0.9, 0.96), exact_ms=0.5)
    assert effort_of({key(ONE, VECTOR): small}, (ONE,), 10, AIM, within=ALL).exact


def test_a_scan_is_given_up_when_reading_every_row_would_have_been_cheaper() -> None:
    assert curve(0.01, (1, 1), (1, 1), exact_ms=10).max_scan == 1000
    assert curve(0.01, (1, 1), (1, 1), exact_ms=1e9).max_scan == 20_000


def test_a_condition_takes_a_wider_scan_or_none() -> None:
    effort = Effort(40, max_scan=1000)
    assert under_condition(effort, Matching(10_000, 10_000), 10, VECTOR) == Effort(
        200, via=Via(VECTOR, 20), max_scan=1000
    )
    assert under_condition(effort, Matching(1_000, 10_000), 10, VECTOR).ef_search == 400
    assert under_condition(effort, Matching(401, 10_000), 10, VECTOR).ef_search == 1000
    assert under_condition(effort, Matching(399, 10_000), 10, VECTOR).exact, "more rows than reading all would take"
    assert under_condition(effort, Matching(0, 1), 1_001, VECTOR).exact
    bits = Effort(400, via=Via(BIT, 400))
    assert under_condition(bits, Matching(5_000, 10_000), 10, VECTOR).via == Via(BIT, 400)


@pytest.mark.parametrize(
    ("changes", "recent", "stale"),
    [
        (400, True, False),
        (480, False, False),
        (481, False, True),
        (267, True, False),
        (80, False, False),
        (267, False, True),
    ],
)
def test_statistics_that_lag_or_began_anew(changes: int, recent: bool, stale: bool) -> None:
    found = Calibration(
        "public.doc_1", "v", "cosine", "vector", Curve("hnsw", (), 1.0), "CREATE INDEX", 100, 400, 400, recent=recent
    )
    assert found.is_stale(changes, "CREATE INDEX") is stale
    assert found.is_stale(changes, "CREATE INDEX … WITH (m='4')")
