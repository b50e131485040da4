"""A herd that nobody has: groups, shards at their homes, and what each shard weighs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadInput
from ..model.names import Name
from ..model.placement import Label, PlacementBlock, Tablespace
from ..model.schema import (
    Column,
    Index,
    Key,
    ListBound,
    Partition,
    PartitionBy,
    Schema,
    Strategy,
    Table,
    TableKind,
)
from ..model.topology import EngineName, Group, GroupId, Node, NodeId, Role, Topology
from ..planning.placement import SHARDS_PER_GROUP, expand, homes_of
from ..planning.workload import Workload

MAX_NODES = 1000
MAX_ROWS = 10**10
MAX_SHARDS = 64_000
TABLE = Name("public", "item")
KEY_BYTES = 20 / 0.9
"""A bigint primary key: 16 B and a line pointer an entry, pages 90 % full."""


@dataclass(frozen=True, slots=True)
class Shape:
    """``nodes`` servers in groups of ``replicas``, over ``regions`` that rows are pinned to (1: none are pinned)."""

    nodes: int
    regions: int = 1
    replicas: int = 1
    shards: int | None = None
    seed: int = 0

    @property
    def groups(self) -> int:
        """Groups: nodes with different bytes."""
        return self.nodes // self.replicas

    def check(self, rows: int) -> None:
        """BadInput for numbers that make no sense."""
        for what, value, low, high in (
            ("nodes", self.nodes, 1, MAX_NODES),
            ("replicas", self.replicas, 1, 7),
            ("regions", self.regions, 1, max(1, self.groups)),
            ("shards", 1 if self.shards is None else self.shards, 1, MAX_SHARDS),
            ("rows", rows, 1, MAX_ROWS),
        ):
            if not low <= value <= high:
                raise BadInput(f"{what} is {value:,}", hint=f"{low:,} to {high:,}")
        if self.nodes % self.replicas:
            raise BadInput(
                f"{self.nodes} nodes can't be shared out among groups of {self.replicas}",
                hint="make nodes a multiple of replicas",
            )


def groups_of(shape: Shape, first: int, count: int) -> tuple[Group, ...]:
    """``count`` groups from number ``first`` (1 on), going round the regions; each has its replicas in one of them."""
    found = []
    for number in range(first, first + count):
        region, name = _region((number - 1) % shape.regions), f"g{number:04}"
        nodes = tuple(
            Node(
                NodeId(f"{name}_{i}"),
                "127.0.0.1",
                5432,
                Label("local", region, "abcdefg"[i]),
                Role.PRIMARY if i == 0 else Role.STANDBY,
            )
            for i in range(shape.replicas)
        )
        found.append(Group(GroupId(name), number, nodes))
    return tuple(found)


def synthetic(shape: Shape, work: Workload) -> tuple[Topology, dict[str, int]]:
    """The herd with one table, its shards placed as ``apply`` would place them, and the bytes of every shard.

    Rows fall into shards by their hash: as many as chance has it, from a generator with a fixed seed.
    """
    shape.check(work.rows)
    groups = groups_of(shape, 1, shape.groups)
    total = shape.shards or SHARDS_PER_GROUP * shape.groups
    spaces = () if shape.regions == 1 else tuple(_space(shape, r) for r in range(shape.regions))
    table = expand(_table(shape, work, max(1, total // shape.regions)), Schema(), len(groups))
    index = Index(
        Name("public", "item_v"), TABLE, "hnsw", ("v vector_cosine_ops",), ("v",), opclass="vector_cosine_ops"
    )
    schema = Schema(spaces, (table, index))
    topology = Topology(1, EngineName.FLEET, groups, schema)
    topology = replace(topology, homes=homes_of(table, schema, groups, {}))
    return topology, weigh(topology, work, shape.seed)


def weigh(topology: Topology, work: Workload, seed: int) -> dict[str, int]:
    """Bytes of every shard, table, index and primary key, by ``Name.sql``."""
    names = list(topology.homes)
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(work.rows, np.full(len(names), 1 / len(names)))
    each = (work.table.bytes + work.index().bytes) / work.rows + KEY_BYTES
    return {name: int(n * each) for name, n in zip(names, rows.tolist(), strict=True)}


def _table(shape: Shape, work: Workload, shards: int) -> Table:
    columns = (
        Column("id", "bigint", not_null=True),
        Column("region", "text", not_null=True),
        Column("v", f"{work.kind}({work.dim})"),
    )
    hashed = PartitionBy(Strategy.HASH, ("id",))
    table = Table(TABLE, columns, TableKind.DISTRIBUTED, (Key(("id", "region"), primary=True),))
    if shape.regions == 1:
        return replace(table, by=hashed, shard_count=shards)
    parts = tuple(
        Partition(
            Name("public", f"item_{_region(r)}"), ListBound((_region(r),)), _region(r), hashed, shard_count=shards
        )
        for r in range(shape.regions)
    )
    return replace(table, by=PartitionBy(Strategy.LIST, ("region",)), partitions=parts)


def _region(number: int) -> str:
    return f"r{number + 1}"


def _space(shape: Shape, region: int) -> Tablespace:
    block = PlacementBlock("local", _region(region), "*", shape.replicas)
    return Tablespace(_region(region), shape.replicas, (block,))
