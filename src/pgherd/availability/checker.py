"""Does a history hold what was promised? Pure: a history and the lists as they are at the end, to violations.

Lists only grow at their end, so the list as it is at last holds every state there ever was as a beginning of it.
Therefore, with nothing left to guess:
- an acknowledged append is in it, once, where it was told to be, and nothing is in it that nobody appended;
- what a read saw is a beginning of it: else rows were seen that are gone now, or in an order that is not theirs;
- an append that began after another was acknowledged stands behind it;
- a read that claims to be current holds every append acknowledged before it began, and not less than a current read
  that ended before it began.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .history import Kind, Op, Outcome


class Anomaly(StrEnum):
    """What can be wrong."""

    LOST = "lost"
    """acknowledged, and gone"""
    DOUBLED = "doubled"
    """one append, there twice"""
    PHANTOM = "phantom"
    """there, though it failed or was never made"""
    REORDERED = "reordered"
    """not in the order in which they were acknowledged"""
    TORN = "torn"
    """of what one commit wrote, some is there and some is not"""
    VANISHED = "vanished"
    """seen by a read, and gone or elsewhere later"""
    TWO_PRIMARIES = "two_primaries"
    """acknowledged by a primary that another had followed already"""
    STALE = "stale"
    """a read that claims to be current lacks what was acknowledged, or seen, before it began"""


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise broken, in ``key``'s list; ``detail`` says by which operations."""

    anomaly: Anomaly
    key: int
    value: int | None
    detail: str


def check(history: Iterable[Op], final: Mapping[int, Sequence[int]]) -> tuple[Violation, ...]:
    """Every violation in ``history``, given each key's list after all had ended; none if all promises were kept."""
    by_key: dict[int, list[Op]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    found: list[Violation] = []
    for key in sorted(by_key.keys() | final.keys()):
        found += _check_key(key, by_key.get(key, []), tuple(final.get(key, ())))
    return (*found, *two_primaries(op for ops in by_key.values() for op in ops))


def torn(final: Mapping[int, Sequence[int]], rows: Mapping[int, int], each: int) -> list[Violation]:
    """Appends in the lists without all of the ``each`` rows that they wrote besides, and rows without their append."""
    there = {value: key for key, values in final.items() for value in values}
    found = [
        Violation(Anomaly.TORN, key, value, f"is in its list, with {rows.get(value, 0)} of its {each} rows")
        for value, key in there.items()
        if rows.get(value, 0) != each
    ]
    strays = (value for value in rows if value not in there)
    return found + [Violation(Anomaly.TORN, 0, v, f"has {rows[v]} of its rows, and is in no list") for v in strays]


def two_primaries(history: Iterable[Op]) -> list[Violation]:
    """Appends that a node acknowledged on its timeline, begun after another had acknowledged one on a later timeline.

    One that was under way when the other was promoted may still be answered: it is not among them.
    """
    acknowledged = [
        op for op in history if op.kind is Kind.APPEND and op.outcome is Outcome.OK and op.timeline is not None
    ]
    first: dict[int, Op] = {}
    for op in acknowledged:
        assert op.timeline is not None
        if op.timeline not in first or op.ended_s < first[op.timeline].ended_s:
            first[op.timeline] = op
    found = []
    for op in sorted(acknowledged, key=lambda op: op.began_s):
        later = next((n for t, n in first.items() if t > (op.timeline or 0) and n.ended_s < op.began_s), None)
        if later is not None:
            detail = (
                f"{op.node} acknowledged on timeline {op.timeline} what began at {op.began_s:.3f} s;"
                f" {later.node} had on timeline {later.timeline} at {later.ended_s:.3f} s"
            )
            found.append(Violation(Anomaly.TWO_PRIMARIES, op.key, op.value, detail))
    return found


def _check_key(key: int, ops: Sequence[Op], final: Sequence[int]) -> Iterator[Violation]:
    appends = [op for op in ops if op.kind is Kind.APPEND]
    reads = [op for op in ops if op.kind is Kind.READ and op.outcome is Outcome.OK]
    places = {value: i for i, value in reversed(list(enumerate(final)))}
    yield from _contents(key, appends, final, places)
    yield from _order(key, appends, places)
    for read in reads:
        if tuple(final[: len(read.seen)]) != read.seen:
            yield _vanished(key, read, final)
    yield from _stale(key, appends, [r for r in reads if r.current], places)


def _contents(key: int, appends: Sequence[Op], final: Sequence[int], places: Mapping[int, int]) -> Iterator[Violation]:
    outcomes = {op.value: op.outcome for op in appends}
    for op in appends:
        if op.outcome is not Outcome.OK:
            continue
        assert op.value is not None
        if op.value not in places:
            detail = f"acknowledged at {op.ended_s:.3f} s by {op.node}"
            yield Violation(Anomaly.LOST, key, op.value, detail)
        elif op.position is not None and op.position != places[op.value] + 1:
            detail = f"acknowledged as number {op.position}, is number {places[op.value] + 1}"
            yield Violation(Anomaly.REORDERED, key, op.value, detail)
    for i, value in enumerate(final):
        if places[value] != i:
            yield Violation(Anomaly.DOUBLED, key, value, f"is number {places[value] + 1} and number {i + 1}")
        elif outcomes.get(value, Outcome.FAILED) is Outcome.FAILED:
            why = "its append failed" if value in outcomes else "nobody appended it"
            yield Violation(Anomaly.PHANTOM, key, value, f"is number {i + 1}, and {why}")


def _order(key: int, appends: Sequence[Op], places: Mapping[int, int]) -> Iterator[Violation]:
    """Walk the list from its end: whoever stands before must not have begun after one behind it was acknowledged."""
    there = sorted((op for op in appends if op.value in places), key=lambda op: places[op.value or 0], reverse=True)
    earliest: Op | None = None
    for op in there:
        if earliest is not None and op.began_s > earliest.ended_s:
            behind = f"{earliest.value} behind it was acknowledged at {earliest.ended_s:.3f} s"
            detail = f"began at {op.began_s:.3f} s, after {behind}"
            yield Violation(Anomaly.REORDERED, key, op.value, detail)
        if op.outcome is Outcome.OK and (earliest is None or op.ended_s < earliest.ended_s):
            earliest = op


def _vanished(key: int, read: Op, final: Sequence[int]) -> Violation:
    first = next((i for i, v in enumerate(read.seen) if i >= len(final) or final[i] != v), len(final))
    instead = f"{final[first]} is" if first < len(final) else "nothing is"
    detail = f"{read.node} showed it as number {first + 1} at {read.ended_s:.3f} s, where {instead} now"
    return Violation(Anomaly.VANISHED, key, read.seen[first], detail)


def _stale(key: int, appends: Sequence[Op], reads: Sequence[Op], places: Mapping[int, int]) -> Iterator[Violation]:
    """How long the list is known to have been by then: by appends acknowledged, and by current reads that ended."""
    known = [(op.ended_s, places[op.value or 0] + 1, f"append of {op.value}") for op in appends if _is_in(op, places)]
    known += [(op.ended_s, len(op.seen), f"read by client {op.client}") for op in reads]
    known.sort(key=lambda k: k[0])
    longest: list[tuple[int, str]] = []
    for _, length, what in known:
        longest.append(max(longest[-1], (length, what)) if longest else (length, what))
    ends = [k[0] for k in known]
    for read in reads:
        before = bisect_left(ends, read.began_s)
        if before and longest[before - 1][0] > len(read.seen):
            length, what = longest[before - 1]
            detail = f"{read.node} showed {len(read.seen)} at {read.began_s:.3f} s, {length} were known by {what}"
            yield Violation(Anomaly.STALE, key, None, detail)


def _is_in(op: Op, places: Mapping[int, int]) -> bool:
    return op.outcome is Outcome.OK and op.value in places
