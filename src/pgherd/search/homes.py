"""The groups that can hold a hit."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

from ..model.names import Name
from ..model.schema import CELLS_PER_SHARD, ListBound, Table, TableKind
from ..model.topology import Shard


class Home(NamedTuple):
    """A group that can hold a hit, and the shards there."""

    name: str
    shards: tuple[Shard, ...]
    relations: tuple[Name, ...]
    names: tuple[str, ...]
    """of the shards"""


def homes_of(table: Table, shards: Sequence[Shard]) -> tuple[Home, ...]:
    """The groups that hold these shards, always in the same order, so that searches never wait for each other's."""
    by_home: dict[str, list[Shard]] = {}
    for shard in shards:
        by_home.setdefault(shard.home, []).append(shard)
    names = list(by_home)[:1] if table.kind is TableKind.REFERENCE else sorted(by_home)
    return tuple(
        Home(n, tuple(by_home[n]), tuple(s.relation for s in by_home[n]), tuple(s.name for s in by_home[n]))
        for n in names
    )


def cell_number(shard: Shard) -> int:
    """Which shard it is of a table that is shared out by cells, counted from 0."""
    bound = shard.path[0].bound
    assert isinstance(bound, ListBound)
    return int(bound.values[0] or 0) // CELLS_PER_SHARD


def with_numbers(table: Table, homes: Sequence[Home], numbers: Set[int]) -> tuple[Home, ...]:
    """The same homes with those shards only whose number is among ``numbers``."""
    return homes_of(table, [s for home in homes for s in home.shards if cell_number(s) in numbers])
