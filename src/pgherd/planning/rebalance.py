"""Which shards to move where: pure. Bytes are evened out within what tablespaces allow, moving as few as will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ChangeRefused
from ..model.names import Name
from ..model.schema import TableKind
from ..model.topology import GroupId, Shard, Topology
from .balance import Balance, Weight
from .placement import serves

TOLERANCE = 0.05
"""A move must bring two groups nearer to each other by this share of the mean; less is not worth its traffic."""


@dataclass(frozen=True, slots=True)
class Move:
    """Shards that go from one group to another together: one, or those that foreign keys tie to it."""

    shards: tuple[Name, ...]
    source: GroupId
    target: GroupId
    bytes: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Shards that stay together, where they are, and the groups that all their tablespaces allow."""

    shards: tuple[Shard, ...]
    home: GroupId
    bytes: int
    choices: tuple[GroupId, ...]


def rebalance(topology: Topology, sizes: Mapping[str, int]) -> tuple[Move, ...]:
    """Moves that even out the groups' bytes. ``sizes``: bytes of each shard by ``Name.sql``; unknown ones count as 1.

    Greedy: the one move that lowers the sum of squares most, again and again, until none is worth it.
    """
    units = units_of(topology, sizes)
    load = loads(topology, units)
    weights = [Weight(u.bytes, u.shards[0].name, u.home, u.choices) for u in units]
    balance = Balance(weights, load, TOLERANCE * sum(load.values()) / len(load))
    return tuple(_move(units[i], target) for i, target in iter(balance.pop, None))


def drain(topology: Topology, sizes: Mapping[str, int], group: GroupId) -> tuple[Move, ...]:
    """Moves that leave no shard in ``group``; ChangeRefused naming a shard that may live nowhere else."""
    topology.group(group)
    local = [
        t.name for t in topology.schema.tables if t.kind is TableKind.LOCAL and topology.homes[t.name.sql] == group
    ]
    if local:
        raise ChangeRefused(
            f"table {local[0]} is whole in group {group}, and local tables can't be moved",
            hint="distribute it, or make it a reference table",
        )
    units = units_of(topology, sizes)
    load = loads(topology, units)
    moves: list[Move] = []
    for unit in sorted((u for u in units if u.home == group), key=lambda u: (-u.bytes, u.shards[0].name)):
        choices = [g for g in unit.choices if g != group]
        if not choices:
            raise ChangeRefused(
                f"shard {unit.shards[0].name} may live in no other group than {group}{_why(topology, unit)}",
                hint="add a server at a place that its tablespace allows (pgherd node add --region …)",
            )
        target = min(choices, key=lambda g: (load[g], g))
        load[target] += unit.bytes
        moves.append(_move(unit, target))
    return tuple(moves)


def _why(topology: Topology, unit: Unit) -> str:
    """What the tablespaces of shards want that no other group has."""
    found = []
    for name in dict.fromkeys(s.tablespace for s in unit.shards if s.tablespace):
        space = topology.schema.tablespace(name)
        assert space is not None
        places = ", ".join(map(str, space.blocks)) or "any place"
        found.append(f"tablespace {name!r} wants {max(1, space.num_replicas)} nodes at {places}")
    return f": {'; '.join(found)}" if found else ": there is none"


def tied_shards(topology: Topology) -> list[tuple[Shard, ...]]:
    """All shards of distributed tables, by what must stay together."""
    return [unit.shards for unit in units_of(topology, {})]


def _move(unit: Unit, target: GroupId) -> Move:
    return Move(tuple(s.relation for s in unit.shards), unit.home, target, unit.bytes)


def loads(topology: Topology, units: list[Unit]) -> dict[GroupId, int]:
    """Bytes of every group."""
    load = {g.name: 0 for g in topology.groups}
    for unit in units:
        load[unit.home] += unit.bytes
    return load


def units_of(topology: Topology, sizes: Mapping[str, int]) -> list[Unit]:
    """Shards by what must stay together: those of tables tied by foreign keys, at the same place in their tables."""
    tied: dict[Name, Name] = {}
    for table in topology.schema.tables:
        if table.kind is TableKind.DISTRIBUTED:
            root = tied.setdefault(table.name, table.name)
            for key in table.foreign_keys:
                if topology.table(key.references).kind is TableKind.DISTRIBUTED:
                    other = tied.setdefault(key.references, key.references)
                    tied = {name: other if at == root else at for name, at in tied.items()}
                    root = other
    together: dict[tuple[Name, str], list[Shard]] = {}
    for table in topology.schema.tables:
        if table.kind is TableKind.DISTRIBUTED:
            for shard in topology.shards(table):
                together.setdefault((tied[table.name], repr([lv.bound for lv in shard.path])), []).append(shard)
    allowed: dict[frozenset[str], tuple[GroupId, ...]] = {}
    units = []
    for shards in together.values():
        names = frozenset(s.tablespace for s in shards if s.tablespace)
        if names not in allowed:
            allowed[names] = _choices(topology, names)
        weight = sum(sizes.get(s.relation.sql, 1) for s in shards)
        units.append(Unit(tuple(shards), shards[0].home, weight, allowed[names]))
    return units


def _choices(topology: Topology, tablespaces: frozenset[str]) -> tuple[GroupId, ...]:
    """The groups that all of these tablespaces allow."""
    spaces = [topology.schema.tablespace(name) for name in tablespaces]
    return tuple(g.name for g in topology.groups if all(serves(g, space) for space in spaces))
