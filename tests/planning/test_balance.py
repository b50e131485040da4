"""The fast search for the best move gives exactly the moves that looking at all of them gives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pgherd.model.topology import GroupId
from pgherd.planning.balance import Balance, Weight
from pgherd.planning.rebalance import TOLERANCE

Case = tuple[list[Weight], dict[GroupId, int], float]


def every_move_looked_at(weights: list[Weight], load: dict[GroupId, int], least: float) -> list[tuple[int, GroupId]]:
    """The same choice, made by its definition."""
    load, left, moves = dict(load), list(enumerate(weights)), []
    while True:
        options = [
            (w.bytes * (load[w.home] - load[g] - w.bytes), -w.bytes, w.name, g, i)
            for i, w in left
            for g in w.choices
            if 2 * min(w.bytes, load[w.home] - load[g] - w.bytes) > least
        ]
        if not options:
            return moves
        *_, target, number = max(options)
        moves.append((number, target))
        load[weights[number].home] -= weights[number].bytes
        load[target] += weights[number].bytes
        left = [(i, w) for i, w in left if i != number]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups = [GroupId(f"g{i}") for i in range(draw(st.integers(1, 7)))]
    policies = [tuple(groups), *draw(st.lists(st.lists(st.sampled_from(groups), unique=True).map(tuple), max_size=4))]
    heavy = st.integers(0, 6) | st.integers(0, 10**9) | st.sampled_from((0, 100, 200))
    weights = []
    for i in range(draw(st.integers(0, 25))):
        home = draw(st.sampled_from(groups))
        weights.append(Weight(draw(heavy), f"s{i * 7919 % 101}_{i}", home, draw(st.sampled_from(policies))))
    load = {g: sum(w.bytes for w in weights if w.home == g) for g in groups}
    share = draw(st.sampled_from((TOLERANCE, 0.0, 0.5)))
    return weights, load, share * sum(load.values()) / len(load)


@settings(max_examples=1500, deadline=None)
@given(cases())
def test_the_fast_choice_is_the_best_of_all(case: Case) -> None:
    balance = Balance(*case)
    assert list(iter(balance.pop, None)) == every_move_looked_at(*case)
