"""Which group is a shard's home. Guards invariant 3: a pinned row has no home outside its tablespace's regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..errors import ChangeRefused, PlacementUnsatisfied
from ..model.names import Name, derived_name
from ..model.placement import Tablespace
from ..model.schema import Bound, HashBound, Partition, PartitionBy, Schema, Strategy, Table, TableKind, leaves
from ..model.topology import Group, GroupId

SHARDS_PER_GROUP = 2
"""Hash shards a group gets when the schema does not say: few and large, since every search visits each of them."""


def serves(group: Group, space: Tablespace | None) -> bool:
    """Whether a group's nodes cover a tablespace: enough of them, all at allowed places, each block's minimum met."""
    if space is None:
        return True
    labels = [n.label for n in group.nodes]
    return (
        len(labels) >= space.num_replicas
        and all(space.allows(label) for label in labels)
        and all(sum(b.matches(label) for label in labels) >= b.min_num_replicas for b in space.blocks)
    )


def eligible(groups: tuple[Group, ...], space: Tablespace | None) -> tuple[Group, ...]:
    """The groups that serve a tablespace; PlacementUnsatisfied, saying what is there, when none does."""
    found = tuple(g for g in groups if serves(g, space))
    if found or space is None:
        return found
    here = ", ".join(f"{g.name} ({', '.join(str(n.label) for n in g.nodes)})" for g in groups)
    if any(all(space.allows(n.label) for n in g.nodes) for g in groups):
        raise PlacementUnsatisfied(
            f"tablespace {space.name!r} wants {space.num_replicas} replicas, more nodes than any group has there",
            hint=f"groups: {here}. Lower num_replicas, or add standbys to a group",
        )
    wanted = ", ".join(map(str, space.blocks))
    raise PlacementUnsatisfied(
        f"tablespace {space.name!r} wants {wanted}, and no server of this herd is there",
        hint=f"groups: {here}. Change replica_placement, or add a server there (pgherd node add --region …)",
    )


def expand(table: Table, current: Table | None, group_count: int) -> Table:
    """The table with its hash shards spelled out, as many as it asks for, or has, or ``group_count`` suggests."""
    if table.kind is not TableKind.DISTRIBUTED or table.by is None:
        return table
    known = current.partitions if current else ()
    parts = _expand_level(table.name, table.by, table.partitions, table.shard_count, known, group_count)
    return replace(table, partitions=parts, shard_count=None)


def _expand_level(
    parent: Name,
    by: PartitionBy,
    partitions: tuple[Partition, ...],
    wanted: int | None,
    known: tuple[Partition, ...],
    group_count: int,
) -> tuple[Partition, ...]:
    if partitions or by.strategy is Strategy.LIST:
        old = {p.name: p.partitions for p in known}
        return tuple(
            p
            if p.by is None
            else replace(
                p,
                partitions=_expand_level(p.name, p.by, p.partitions, p.shard_count, old.get(p.name, ()), group_count),
                shard_count=None,
            )
            for p in partitions
        )
    if known and wanted and wanted != len(known):
        raise ChangeRefused(
            f"{parent} has {len(known)} shards and the schema now asks for {wanted}: every row would have to move",
            hint="make a new table with that shard count and copy the rows, or keep the count",
        )
    count = len(known) or wanted or SHARDS_PER_GROUP * group_count
    width = len(str(count - 1))
    return tuple(
        Partition(Name(parent.schema, derived_name(parent.name, f"_{i:0{width}}")), HashBound(count, i))
        for i in range(count)
    )


def homes_of(table: Table, schema: Schema, groups: tuple[Group, ...], known: dict[str, GroupId]) -> dict[str, GroupId]:
    """A home for every shard of ``table`` that has none in ``known``; those that have one keep it.

    A shard whose table references another distributed table goes where its counterpart is. Otherwise hash shard number
    i goes to the i-th eligible group, round the circle, so that tables with equal shard counts are colocated; a list
    shard goes to the eligible group with the fewest shards.
    """

    def space(name: str | None) -> Tablespace | None:
        return schema.tablespace(name) if name else None

    if table.kind is TableKind.REFERENCE:
        return {}
    if table.kind is TableKind.LOCAL:
        home = known.get(table.name.sql) or eligible(groups, space(table.tablespace))[0].name
        return {table.name.sql: home}
    load = Counter(known.values())
    counterparts = _counterparts(table, schema, known)
    found: dict[str, GroupId] = {}
    allowed: dict[str | None, tuple[Group, ...]] = {}
    for ancestors, leaf in leaves(table.partitions):
        name = _space_of(table, ancestors, leaf)
        if leaf.name.sql in known:
            found[leaf.name.sql] = known[leaf.name.sql]
            continue
        if name not in allowed:
            allowed[name] = eligible(groups, space(name))
        choices = allowed[name]
        beside = counterparts.get(_path(ancestors, leaf))
        if beside is not None and any(g.name == beside for g in choices):
            home = beside
        elif isinstance(leaf.bound, HashBound):
            home = choices[leaf.bound.remainder % len(choices)].name
        else:
            home = min(choices, key=lambda g: load[g.name]).name
        load[home] += 1
        found[leaf.name.sql] = home
    return found


def _path(ancestors: tuple[Partition, ...], leaf: Partition) -> tuple[Bound, ...]:
    return tuple(p.bound for p in (*ancestors, leaf))


def _counterparts(table: Table, schema: Schema, known: dict[str, GroupId]) -> dict[tuple[Bound, ...], GroupId]:
    """Where the shards of the distributed tables that ``table`` references are, by their bounds from the top down."""
    found: dict[tuple[Bound, ...], GroupId] = {}
    for fk in table.foreign_keys:
        other = schema.table(fk.references)
        if other is not None and other.name != table.name and other.kind is TableKind.DISTRIBUTED:
            for ancestors, leaf in leaves(other.partitions):
                if leaf.name.sql in known:
                    found.setdefault(_path(ancestors, leaf), known[leaf.name.sql])
    return found


def check_homes(schema: Schema, groups: tuple[Group, ...], homes: dict[str, GroupId]) -> None:
    """Refuse a changed tablespace that would leave a shard where it no longer may be."""
    by_name = {g.name: g for g in groups}
    for table in schema.tables:
        places = [(table.name, table.tablespace)] if table.kind is TableKind.LOCAL else []
        places += [(leaf.name, _space_of(table, ancestors, leaf)) for ancestors, leaf in leaves(table.partitions)]
        for relation, space_name in places:
            space = schema.tablespace(space_name) if space_name else None
            home = homes.get(relation.sql)
            if home and space and not serves(by_name[home], space):
                raise ChangeRefused(
                    f"tablespace {space.name!r} no longer allows group {home}, the home of {relation}",
                    hint="moving shards with rows is not part of apply; keep the old policy, or use a new tablespace",
                )


def _space_of(table: Table, ancestors: tuple[Partition, ...], leaf: Partition) -> str | None:
    """The nearest tablespace that is named on the way from a shard up to its table."""
    return next((p.tablespace for p in (leaf, *reversed(ancestors)) if p.tablespace), table.tablespace)
