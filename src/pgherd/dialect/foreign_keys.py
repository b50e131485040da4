"""Foreign keys that can be kept where the rows are: into reference tables, within one group, or shard by shard."""

from __future__ import annotations

from typing import Any

from ..model.schema import ForeignKey, Partition, Schema, Table, TableKind
from .drafts import Draft
from .source import Place


def check_foreign_keys(schema: Schema, table: Table, draft: Draft) -> None:
    """Raises BadSchema for a foreign key that no server alone could check."""
    said = draft.tables[table.name]
    places = {(f.columns, f.references, f.name): p for f, p in said.places.items() if isinstance(f, ForeignKey)}
    for fk in table.foreign_keys:
        place = places.get((fk.columns, fk.references, fk.name), said.place)
        other = _target(schema, fk, draft, place)
        _check_target(schema, fk, other, place)
        _check_kinds(schema, table, fk, other, place)


def _target(schema: Schema, fk: ForeignKey, draft: Draft, place: Place) -> Table:
    found = schema.table(fk.references)
    if found is None:
        partition = draft.tables.get(fk.references)
        if partition is not None and partition.parent is not None:
            raise place.bad(f"it references partition {fk.references}", hint=f"reference {partition.parent}")
        raise place.bad(f"it references table {fk.references}, which the file doesn't make", hint="add the table")
    return found


def _check_target(schema: Schema, fk: ForeignKey, other: Table, place: Place) -> None:
    if not fk.ref_columns:
        raise place.bad(f"table {other.name} has no primary key to reference", hint="name the referenced columns")
    for name in fk.ref_columns:
        if other.column(name) is None:
            raise place.bad(f"table {other.name} has no column {name!r}", hint="check the referenced columns")
    if len(fk.columns) != len(fk.ref_columns):
        raise place.bad("it has as many columns as it references, or none", hint="name them pairwise")
    keys = [set(k.columns) for k in other.keys]
    keys += [set(i.columns) for i in schema.indexes if i.table == other.name and i.unique and _whole(i)]
    if set(fk.ref_columns) not in keys:
        raise place.bad(
            f"({', '.join(fk.ref_columns)}) is no key of {other.name}",
            hint=f"write PRIMARY KEY or UNIQUE ({', '.join(fk.ref_columns)}) there",
        )


def _whole(index: Any) -> bool:
    return index.where is None and len(index.columns) == len(index.elements)


def _check_kinds(schema: Schema, table: Table, fk: ForeignKey, other: Table, place: Place) -> None:
    if other.kind is TableKind.REFERENCE:
        return
    make_reference = f"SELECT create_reference_table('{other.name}')"
    pins = schema.regions_of(table), schema.regions_of(other)
    if pins[0] != pins[1]:
        said = [
            f"{t.name} is pinned to {', '.join(sorted(p)) or 'no region'}"
            for t, p in zip((table, other), pins, strict=True)
        ]
        raise place.refused(
            f"{' and '.join(said)}: values of this key would leave the regions where they must stay",
            hint="keep both tables in the same tablespaces, or reference a table that holds nothing of a pinned one",
        )
    if table.kind is TableKind.REFERENCE:
        raise place.bad(
            f"a reference table is on every node, {other.name} is not",
            hint=f"make {other.name} a reference table too: {make_reference}",
        )
    if table.kind is TableKind.LOCAL and other.kind is TableKind.LOCAL:
        if table.tablespace != other.tablespace:
            raise place.bad(f"{other.name} is in another tablespace", hint="put both tables into one tablespace")
        return
    if table.kind is not other.kind:
        raise place.bad(
            f"{table.name} is {table.kind}, {other.name} is {other.kind}: no server holds both sides",
            hint=f"make {other.name} a reference table: {make_reference}",
        )
    if not _colocated(table, fk, other):
        raise place.bad(
            f"{table.name} and {other.name} are not colocated over this key: no server holds both sides",
            hint="share both out alike and have the partition columns in the foreign key, "
            f"or make {other.name} a reference table: {make_reference}",
        )


def _colocated(table: Table, fk: ForeignKey, other: Table) -> bool:
    """Same levels, bounds and tablespaces, and the key joins partition column with partition column."""
    if table.name == other.name:
        same = True
    else:
        same = (
            _layout(table.partitions) == _layout(other.partitions)
            and table.tablespace == other.tablespace
            and table.shard_count == other.shard_count
            and table.by is not None
            and other.by is not None
            and (table.by.strategy, len(table.by.columns)) == (other.by.strategy, len(other.by.columns))
        )
    ours, theirs = table.partition_columns, other.partition_columns
    pairs = set(zip(fk.columns, fk.ref_columns, strict=True))
    if not same or len(ours) != len(theirs) or not set(zip(ours, theirs, strict=True)) <= pairs:
        return False
    return all(_type(table, a) == _type(other, b) for a, b in zip(ours, theirs, strict=True))


def _type(table: Table, name: str) -> str:
    column = table.column(name)
    return column.type if column else ""


def _layout(partitions: tuple[Partition, ...]) -> Any:
    return tuple(
        sorted(
            (
                p.bound.sql,
                p.tablespace or "",
                p.by.strategy.value if p.by else "",
                p.shard_count or 0,
                _layout(p.partitions),
            )
            for p in partitions
        )
    )
