"""Splitting hash shards in two while they are read and written, each at its home.

A shard (modulus m, remainder r) becomes (2m, r) and (2m, r + m): PostgreSQL allows moduli side by side when each is a
factor of the next larger one. The halves are tables of their own, filled from the shard in one snapshot; what is
written meanwhile is noted by a trigger and brought up to date in rounds (engines/sql/split.sql). Then one short
two-phase commit takes the shard out and puts its halves in on every node, with the locks of a move, in its order
(move.py).

The last changes are brought up to date while it keeps writers out, and are committed before it: groups commit one
after the other, and a statement that comes from a group that has committed waits at a home that has not, with a
snapshot of before. The halves get new names, so whoever has an older topology finds no shard of that name, and looks
again, rather than half of the rows. Source: PostgreSQL 18 manual, CREATE TABLE, PARTITION OF (hash bounds).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..errors import ChangeRefused, UnknownName
from ..model.names import Name, derived_name, quote_literal
from ..model.schema import HashBound, Partition, PartitionBy, Schema, Table, TableKind, leaves
from ..model.topology import GroupId, Shard, Topology
from . import ddl
from .compile import Compiler
from .finish import finish
from .move import HOLD_S, WAIT, find_shard
from .placement import spaces_of
from .plan import BRIEFLY, Phase, Plan, Step, Traits
from .rebalance import tied_shards

ROUNDS = 3
"""How often what was written meanwhile is brought up to date before the commit; each round leaves less to the next."""
HOLD_ROWS = 1000
"""The commit brings no more changes up to date than this, with the writers waiting."""


@dataclass(frozen=True, slots=True)
class Split:
    """Shards that are split in one phase: one, or those that foreign keys tie to it. ``bytes``: their size now.

    ``halves`` are what each of them becomes.
    """

    shards: tuple[Name, ...]
    halves: tuple[tuple[Name, Name], ...]
    home: GroupId
    bytes: int


@dataclass(frozen=True, slots=True)
class _Parts:
    """A shard that is to be split: its table, what it is a partition of, and the halves."""

    table: Table
    parent: Name
    by: PartitionBy
    whole: Partition
    halves: tuple[Partition, Partition]


def splits_of(topology: Topology, name: str, sizes: Mapping[str, int]) -> tuple[Split, ...]:
    """The splits of one shard, or of each of a table's hash shards once, by ``name``.

    Raises UnknownName, and ChangeRefused for what can't be split.
    """
    wanted = Name.parse(name)
    table = topology.schema.table(wanted)
    units = [u for u in tied_shards(topology) if any(wanted in (s.relation, s.table) for s in u)]
    if table is not None:
        units = [u for u in units if isinstance(u[0].path[-1].bound, HashBound)]
        if not units:
            raise ChangeRefused(
                f"table {table.name} has no hash shards, and only those can be split",
                hint="distribute it by hash, or give its LIST partitions a PARTITION BY HASH of their own",
            )
    elif not units:
        known = ", ".join(str(t.name) for t in topology.schema.tables if t.kind is TableKind.DISTRIBUTED)
        raise UnknownName(
            f"there is no table or shard {str(wanted)!r} in this herd",
            hint=f"pgherd status shows the shards; distributed tables: {known or 'none'}",
        )
    taken = _names(topology.schema)
    return tuple(_split_of(topology, unit, sizes, taken) for unit in units)


def describe(split: Split) -> str:
    """``split doc_0 into doc_4_0 and doc_4_2``, for people."""
    pairs = zip(split.shards, split.halves, strict=True)
    return "split " + ", ".join(f"{shard} into {low} and {high}" for shard, (low, high) in pairs)


def splits_for(topology: Topology, desired: Schema) -> tuple[Split, ...]:
    """The splits after which each table has as many hash shards as ``desired`` asks for; some may have more."""
    counts = dict(_asked(desired))
    reached = topology
    splits: list[Split] = []
    while True:
        parents = dict(_parents(reached.schema))
        coarse = (u for u in tied_shards(reached) if any(_is_coarse(s, counts.get(parents[s.relation])) for s in u))
        unit = next(coarse, None)
        if unit is None:
            return tuple(splits)
        splits.append(split_of(reached, unit, {}))
        reached = after_split(reached, splits[-1])


def _asked(desired: Schema) -> Iterator[tuple[Name, int]]:
    """What is to be shared out by hash into how many shards."""
    for table in desired.tables:
        if table.shard_count:
            yield table.name, table.shard_count
        for part in every_partition(table.partitions):
            if part.shard_count:
                yield part.name, part.shard_count


def _parents(schema: Schema) -> Iterator[tuple[Name, Name]]:
    """Each shard, and what it is a partition of."""
    for table in schema.tables:
        for ancestors, leaf in leaves(table.partitions):
            yield leaf.name, ancestors[-1].name if ancestors else table.name


def _is_coarse(shard: Shard, count: int | None) -> bool:
    bound = shard.path[-1].bound
    return count is not None and isinstance(bound, HashBound) and bound.modulus < count


def split_of(topology: Topology, unit: tuple[Shard, ...], sizes: Mapping[str, int]) -> Split:
    """The split of shards that are tied to each other; ChangeRefused if one of them can't be split."""
    return _split_of(topology, unit, sizes, _names(topology.schema))


def _split_of(topology: Topology, unit: tuple[Shard, ...], sizes: Mapping[str, int], taken: set[str]) -> Split:
    _check_splittable(topology, unit)
    halves = []
    for shard in unit:
        _, parent, whole = find_shard(topology, shard.relation)
        first, second = _bounds(whole)
        halves.append((_half_name(parent, first, taken), _half_name(parent, second, taken)))
    size = sum(sizes.get(s.relation.sql, 0) for s in unit)
    home = topology.homes[unit[0].relation.sql]  # not the unit's: who plans moves after splits has them there already
    return Split(tuple(s.relation for s in unit), tuple(halves), home, size)


def _check_splittable(topology: Topology, unit: tuple[Shard, ...]) -> None:
    """ChangeRefused for a shard that is not by hash, or has no key by which its changes can be followed."""
    for shard in unit:
        if not isinstance(shard.path[-1].bound, HashBound):
            raise ChangeRefused(
                f"shard {shard.relation} is a LIST partition, and only hash shards can be split",
                hint="give the partition a PARTITION BY HASH of its own in a new table, and copy the rows",
            )
        if not topology.table(shard.table).primary_key:
            raise ChangeRefused(
                f"table {shard.table} has no primary key, so what is written to shard {shard.relation} while it is"
                " split can't be followed",
                hint="make a table with a primary key (an identity column beside the partition columns will do) and"
                " copy the rows; its shards can be moved as they are (pgherd rebalance)",
            )


def plan_splits(topology: Topology, splits: tuple[Split, ...], traits: Traits) -> Plan:
    """One phase a split: generation by generation, so that a plan that is stopped has split what it has split.

    Raises ChangeRefused for what can't be split.
    """
    if splits and not traits.enforces_placement:
        raise ChangeRefused(
            "there is one server, and a shard split in two would be searched twice there and gain nothing",
            hint="start a fleet: its shards split and move to servers that join",
        )
    phases = []
    reached = topology
    for split in splits:
        shards = {s.relation: s for t in reached.schema.tables for s in reached.shards(t)}
        _check_splittable(reached, tuple(shards[n] for n in split.shards))
        splitter = _Splitter(reached, split, traits)
        phases.append(
            Phase(tuple(splitter.builds()), tuple(splitter.commits()), splitter.after, tuple(splitter.afters()))
        )
        reached = splitter.after
    return Plan(topology.generation, tuple(phases))


def after_split(topology: Topology, split: Split) -> Topology:
    """The topology with those shards split; at the next generation."""
    return _after(topology, _parts(topology, split))


def _parts(topology: Topology, split: Split) -> list[_Parts]:
    found = []
    for name, (first, second) in zip(split.shards, split.halves, strict=True):
        table, parent, whole = find_shard(topology, name)
        by = next(s for s in topology.shards(table) if s.relation == name).path[-1].by
        low, high = _bounds(whole)
        halves = replace(whole, name=first, bound=low), replace(whole, name=second, bound=high)
        found.append(_Parts(table, parent, by, whole, halves))
    return found


def _bounds(whole: Partition) -> tuple[HashBound, HashBound]:
    assert isinstance(whole.bound, HashBound)
    modulus, remainder = whole.bound.modulus, whole.bound.remainder
    return HashBound(2 * modulus, remainder), HashBound(2 * modulus, remainder + modulus)


def _half_name(parent: Name, bound: HashBound, taken: set[str]) -> Name:
    """``parent_modulus_remainder``, so that names don't grow with each split; with a digest where that is ``taken``.

    ``taken`` (each a ``Name.sql``) gets the new name too.
    """
    suffix = f"_{bound.modulus}_{bound.remainder}"
    digest = hashlib.sha256(f"{parent.sql}{suffix}".encode()).hexdigest()
    names = (Name(parent.schema, derived_name(parent.name, f"{extra}{suffix}")) for extra in ("", f"_{digest[:8]}"))
    name = next((n for n in names if n.sql not in taken), Name(parent.schema, derived_name(parent.name, f"_{digest}")))
    taken.add(name.sql)
    return name


def _names(schema: Schema) -> set[str]:
    """What is called something in the schema already: tables, partitions, indexes and their parts, other objects."""
    taken = {t.name.sql for t in schema.tables} | {i.name.sql for i in schema.indexes}
    taken |= {o.name for o in schema.objects}
    for table in schema.tables:
        taken |= {p.name.sql for p in every_partition(table.partitions)}
        for index in (i for i in schema.indexes if i.table == table.name):
            for _, leaf in leaves(table.partitions):
                taken.add(Name(leaf.name.schema, ddl.leaf_index_name(index, leaf.name)).sql)
    return taken


def every_partition(partitions: tuple[Partition, ...]) -> Iterator[Partition]:
    for part in partitions:
        yield part
        yield from every_partition(part.partitions)


def _after(before: Topology, parts: list[_Parts]) -> Topology:
    schema, homes = before.schema, dict(before.homes)
    for part in parts:
        home = homes.pop(part.whole.name.sql)
        homes.update({half.name.sql: home for half in part.halves})
        table = schema.table(part.table.name)
        assert table is not None
        schema = schema.with_item(replace(table, partitions=_replaced(table.partitions, part)))
    return replace(before, generation=before.generation + 1, schema=schema, homes=homes)


def _replaced(partitions: tuple[Partition, ...], part: _Parts) -> tuple[Partition, ...]:
    """The tree with the halves in the place of the shard."""
    found: list[Partition] = []
    for p in partitions:
        if p.name == part.whole.name:
            found += part.halves
        else:
            found.append(replace(p, partitions=_replaced(p.partitions, part)) if p.partitions else p)
    return tuple(found)


class _Splitter:
    def __init__(self, before: Topology, split: Split, traits: Traits) -> None:
        order = {t.name: i for i, t in enumerate(before.schema.tables)}
        parts = _parts(before, split)
        self._before, self.after = before, _after(before, parts)
        parts = [replace(p, table=self.after.table(p.table.name)) for p in parts]
        self._parts = sorted(parts, key=lambda p: order[p.table.name])  # what foreign keys point to comes first
        self._compiler = Compiler(self.after, traits, self.after.schema)
        self._home = (split.home,)
        self._others = self._compiler.elsewhere(split.home)

    def builds(self) -> Iterator[Step]:
        yield from self.afters()
        for part in self._parts:
            name, halves = quote_literal(part.whole.name.sql), _array([h.name.sql for h in part.halves])
            yield self._step("make_halves", part.whole.name, f"SELECT pgherd.begin_split({name}, {halves})")
            for half in part.halves:
                bound, key = half.bound, _array(list(part.by.columns))
                assert isinstance(bound, HashBound)
                arguments = f"{quote_literal(half.name.sql)}, {quote_literal(part.parent.sql)}"
                sql = f"SELECT pgherd.make_half({arguments}, {bound.modulus}, {bound.remainder}, {key})"
                yield self._step("make_table", half.name, sql)
                for text in self._compiler.leaf_constraints(part.table, half):
                    yield self._step("add_key", half.name, f"ALTER TABLE {half.name.sql} ADD {text}")
        for part in self._parts:
            key = _array(list(part.table.primary_key))
            sql = f"SELECT pgherd.note_changes({quote_literal(part.whole.name.sql)}, {key})"
            yield self._step("note_changes", part.whole.name, sql)
        for part in self._parts:
            sql = f"{SNAPSHOT}SELECT pgherd.copy_halves({quote_literal(part.whole.name.sql)})"
            yield self._step("copy_rows", part.whole.name, sql)
        for part in self._parts:
            for half in part.halves:
                for index in self.after.indexes(part.table):
                    name = ddl.leaf_index_name(index, half.name)
                    sql = ddl.create_index(index, on=half.name, name=name)
                    yield replace(self._step("build_part", half.name, sql), index=Name(half.name.schema, name))
                yield self._step("analyze", half.name, f"ANALYZE {half.name.sql}")
        for _ in range(ROUNDS):
            for part in self._parts:
                sql = f"{SNAPSHOT}SELECT pgherd.replay({quote_literal(part.whole.name.sql)})"
                yield self._step("catch_up", part.whole.name, sql)

    def commits(self) -> Iterator[Step]:
        everywhere = self._compiler.everywhere
        parents = ", ".join(dict.fromkeys(p.parent.sql for p in self._parts))
        shards = ", ".join(p.whole.name.sql for p in self._parts)
        first = self._parts[0].whole.name
        sql = f"LOCK TABLE ONLY {parents} IN EXCLUSIVE MODE"
        yield self._step("hold_writers", first, sql, BRIEFLY, everywhere)
        yield self._step("hold_shard", first, f"LOCK TABLE {shards} IN EXCLUSIVE MODE", WAIT)
        for part in self._parts:
            sql = (
                f"SET LOCAL statement_timeout = {int(HOLD_S * 500)};\n"
                f"SELECT pgherd.replay({quote_literal(part.whole.name.sql)}, {HOLD_ROWS})"
            )
            yield replace(self._step("catch_up", part.whole.name, sql, WAIT), apart=True)
        sql = f"LOCK TABLE ONLY {parents} IN ACCESS EXCLUSIVE MODE"
        yield self._step("hold_readers", first, sql, BRIEFLY, everywhere)
        for part in self._parts:
            space = spaces_of(part.table)[part.halves[0].name]
            for _, groups, links in self._compiler.links(part.parent, part.halves, self._home[0], space, self._others):
                sql = f"DROP FOREIGN TABLE {part.whole.name.sql};\n{links}"
                yield self._step("relink_shard", part.whole.name, sql, BRIEFLY, groups)
        for part in self._parts:
            sql = (
                f"ALTER TABLE {part.parent.sql} DETACH PARTITION {part.whole.name.sql};\n"
                f"ALTER TABLE {part.whole.name.sql} SET SCHEMA pgherd_aside"
            )
            yield self._step("swap_out", part.whole.name, sql, WAIT)
        for part in self._parts:
            for half in part.halves:
                sql = (
                    f"ALTER TABLE {part.parent.sql} ATTACH PARTITION {half.name.sql} {half.bound.sql};\n"
                    f"ALTER TABLE {half.name.sql} DROP CONSTRAINT pgherd_move"
                )
                yield self._step("swap_in", half.name, sql, WAIT)
                yield from self._compiler.leaf_extras(part.table, half.name, self._home)
            halves = _array([h.name.sql for h in part.halves])
            sql = f"SELECT pgherd.carry_curves({quote_literal(part.whole.name.sql)}, {halves})"
            yield self._step("carry_curves", part.whole.name, sql)
        yield from finish(self._before, self.after)

    def afters(self) -> Iterator[Step]:
        for part in self._parts:
            sql = f"SELECT pgherd.clear_outgoing({quote_literal(part.whole.name.sql)})"
            yield self._step("clear_split", part.whole.name, sql)

    def _step(
        self, kind: str, name: Name, sql: str, blocks: str = "nobody", groups: tuple[GroupId, ...] | None = None
    ) -> Step:
        undo = "cleared when the split is planned again"
        return Step(kind, str(name), self._home if groups is None else groups, sql, blocks=blocks, undo=undo)


SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;\n"
"""The halves then are as the shard was at one moment, after each round: no unique index sees half of a change."""


def _array(texts: list[str]) -> str:
    return "ARRAY[" + ", ".join(map(quote_literal, texts)) + "]"
