"""Whether a herd's shards are too few, or too large, to be evened out by moving them: which to split first; pure.

Every search visits each shard, so a herd has no more of them than it needs: a shard is split only when moves alone
leave a group too heavy, and only as far as that takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import ChangeRefused
from ..model.schema import HashBound
from ..model.topology import GroupId, Topology
from .rebalance import Move, Unit, loads, rebalance, units_of
from .split import Split, after_split, split_of

UNEVEN = 1.3
"""A group that holds this many times the mean of the groups that its shards may live in is too heavy."""
LEAST_BYTES = 64 << 20
"""Halves are no smaller than this, unless a table has fewer shards than there are groups that may hold them."""


def grow(topology: Topology, sizes: Mapping[str, int]) -> tuple[tuple[Split, ...], tuple[Move, ...]]:
    """What to split, and then what to move, so that the groups' bytes are even; ``sizes`` as for ``rebalance``.

    One split at a time, of the largest shard of the heaviest group, as long as moves alone would leave it too heavy. A
    shard whose table has no primary key can't be split, and is left as it is.
    """
    splits: list[Split] = []
    known = dict(sizes)
    while True:
        moves = rebalance(topology, known)
        split = _next(topology, known, moves)
        if split is None:
            return tuple(splits), moves
        splits.append(split)
        topology = after_split(topology, split)
        for shard, halves in zip(split.shards, split.halves, strict=True):
            size = known.pop(shard.sql, 1)
            known.update({halves[0].sql: size - size // 2, halves[1].sql: size // 2})


def _next(topology: Topology, sizes: Mapping[str, int], moves: tuple[Move, ...]) -> Split | None:
    """The next shard to split, if the moves leave a group too heavy."""
    moved = {name.sql: move.target for move in moves for name in move.shards}
    after = replace(topology, homes={**topology.homes, **moved})
    units = units_of(after, sizes)
    load = loads(after, units)
    for unit in sorted(units, key=lambda u: (-load[u.home], -u.bytes, u.shards[0].relation)):
        if _is_too_heavy(unit, load) and _may_be_halved(unit, units):
            try:
                return split_of(topology, unit.shards, sizes)
            except ChangeRefused:
                continue
    return None


def _is_too_heavy(unit: Unit, load: Mapping[GroupId, int]) -> bool:
    """Whether its group holds too much, so that one of its other choices is the better for a part of it."""
    mean = sum(load[g] for g in unit.choices) / len(unit.choices)
    return load[unit.home] > UNEVEN * mean and unit.bytes > 1


def _may_be_halved(unit: Unit, units: list[Unit]) -> bool:
    """Whether its halves are large enough, or its table has too few shards for its groups."""
    first = unit.shards[0]
    if not isinstance(first.path[-1].bound, HashBound):
        return False
    above = [lv.bound for lv in first.path[:-1]]
    beside = [
        u for u in units if u.shards[0].table == first.table and [lv.bound for lv in u.shards[0].path[:-1]] == above
    ]
    return unit.bytes >= 2 * LEAST_BYTES or len(beside) < len(unit.choices)
