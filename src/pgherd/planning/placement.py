"""Which group is a shard's home. Guards invariant 3: a pinned row has no home outside its tablespace's regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..errors import ChangeRefused, PlacementUnsatisfied
from ..model.names import Name, derived_name
from ..model.placement import Tablespace
from ..model.schema import Bound, HashBound, Partition, PartitionBy, Schema, Strategy, Table, TableKind, leaves
from ..model.topology import Group, GroupId, Topology

SHARDS_PER_GROUP = 1
"""Hash shards a group gets when the schema does not say: every search visits each of them, and they can be split."""


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
            hint=f"groups: {here}. Lower num_replicas, or give all groups of a local herd standbys:"
            f" pgherd up --replicas {space.num_replicas}. Standbys of attached servers are named in herd.toml",
        )
    wanted = ", ".join(map(str, space.blocks))
    nearest = max(groups, key=lambda g: sum(space.allows(n.label) for n in g.nodes))
    there = sum(space.allows(n.label) for n in nearest.nodes)
    if there:
        raise PlacementUnsatisfied(
            f"tablespace {space.name!r} wants {space.num_replicas} replicas in {wanted}, where group {nearest.name} has"
            f" {there} of its {len(nearest.nodes)} servers, and no group has more",
            hint=f"groups: {here}. Name all places of a group's servers in the placement blocks, with no more replicas"
            ' than it has servers there ("zone": "*" is any zone)',
        )
    raise PlacementUnsatisfied(
        f"tablespace {space.name!r} wants {wanted}, and no server of this herd is there",
        hint=f"groups: {here}. Change replica_placement, or add a server there (pgherd node add --region …)",
    )


def check_enlarged(topology: Topology, groups: tuple[Group, ...]) -> None:
    """PlacementUnsatisfied if a group that serves a tablespace would not with the nodes that it has in ``groups``."""
    larger = {g.name: g for g in groups}
    for space in topology.schema.tablespaces:
        for group in topology.groups:
            if serves(group, space) and not serves(new := larger[group.name], space):
                outside = ", ".join(str(n.label) for n in new.nodes if not space.allows(n.label))
                raise PlacementUnsatisfied(
                    f"tablespace {space.name!r} keeps rows in {', '.join(map(str, space.blocks))}:"
                    f" group {group.name} can't have standbys in {outside}",
                    hint='name all zones of the region in its placement blocks ("zone": "*"), apply that, then again',
                )


def expand(table: Table, current: Schema, group_count: int) -> Table:
    """The table with its hash shards spelled out, as many as it asks for, or has, or ``group_count`` suggests.

    Shards that have been split since are what the file asks for, too. A new table has its shards as the distributed
    table that it references has them now. Raises ChangeRefused for a shard count that splitting does not lead to.
    """
    if table.kind is not TableKind.DISTRIBUTED or table.by is None:
        return table
    old = current.table(table.name)
    known = old.partitions if old else ()
    like = () if old else _referenced(table, current)
    parts = _expand_level(table.name, table.by, table.partitions, table.shard_count, known, like, group_count)
    return replace(table, partitions=parts, shard_count=None)


def _referenced(table: Table, current: Schema) -> tuple[Partition, ...]:
    others = (current.table(fk.references) for fk in table.foreign_keys)
    return next((o.partitions for o in others if o and o.kind is TableKind.DISTRIBUTED), ())


def _expand_level(
    parent: Name,
    by: PartitionBy,
    partitions: tuple[Partition, ...],
    wanted: int | None,
    known: tuple[Partition, ...],
    like: tuple[Partition, ...],
    group_count: int,
) -> tuple[Partition, ...]:
    if partitions or by.strategy is Strategy.LIST:
        names = {p.name: p for p in known}
        found: list[Partition] = []
        for p in partitions:
            if p.by is None:
                found += [p] if p.name in names else _split_since(p, known) or [p]
                continue
            old = names[p.name].partitions if p.name in names else ()
            beside = next((q.partitions for q in like if q.bound == p.bound), ())
            below = _expand_level(p.name, p.by, p.partitions, p.shard_count, old, beside, group_count)
            found.append(replace(p, partitions=below, shard_count=None))
        return tuple(found)
    if known:
        _check_count(parent, _bounds(known), wanted or 0)
        return known
    bounds = _bounds(like)
    if bounds and (not wanted or _leads_to(bounds, wanted)):
        if any(b.modulus != len(bounds) for b in bounds):
            return tuple(Partition(_shard_name(parent, f"_{b.modulus}_{b.remainder}"), b) for b in bounds)
        wanted = len(bounds)
    count = wanted or SHARDS_PER_GROUP * group_count
    width = len(str(count - 1))
    return tuple(Partition(_shard_name(parent, f"_{i:0{width}}"), HashBound(count, i)) for i in range(count))


def _shard_name(parent: Name, suffix: str) -> Name:
    return Name(parent.schema, derived_name(parent.name, suffix))


def _bounds(partitions: tuple[Partition, ...]) -> list[HashBound]:
    return [p.bound for p in partitions if isinstance(p.bound, HashBound)]


def _split_since(part: Partition, known: tuple[Partition, ...]) -> list[Partition]:
    """What a hash partition of the file has been split into; nothing if it has not."""
    bound = part.bound
    if not isinstance(bound, HashBound):
        return []
    return [
        replace(p, tablespace=part.tablespace)
        for p in known
        if isinstance(p.bound, HashBound)
        and p.bound.modulus > bound.modulus
        and p.bound.modulus % bound.modulus == 0
        and p.bound.remainder % bound.modulus == bound.remainder
    ]


def _leads_to(bounds: list[HashBound], count: int) -> bool:
    """Whether shards of ``count`` in all are split into these, or these into them: each time in two."""

    def twice(small: int, large: int) -> bool:
        return large % small == 0 and (large // small).bit_count() == 1

    return all(twice(b.modulus, count) or twice(count, b.modulus) for b in bounds)


def _check_count(parent: Name, bounds: list[HashBound], wanted: int) -> None:
    if not wanted or _leads_to(bounds, wanted):
        return
    above = max(b.modulus for b in bounds)
    while above < wanted:
        above *= 2
    choices = [c for c in (above // 2, above) if _leads_to(bounds, c)]
    said = f"ask for {' or '.join(map(str, choices))}" if choices else "keep the count"
    raise ChangeRefused(
        f"{parent} has {len(bounds)} shards and the schema now asks for {wanted}: every row would have to move",
        hint=f"shards are split in two each: {said}; or make a new table with that shard count and copy the rows",
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
                nodes = by_name[home].nodes
                if len(nodes) < space.num_replicas and all(space.allows(n.label) for n in nodes):
                    raise ChangeRefused(
                        f"tablespace {space.name!r} wants {space.num_replicas} replicas; group {home}, the home of"
                        f" {relation}, has {len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}",
                        hint=f"a local herd's groups get standbys by pgherd up --replicas {space.num_replicas};"
                        " then apply again",
                    )
                raise ChangeRefused(
                    f"tablespace {space.name!r} no longer allows group {home}, the home of {relation}",
                    hint="moving shards with rows is not part of apply; keep the old policy, or use a new tablespace",
                )


def spaces_of(table: Table) -> dict[Name, str | None]:
    """The tablespace of every shard of a distributed table."""
    return {leaf.name: _space_of(table, ancestors, leaf) for ancestors, leaf in leaves(table.partitions)}


def _space_of(table: Table, ancestors: tuple[Partition, ...], leaf: Partition) -> str | None:
    """The nearest tablespace that is named on the way from a shard up to its table."""
    return next((p.tablespace for p in (leaf, *reversed(ancestors)) if p.tablespace), table.tablespace)
