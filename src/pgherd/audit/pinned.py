"""Which shards are pinned, and where they may be: pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.names import Name
from ..model.placement import Label, Tablespace
from ..model.schema import Table, TableKind, leaves
from ..model.topology import Shard, Topology


@dataclass(frozen=True, slots=True)
class Pinned:
    """A shard whose tablespace says in which regions its rows may be."""

    table: Table
    shard: Shard
    space: Tablespace

    def allows(self, label: Label) -> bool:
        """Whether the shard's rows may be at ``label``, as one of its replicas or as a read replica."""
        replicas = self.space.read_replicas
        return self.space.allows(label) or (replicas is not None and any(b.matches(label) for b in replicas.blocks))

    @property
    def names(self) -> frozenset[Name]:
        """The table, the partitions on the way, and the shard itself: each of them shows the shard's rows."""
        path = next((above for above, leaf in leaves(self.table.partitions) if leaf.name == self.shard.relation), ())
        return frozenset({self.table.name, self.shard.relation, *(a.name for a in path)})

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the tablespace names, for people."""
        blocks = [*self.space.blocks, *(self.space.read_replicas.blocks if self.space.read_replicas else ())]
        return tuple(dict.fromkeys(b.region for b in blocks))


def pinned_shards(topology: Topology) -> tuple[Pinned, ...]:
    """The shards that some tablespace keeps in named regions."""
    found = []
    for table in topology.schema.tables:
        for shard in topology.shards(table):
            space = topology.schema.tablespace(shard.tablespace) if shard.tablespace else None
            if space is not None and space.regions is not None:
                found.append(Pinned(table, shard, space))
    return tuple(found)


def is_everywhere(pinned: Pinned) -> bool:
    """Whether it is a reference table, which has a copy on every node whatever its tablespace says."""
    return pinned.table.kind is TableKind.REFERENCE
