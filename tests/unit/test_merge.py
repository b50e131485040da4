from hypothesis import given
from hypothesis import strategies as st

from pgherd.search.hits import Row, merge

distances = st.lists(st.floats(0, 4) | st.sampled_from([0.0, 0.5, 1.0, float("nan")]), max_size=30)


def rows_of(lists: list[list[float]]) -> list[list[Row]]:
    return [[(d, number, i) for i, d in enumerate(found)] for number, found in enumerate(lists)]


@given(st.lists(distances, max_size=6), st.integers(1, 40), st.none() | st.floats(0, 4))
def test_merge_is_the_first_k_of_all_sorted(lists: list[list[float]], k: int, max_distance: float | None) -> None:
    every = [row for found in rows_of(lists) for row in found]
    near = [r for r in every if r[0] == r[0] and (max_distance is None or r[0] <= max_distance)]
    merged = merge(rows_of(lists), k, max_distance)
    assert [row[0] for row, _ in merged] == sorted(r[0] for r in near)[:k]
    assert len(set(merged)) == len(merged)
    assert {row for row, _ in merged} <= set(near)
    assert all(row[1] == number for row, number in merged)


def test_ties_keep_the_order_of_the_lists() -> None:
    merged = merge(rows_of([[1.0, 1.0], [1.0], [0.5, 1.0]]), 4)
    assert [row[1:] for row, _ in merged] == [(2, 0), (0, 0), (0, 1), (1, 0)]


def test_nothing_to_merge() -> None:
    assert merge([], 5) == merge([[], []], 5) == []
