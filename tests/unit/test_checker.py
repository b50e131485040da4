"""The checker finds every kind of broken promise that is planted into a history, and nothing in one that is whole."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgherd.availability.checker import Anomaly, check, torn
from pgherd.availability.history import History, Kind, Op, Outcome


def append(value: int, began: float, ended: float, outcome: Outcome = Outcome.OK, **more: object) -> Op:
    return Op(Kind.APPEND, 1, 0, began, ended, outcome, value=value, node="a", **more)  # type: ignore[arg-type]


def read(seen: tuple[int, ...], began: float, ended: float, *, current: bool = True) -> Op:
    return Op(Kind.READ, 2, 0, began, ended, Outcome.OK, seen=seen, current=current, node="a")


def anomalies(ops: list[Op], final: list[int]) -> list[tuple[Anomaly, int | None]]:
    return [(v.anomaly, v.value) for v in check(ops, {0: final})]


THREE = [append(1, 0, 1), append(2, 2, 3), append(3, 4, 5)]


def test_a_whole_history_has_no_violation() -> None:
    ops = [*THREE, read((), 0, 0.5), read((1,), 1.5, 1.6), read((1, 2, 3), 5, 6), read((1,), 6, 7, current=False)]
    assert anomalies(ops, [1, 2, 3]) == []


def test_a_commit_of_which_a_part_is_gone_is_torn() -> None:
    final = {0: [1, 2], 7: [3]}
    assert torn(final, {1: 10, 2: 10, 3: 10}, 10) == []
    found = torn(final, {1: 10, 2: 4, 9: 10}, 10)
    assert [(v.anomaly, v.key, v.value) for v in found] == [
        (Anomaly.TORN, 0, 2),
        (Anomaly.TORN, 7, 3),
        (Anomaly.TORN, 0, 9),
    ]


def test_an_acknowledged_append_that_is_gone_is_lost() -> None:
    assert anomalies(THREE, [1, 2]) == [(Anomaly.LOST, 3)]
    assert anomalies(THREE, []) == [(Anomaly.LOST, 1), (Anomaly.LOST, 2), (Anomaly.LOST, 3)]


def test_one_whose_outcome_is_unknown_may_be_there_or_not_but_once() -> None:
    maybe = [THREE[0], append(2, 2, 3, Outcome.UNKNOWN)]
    assert anomalies(maybe, [1]) == []
    assert anomalies(maybe, [1, 2]) == []
    assert anomalies(maybe, [1, 2, 2]) == [(Anomaly.DOUBLED, 2)]


def test_a_retry_that_was_done_twice_is_doubled() -> None:
    assert anomalies(THREE, [1, 2, 3, 2]) == [(Anomaly.DOUBLED, 2)]


def test_what_failed_or_was_never_made_must_not_be_there() -> None:
    assert anomalies([THREE[0], append(2, 2, 3, Outcome.FAILED)], [1, 2]) == [(Anomaly.PHANTOM, 2)]
    assert anomalies([THREE[0]], [1, 9]) == [(Anomaly.PHANTOM, 9)]


def test_an_append_that_began_later_stands_behind() -> None:
    assert anomalies(THREE, [2, 1, 3]) == [(Anomaly.REORDERED, 2)]
    overlapping = [append(1, 0, 3), append(2, 1, 2)]
    assert anomalies(overlapping, [1, 2]) == anomalies(overlapping, [2, 1]) == []


def test_an_append_is_where_it_was_told_to_be() -> None:
    assert anomalies([append(1, 0, 9, position=2), append(2, 1, 8, position=2)], [1, 2]) == [(Anomaly.REORDERED, 1)]


def test_what_a_read_saw_stays() -> None:
    """An old primary's rows, shown and then rewound."""
    assert anomalies([THREE[0], read((1, 7), 1, 2)], [1]) == [(Anomaly.VANISHED, 7)]
    assert anomalies([*THREE, read((2, 1), 3, 4, current=False)], [1, 2, 3]) == [(Anomaly.VANISHED, 2)]


def test_a_current_read_sees_what_was_acknowledged_before_it() -> None:
    assert anomalies([*THREE, read((1,), 3.5, 4)], [1, 2, 3]) == [(Anomaly.STALE, None)]
    assert anomalies([*THREE, read((1,), 3.5, 4, current=False)], [1, 2, 3]) == []
    assert anomalies([*THREE, read((1,), 2.5, 4)], [1, 2, 3]) == []


def test_current_reads_never_go_back() -> None:
    unknown = [THREE[0], append(2, 2, 30, Outcome.UNKNOWN)]
    reads = [read((1, 2), 3, 4), read((1,), 5, 6)]
    assert anomalies([*unknown, *reads], [1, 2]) == [(Anomaly.STALE, None)]


def test_keys_are_apart() -> None:
    ops = [append(1, 0, 1), replace(append(1, 2, 3), key=1)]
    assert [(v.key, v.anomaly) for v in check(ops, {0: [1]})] == [(1, Anomaly.LOST)]
    assert [(v.key, v.anomaly) for v in check([], {7: [1]})] == [(7, Anomaly.PHANTOM)]


def test_a_history_is_written_and_read(tmp_path: Path) -> None:
    history = History([*THREE, read((1, 2), 3, 4)])
    history.write(tmp_path / "history")
    assert list(History.read(tmp_path / "history")) == list(history)


def linear(seed: int, count: int) -> tuple[list[Op], list[int]]:
    """A history of one correct list: each operation takes effect at an instant between its begin and its end."""
    chance, ops, final = random.Random(seed), [], []
    effects = sorted((chance.uniform(0, count), i) for i in range(count))
    for at, i in effects:
        began, ended = at - chance.random() * 3, at + chance.random() * 3
        if chance.random() < 0.4:
            back = chance.randrange(3) if chance.random() < 0.3 else 0
            seen = tuple(final[: max(0, len(final) - back)])
            ops.append(read(seen, began, ended, current=not back))
            continue
        outcome = chance.choice([Outcome.OK] * 6 + [Outcome.UNKNOWN, Outcome.FAILED])
        happens = outcome is Outcome.OK or (outcome is Outcome.UNKNOWN and chance.random() < 0.5)
        if happens:
            final.append(i)
        ops.append(append(i, began, ended, outcome, position=len(final) if outcome is Outcome.OK else None))
    chance.shuffle(ops)
    return ops, final


@given(st.integers(), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_no_correct_history_is_accused(seed: int, count: int) -> None:
    ops, final = linear(seed, count)
    assert anomalies(ops, final) == []


@given(st.integers(), st.integers(5, 60), st.sampled_from(["lose", "double", "swap", "forge", "rewind"]))
@settings(max_examples=300, deadline=None)
def test_whatever_is_planted_is_found(seed: int, count: int, what: str) -> None:
    ops, final = linear(seed, count)
    certain = [op for op in ops if op.kind is Kind.APPEND and op.outcome is Outcome.OK]
    if not certain:
        return
    victim = random.Random(seed).choice(certain)
    assert victim.value is not None
    place = final.index(victim.value)
    match what:
        case "lose":
            del final[place]
            expected = {Anomaly.LOST}
        case "double":
            final.append(victim.value)
            expected = {Anomaly.DOUBLED}
        case "swap":
            final.insert(0 if place else len(final), final.pop(place))
            expected = {Anomaly.REORDERED} if len(final) > 1 else set()
        case "forge":
            final.append(-1)
            expected = {Anomaly.PHANTOM}
        case _:
            ops.append(read((*final, -1), 1e6, 1e6 + 1))
            expected = {Anomaly.VANISHED}
    assert expected <= {anomaly for anomaly, _ in anomalies(ops, final)}


@pytest.mark.parametrize("count", [20_000])
def test_a_long_history_is_checked_quickly_enough_to_be_used(count: int) -> None:
    ops, final = linear(1, 400)
    spread = [replace(op, key=k) for k in range(count // 400) for op in ops]
    assert check(spread, dict.fromkeys(range(count // 400), final)) == ()
