from hypothesis import given
from hypothesis import strategies as st

from pgherd.search.hits import Hit, merge

distances = st.lists(st.floats(0, 4, allow_nan=False) | st.sampled_from([0.0, 0.5, 1.0]), max_size=30)


def hits_of(lists: list[list[float]]) -> list[list[Hit]]:
    return [
        [Hit(d, {"id": (number, i)}, f"shard{number}", "g", (number, i)) for i, d in enumerate(sorted(found))]
        for number, found in enumerate(lists)
    ]


@given(st.lists(distances, max_size=6), st.integers(1, 40), st.none() | st.floats(0, 4))
def test_merge_is_the_first_k_of_all_sorted(lists: list[list[float]], k: int, max_distance: float | None) -> None:
    every = [h for found in hits_of(lists) for h in found]
    near = [h for h in every if max_distance is None or h.distance <= max_distance]
    merged = merge(hits_of(lists), k, max_distance)
    assert [h.distance for h in merged] == sorted(h.distance for h in near)[:k]
    assert len({h.key for h in merged}) == len(merged)
    assert {h.key for h in merged} <= {h.key for h in near}


def test_ties_keep_the_order_of_the_lists() -> None:
    merged = merge(hits_of([[1.0, 1.0], [1.0], [0.5, 1.0]]), 4)
    assert [h.key for h in merged] == [(2, 0), (0, 0), (0, 1), (1, 0)]


def test_nothing_to_merge() -> None:
    assert merge([], 5) == merge([[], []], 5) == []
