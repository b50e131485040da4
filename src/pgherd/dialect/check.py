"""Whole-schema checks: what each statement can't know by itself. Every complaint names its line."""

from __future__ import annotations

from ..model.names import Name
from ..model.schema import Index, ListBound, Schema, SqlObject, Strategy, Table, TableKind, every_partition
from .bounds import HASHABLE, base_type, check_siblings
from .drafts import Draft, IndexDraft
from .foreign_keys import check_foreign_keys
from .source import Place
from .vectors import check_vector_index


def check(schema: Schema, draft: Draft) -> None:
    """Raises BadSchema for the first thing that can't work, ResidencyRefused for pinned rows that would not stay."""
    index_places = {i.index.name: i.place for i in draft.items if isinstance(i, IndexDraft)}
    for table in schema.tables:
        place = draft.tables[table.name].place
        _check_tablespaces(schema, table, draft)
        _check_partitions(table, draft)
        _check_keys(table, draft)
        if table.kind is TableKind.REFERENCE and table.tablespace:
            said = f"a reference table is on every node, but tablespace {table.tablespace} allows some"
            hint = "leave TABLESPACE out, or keep it a local table"
            pinned = schema.regions_of(table)
            raise place.refused(said, hint=hint) if pinned else place.bad(said, hint=hint)
    for table in schema.tables:
        check_foreign_keys(schema, table, draft)
    for index in schema.indexes:
        _check_index(schema, index, index_places.get(index.name) or draft.places["index", index.name])
    for item in schema.objects:
        _check_object(schema, item, draft)


def _check_tablespaces(schema: Schema, table: Table, draft: Draft) -> None:
    if table.cells is not None and table.tablespace is not None:
        raise draft.tables[table.name].place.refused(
            f"it is in tablespace {table.tablespace}, and the centroids, which are made of its rows, are on every node",
            hint="leave TABLESPACE out, or use create_distributed_table in distribute_by_nearest's place",
        )
    known = ", ".join(t.name for t in schema.tablespaces) or "none"
    named: list[tuple[Name, str | None]] = [(table.name, table.tablespace)]
    named += [(p.name, p.tablespace) for p in every_partition(table.partitions)]
    for name, space in named:
        if space is not None and schema.tablespace(space) is None:
            raise draft.tables[name].place.bad(
                f"unknown tablespace {space!r}", hint=f"write CREATE TABLESPACE {space} …; tablespaces: {known}"
            )


def _check_partitions(table: Table, draft: Draft) -> None:
    if table.by is None:
        return
    place = draft.tables[table.name].place
    if table.by.strategy is Strategy.LIST and not table.partitions:
        raise place.bad(
            "PARTITION BY LIST without a partition: no row has a place",
            hint=f"write CREATE TABLE … PARTITION OF {table.name} FOR VALUES IN (…)",
        )
    check_siblings(table.partitions, lambda p: draft.tables[p.name].place)
    levels = [(table.by, place)]
    for part in every_partition(table.partitions):
        where = draft.tables[part.name].place
        check_siblings(part.partitions, lambda p: draft.tables[p.name].place)
        if part.by is not None:
            levels.append((part.by, where))
            if part.by.strategy is Strategy.LIST and not part.partitions:
                raise where.bad("PARTITION BY LIST without a partition", hint="add its partitions, or take it out")
        if isinstance(part.bound, ListBound) and not part.bound.default and not part.bound.values:
            raise where.bad("no values", hint="write FOR VALUES IN (…)")
    for by, where in levels:
        for name in by.columns:
            column = table.column(name)
            assert column is not None
            if by.strategy is Strategy.HASH and base_type(column.type) not in HASHABLE:
                raise where.bad(
                    f"PARTITION BY HASH over {name!r}, which is {column.type}: its hash differs from server to server",
                    hint="use a column of a built-in type; text in an enum's place",
                )
            if column.generated is not None:
                raise where.bad(f"rows can't be shared out by {name!r}: it is generated", hint="use a stored column")


def _check_keys(table: Table, draft: Draft) -> None:
    names = [k.name for k in table.keys] + [f.name for f in table.foreign_keys] + [c.name for c in table.checks]
    for name in names:
        if name is not None and names.count(name) > 1:
            raise draft.tables[table.name].place.bad(f"two constraints named {name!r}", hint="rename one of the two")
    for key in table.keys:
        missing = [c for c in table.partition_columns if c not in key.columns]
        if missing:
            place = draft.tables[table.name].places.get(key, draft.tables[table.name].place)
            word = "PRIMARY KEY" if key.primary else "UNIQUE"
            raise place.bad(
                f"{word} ({', '.join(key.columns)}) is without partition column {missing[0]!r}: "
                "no shard alone can know that a value is unique",
                hint=f"write {word} ({', '.join((*key.columns, *missing))})",
            )


def _check_index(schema: Schema, index: Index, place: Place) -> None:
    table = schema.table(index.table)
    assert table is not None
    missing = [c for c in table.partition_columns if c not in index.columns]
    if index.unique and missing:
        raise place.bad(
            f"a UNIQUE index without partition column {missing[0]!r}: no shard alone can know that a value is unique",
            hint=f"add {', '.join(missing)} to the index",
        )
    check_vector_index(table, index, place)


def _check_object(schema: Schema, item: SqlObject, draft: Draft) -> None:
    place = draft.places.get(("trigger", item.name))
    if place is None or item.table is None:
        return
    table = schema.table(item.table)
    if table is None and all(o.name != item.table.sql for o in schema.objects):
        raise place.bad(f"there is no table {str(item.table)!r}", hint="create it in this file")
    if table and table.kind is TableKind.DISTRIBUTED and ("statement trigger", item.name) in draft.places:
        raise place.bad(
            "a statement trigger, or one with transition tables, can't see the statement's rows on all shards",
            hint="write FOR EACH ROW, without REFERENCING",
        )
