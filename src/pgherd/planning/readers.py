"""Readers: what a region's read-only role may see of a herd, and the steps that make it so. Pure.

A reader's rights are those of single relations on single nodes: the shards that are at home in its region, whole tables
that are, and the region's copies of reference tables. It has none on a partitioned table itself, whose partitions may
be links to other regions. Links of its region's nodes carry its own login, which no other region knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..errors import UnknownName
from ..model.names import Name, quote_literal
from ..model.schema import Partition, Table, TableKind
from ..model.topology import GroupId, Reader, Topology
from .plan import Phase, Plan, Step


def plan_reader(topology: Topology, reader: Reader, secret: str, scribe_secret: str) -> Plan:
    """The plan that makes a region's reader, or gives it other tables and passwords. Raises UnknownName."""
    where = tuple(g.name for g in topology.groups_of(reader.region))
    for name in reader.tables or ():
        topology.table(name)
    others = tuple(r for r in topology.readers if r.region != reader.region)
    result = replace(topology, generation=topology.generation + 1, readers=(*others, reader))
    steps = (_make(where, reader, secret, scribe_secret), *reader_steps(result))
    return Plan(topology.generation, (Phase((), steps, result),))


def plan_log_days(topology: Topology, days: int | None) -> Plan:
    """The plan after which entries of the logs are forgotten when they are ``days`` old; None keeps them for ever."""
    result = replace(topology, generation=topology.generation + 1, log_days=days)
    return Plan(topology.generation, (Phase((), (Step("record", "how long logs are kept", (), ""),), result),))


def reader_steps(topology: Topology) -> Iterator[Step]:
    """Give every reader exactly what it may read at this generation."""
    for reader in topology.readers:
        seen = narrowed(topology, reader)
        relations = [s.relation.sql for t in seen.schema.tables for s in seen.shards(t)]
        listed = ", ".join(map(quote_literal, relations))
        sql = f"SELECT pgherd.let_read({quote_literal(reader.role)}, ARRAY[{listed}]::text[])"
        yield Step("let_read", reader.role, tuple(g.name for g in topology.groups_of(reader.region)), sql)


def join_reader_steps(
    target: Topology, new: tuple[GroupId, ...], secrets: Mapping[str, tuple[str, str]]
) -> Iterator[Step]:
    """The readers of the regions that groups ``new`` join; ``secrets`` maps a role to its password and its scribe's."""
    for reader in target.readers:
        where = tuple(g.name for g in target.groups_of(reader.region) if g.name in new)
        if where and reader.role in secrets:
            yield _make(where, reader, *secrets[reader.role])


def _make(where: tuple[GroupId, ...], reader: Reader, secret: str, scribe_secret: str) -> Step:
    values = (reader.role, reader.scribe, reader.region, secret, scribe_secret)
    sql = f"SELECT pgherd.make_reader({', '.join(map(quote_literal, values))})"
    return Step("make_reader", reader.role, where, sql, secret=True)


def reader_of(topology: Topology, region: str) -> Reader:
    """The reader of a region; UnknownName if it has none."""
    topology.groups_of(region)
    found = next((r for r in topology.readers if r.region == region), None)
    if found is None:
        raise UnknownName(f"region {region} has no reader", hint=f"make one: pgherd reader ensure --region {region} …")
    return found


def narrowed(topology: Topology, reader: Reader) -> Topology:
    """The herd as the reader sees it: its region's groups, its tables, and of those the shards at home there."""
    groups = topology.groups_of(reader.region)
    inside = {g.name for g in groups}
    homes = {relation: home for relation, home in topology.homes.items() if home in inside}
    tables = (t for t in topology.schema.tables if reader.tables is None or t.name in reader.tables)
    kept = {t.name: t for t in (_narrowed(table, homes) for table in tables) if t is not None}
    items = tuple(
        kept[i.name] if isinstance(i, Table) else i
        for i in topology.schema.items
        if (i.name if isinstance(i, Table) else getattr(i, "table", None)) in kept
    )
    return replace(
        topology,
        groups=groups,
        homes=homes,
        schema=replace(topology.schema, items=items, trail=None),
        readers=(reader,),
    )


def _narrowed(table: Table, homes: dict[str, GroupId]) -> Table | None:
    if table.kind is TableKind.REFERENCE:
        return table
    if table.kind is TableKind.LOCAL:
        return table if table.name.sql in homes else None
    partitions = _at_home(table.partitions, homes)
    return replace(table, partitions=partitions) if partitions else None


def _at_home(partitions: tuple[Partition, ...], homes: dict[str, GroupId]) -> tuple[Partition, ...]:
    kept = []
    for part in partitions:
        if part.by is None:
            kept += [part] if part.name.sql in homes else []
        elif below := _at_home(part.partitions, homes):
            kept.append(replace(part, partitions=below))
    return tuple(kept)


def missing_groups(topology: Topology, reader: Reader, tables: list[Name]) -> list[str]:
    """The groups outside the reader's region that hold rows of ``tables``, in order."""
    inside = {g.name for g in topology.groups_of(reader.region)}
    shards = (
        s
        for n in tables
        for s in topology.shards(topology.table(n))
        if topology.table(n).kind is not TableKind.REFERENCE
    )
    return sorted({str(s.home) for s in shards if s.home not in inside})
