"""The herd at one generation: who serves what. A number that only grows names each topology."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from ..errors import UnknownName
from .names import Name
from .placement import Label
from .schema import Bound, Index, PartitionBy, Schema, Table, TableKind, leaves
from .tls import Tls

NodeId = NewType("NodeId", str)
GroupId = NewType("GroupId", str)
ShardId = NewType("ShardId", str)


class Role(StrEnum):
    """What a node does in its group."""

    PRIMARY = "primary"
    STANDBY = "standby"


class EngineName(StrEnum):
    """Who distributes."""

    SINGLE = "single"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True)
class Node:
    """One PostgreSQL server process. ``tls`` is how other servers reach it; None: as their libpq does by itself."""

    name: NodeId
    host: str
    port: int
    label: Label
    role: Role = Role.PRIMARY
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The nodes that hold the same bytes: one primary and its streaming standbys.

    ``number`` is unique for ever in a herd; sequences take their ids from it.
    """

    name: GroupId
    number: int
    nodes: tuple[Node, ...]

    @property
    def primary(self) -> Node:
        """The node that accepts writes."""
        return next(n for n in self.nodes if n.role is Role.PRIMARY)


@dataclass(frozen=True, slots=True)
class Level:
    """One step on the way from a table to a shard: how that level shares out, and which part this is."""

    by: PartitionBy
    bound: Bound


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a table that lives in one group; ``path`` is empty for a table that is not partitioned."""

    name: ShardId
    table: Name
    relation: Name
    home: GroupId
    path: tuple[Level, ...] = ()
    tablespace: str | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """Who may read what is at home in one region, and nothing else: a role that exists on that region's nodes only.

    ``scribe`` is the role that writes the access log for it, and can do nothing else. ``tables`` None means all, those
    that come later too.
    """

    region: str
    role: str
    scribe: str
    tables: tuple[Name, ...] | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """Groups, schema and homes at one generation. ``homes`` maps ``Name.sql`` of every shard's relation to a group.

    ``log_days`` is how long entries of the access log and the log of models' calls are kept; None: for ever.
    """

    generation: int
    engine: EngineName
    groups: tuple[Group, ...]
    schema: Schema = field(default_factory=Schema)
    homes: dict[str, GroupId] = field(default_factory=dict)
    readers: tuple[Reader, ...] = ()
    log_days: int | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes of all groups."""
        return tuple(n for g in self.groups for n in g.nodes)

    def groups_of(self, region: str) -> tuple[Group, ...]:
        """The groups whose primary is in that region; UnknownName for one that the herd is not in."""
        found = tuple(g for g in self.groups if g.primary.label.region == region)
        if not found:
            regions = ", ".join(dict.fromkeys(g.primary.label.region for g in self.groups))
            raise UnknownName(f"there is no region {region!r} in this herd", hint=f"regions: {regions}")
        return found

    def group(self, name: str) -> Group:
        """The group of that name; UnknownName otherwise."""
        for g in self.groups:
            if g.name == name:
                return g
        raise UnknownName(f"there is no group {name!r}", hint="groups: " + ", ".join(g.name for g in self.groups))

    def table(self, name: Name | str) -> Table:
        """The table of that name; UnknownName otherwise."""
        wanted = Name.parse(name) if isinstance(name, str) else name
        found = self.schema.table(wanted)
        if found is None:
            known = ", ".join(str(t.name) for t in self.schema.tables) or "none yet (pgherd apply schema.sql)"
            raise UnknownName(f"there is no table {str(wanted)!r} in this herd", hint=f"tables: {known}")
        return found

    def shards(self, table: Table) -> tuple[Shard, ...]:
        """The table's shards with their homes. A reference table is given once, at home in the first group."""
        if table.kind is not TableKind.DISTRIBUTED:
            home = self.homes.get(table.name.sql, self.groups[0].name)
            return (Shard(ShardId(str(table.name)), table.name, table.name, home, (), table.tablespace),)
        assert table.by is not None
        found = []
        for ancestors, leaf in leaves(table.partitions):
            path, by, space = [], table.by, table.tablespace
            for part in (*ancestors, leaf):
                path.append(Level(by, part.bound))
                by, space = part.by or by, part.tablespace or space
            home = self.homes[leaf.name.sql]
            found.append(Shard(ShardId(str(leaf.name)), table.name, leaf.name, home, tuple(path), space))
        return tuple(found)

    def indexes(self, table: Table) -> tuple[Index, ...]:
        """The table's indexes."""
        return tuple(i for i in self.schema.indexes if i.table == table.name)
