"""The best next move out of very many, found without looking at all of them: what makes ``rebalance`` fast. Pure.

A thousand groups with thousands of shards have millions of moves to choose from, and a move changes the loads of two
groups. What is at one home and may go to the same groups is a class. A class has one best move: to the least loaded of
its groups, and of its members the one nearest to half the difference. Classes wait in a heap by their best move. What
a heap says may have become too good since, never too bad: a source that grew and a target that shrank put their
classes there anew; the opposite is noticed when the entry comes up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from ..model.topology import GroupId


class Weight(NamedTuple):
    """What can move: its bytes, a name of its own, where it is, and where it may be."""

    bytes: int
    name: str
    home: GroupId
    choices: tuple[GroupId, ...]


_Entry = tuple[int, int, int, int, int]
"""A class' best move, the least the best: minus gain, bytes, minus rank of weight and of group; number of the class."""


class Balance:
    """The weights that have not moved yet, and every group's load in bytes.

    A move must bring its two groups nearer to each other by more than ``least`` bytes. The best lowers the sum of the
    loads' squares most; of equal ones it is the smaller weight, then the later name, then the later group.
    """

    def __init__(self, weights: Sequence[Weight], load: Mapping[GroupId, int], least: float) -> None:
        self._groups = sorted(load)
        self._load, self._least = [load[g] for g in self._groups], least
        self._weights = sorted(range(len(weights)), key=lambda i: weights[i].name)
        rank = {g: i for i, g in enumerate(self._groups)}
        members: dict[tuple[GroupId, tuple[GroupId, ...]], list[tuple[int, int]]] = defaultdict(list)
        for i, number in enumerate(self._weights):
            w = weights[number]
            if w.choices:
                members[w.home, w.choices].append((w.bytes, i))
        self._members = [sorted(m) for m in members.values()]
        self._homes = [rank[home] for home, _ in members]
        targets = {c: _Lightest([rank[g] for g in c], self._load) for c in dict.fromkeys(c for _, c in members)}
        self._targets = [targets[c] for _, c in members]
        self._distinct = list(targets.values())
        self._at_home: dict[int, list[int]] = defaultdict(list)
        for number, home in enumerate(self._homes):
            self._at_home[home].append(number)
        self._latest = [self._best(number) for number in range(len(self._members))]
        self._heap = [e for e in self._latest if e is not None]
        heapify(self._heap)

    def pop(self) -> tuple[int, GroupId] | None:
        """Make the best move: the weight's place in the sequence, and its new home. None when none is worth it."""
        while self._heap:
            entry = heappop(self._heap)
            number = entry[-1]
            if entry is not self._latest[number]:
                continue
            if entry == self._best(number):
                return self._move(entry)
            self._renew([number])
        return None

    def _move(self, entry: _Entry) -> tuple[int, GroupId]:
        _, weight, at, target, number = entry
        home, at, target = self._homes[number], -at, -target
        self._members[number].remove((weight, at))
        self._load[home] -= weight
        self._load[target] += weight
        better = {number, *self._at_home[target]}
        for lightest in self._distinct:
            lightest.changed(home, target)
            if lightest.find() == home:
                better.update(n for n, other in enumerate(self._targets) if other is lightest)
        self._renew(better)
        return self._weights[at], self._groups[target]

    def _renew(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            entry = self._latest[number] = self._best(number)
            if entry is not None:
                heappush(self._heap, entry)

    def _best(self, number: int) -> _Entry | None:
        members, target = self._members[number], self._targets[number].find()
        difference = self._load[self._homes[number]] - self._load[target]
        if difference <= self._least:
            return None
        above = bisect_right(members, (difference // 2, len(self._weights)))
        found = None
        for i in (above - 1, above):
            if 0 <= i < len(members):
                weight = members[i][0]
                if 2 * min(weight, difference - weight) > self._least:
                    at = members[bisect_right(members, (weight, len(self._weights))) - 1][1]
                    entry = (-weight * (difference - weight), weight, -at, -target, number)
                    found = entry if found is None else min(found, entry)
        return found


class _Lightest:
    """The least loaded of some groups; of several the one of the highest rank."""

    def __init__(self, groups: Sequence[int], load: list[int]) -> None:
        self._groups, self._load = frozenset(groups), load
        self._heap = [(load[g], -g) for g in groups]
        heapify(self._heap)

    def find(self) -> int:
        while self._heap[0][0] != self._load[-self._heap[0][1]]:
            heappop(self._heap)
        return -self._heap[0][1]

    def changed(self, *groups: int) -> None:
        for g in self._groups.intersection(groups):
            heappush(self._heap, (self._load[g], -g))
