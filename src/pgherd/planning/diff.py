"""What an edited schema file changes: a list of changes, or a refusal that says why it can't be done online."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ChangeRefused
from ..model.schema import (
    Check,
    Column,
    ForeignKey,
    Index,
    Item,
    Key,
    ObjectKind,
    Partition,
    Schema,
    SqlObject,
    Table,
    Trail,
    item_key,
)


@dataclass(frozen=True, slots=True)
class Create:
    """An item that is not there yet."""

    item: Item


@dataclass(frozen=True, slots=True)
class Replace:
    """An object whose changed text can simply be run."""

    item: SqlObject


@dataclass(frozen=True, slots=True)
class AddEnumValue:
    """A label added to an enum, after the one before it; a new first one ``before`` what was the first."""

    item: SqlObject
    value: str
    after: str | None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class AddColumn:
    """A column added to a table."""

    table: Table
    column: Column


@dataclass(frozen=True, slots=True)
class AlterColumn:
    """A column whose default or NOT NULL changed."""

    table: Table
    old: Column
    new: Column


@dataclass(frozen=True, slots=True)
class AddPartition:
    """A partition (with all below it) added below ``parent`` of ``table`` (None: the table itself)."""

    table: Table
    parent: Partition | None
    partition: Partition


@dataclass(frozen=True, slots=True)
class AddConstraint:
    """A check, foreign key or unique constraint added to a table."""

    table: Table
    constraint: Check | ForeignKey | Key


@dataclass(frozen=True, slots=True)
class SetRowSecurity:
    """Row-level security switched on, off, or forced on the owner."""

    table: Table


@dataclass(frozen=True, slots=True)
class Record:
    """Something that only the topology knows (which text a vector is made from, a tablespace's policy)."""

    target: str


Change = (
    Create | Replace | AddEnumValue | AddColumn | AlterColumn | AddPartition | AddConstraint | SetRowSecurity | Record
)


def diff(current: Schema, desired: Schema) -> list[Change]:
    """The changes that make ``current`` hold all of ``desired``, in the file's order.

    Items of ``current`` that ``desired`` does not mention stay as they are: several files may fill one herd.
    Raises ChangeRefused for what can't be done while the herd is in use.
    """
    known = {item_key(i): i for i in current.items}
    changes: list[Change] = [
        Record(f"tablespace {s.name}") for s in desired.tablespaces if current.tablespace(s.name) != s
    ]
    if _trail(current, desired) is not current.trail:
        changes.append(Record(f"audit trail: {desired.trail}"))
    for item in desired.items:
        old = known.get(item_key(item))
        if old is None:
            changes.append(Create(item))
        elif isinstance(item, Table) and isinstance(old, Table):
            changes.extend(_table(old, item))
        elif isinstance(item, SqlObject) and isinstance(old, SqlObject):
            changes.extend(_object(old, item))
        elif old != item and isinstance(item, Index):
            raise ChangeRefused(
                f"index {item.name} exists with another definition",
                hint="give the new one another name; drop the old one when the new one is in use",
            )
    return changes


def _object(old: SqlObject, new: SqlObject) -> list[Change]:
    if old == new.sealed:
        return []
    if new.kind is ObjectKind.ENUM and set(old.values) <= set(new.values):
        kept = tuple(v for v in new.values if v in old.values)
        if kept == old.values:
            pairs = zip((None, *new.values), new.values, strict=False)
            first = old.values[0] if old.values else None
            return [
                AddEnumValue(new, value, after, None if after else first)
                for after, value in pairs
                if value not in old.values
            ]
    if new.replaceable:
        return [Replace(new)]
    raise ChangeRefused(
        f"{new.kind.value} {new.name} exists with another definition, which can't be changed in place",
        hint="add a new one under another name, or change it by hand on every node (pgherd sql)",
    )


def _refuse(table: Table, what: str, hint: str) -> ChangeRefused:
    return ChangeRefused(f"table {table.name}: {what}", hint=hint)


def _table(old: Table, new: Table) -> list[Change]:
    if (old.kind, old.by, old.cells) != (new.kind, new.by, new.cells):
        raise _refuse(new, "how it is distributed changed", "make a new table and copy the rows")
    if old.cells is not None and len(old.partitions) != len(new.partitions):
        raise _refuse(
            new, "its number of shards changed, and its cells are learned", "make a new table and copy the rows"
        )
    if old.tablespace != new.tablespace:
        raise _refuse(new, "its tablespace changed, so its rows would have to move", "keep the tablespace")
    changes = _columns(old, new)
    changes.extend(_constraints(old, new))
    changes.extend(_partitions(new, None, old.partitions, new.partitions))
    if (old.row_security, old.force_row_security) != (new.row_security, new.force_row_security):
        changes.append(SetRowSecurity(new))
    if old.embeddings != new.embeddings:
        changes.append(Record(f"embedding of {new.name}"))
    return changes


def _columns(old: Table, new: Table) -> list[Change]:
    changes: list[Change] = []
    for gone in (c for c in old.columns if new.column(c.name) is None):
        raise _refuse(
            new,
            f"column {gone.name!r} is in the herd but no longer in the file; dropping it would lose its data",
            "keep it in the file",
        )
    for column in new.columns:
        before = old.column(column.name)
        if before is None:
            if column.not_null and column.default is None and column.generated is None and column.identity is None:
                raise _refuse(
                    new, f"new column {column.name!r} is NOT NULL without a default", "give it a DEFAULT, or allow NULL"
                )
            if column.generated is not None or column.identity is not None:
                raise _refuse(
                    new,
                    f"new column {column.name!r} is generated, which rewrites every row under a lock",
                    "make it a plain column (filled by a trigger, or with DEFAULT nextval of a sequence), or a view",
                )
            changes.append(AddColumn(new, column))
        elif before.type != column.type or before.collation != column.collation:
            raise _refuse(
                new,
                f"column {column.name!r} changed type from {before.type} to {column.type}",
                "add a column of the new type, fill it, and change over",
            )
        elif (before.generated, before.identity) != (column.generated, column.identity):
            raise _refuse(new, f"how column {column.name!r} is generated changed", "add a new column instead")
        elif before != column:
            changes.append(AlterColumn(new, before, column))
    return changes


def _constraints(old: Table, new: Table) -> list[Change]:
    added: list[Change] = []
    for what, before, after in (
        ("check", old.checks, new.checks),
        ("foreign key", old.foreign_keys, new.foreign_keys),
        ("key", old.keys, new.keys),
    ):
        for gone in (c for c in before if c not in after):
            label = gone.name or what
            raise _refuse(new, f"{what} {label!r} is in the herd but no longer in the file", "keep it in the file")
        for constraint in (c for c in after if c not in before):
            if isinstance(constraint, Key) and constraint.primary:
                raise _refuse(new, "a primary key was added", "make a new table with the key and copy the rows")
            added.append(AddConstraint(new, constraint))
    return added


def _partitions(
    table: Table, parent: Partition | None, old: tuple[Partition, ...], new: tuple[Partition, ...]
) -> list[Change]:
    changes: list[Change] = []
    before = {p.name: p for p in old}
    for gone in (p for p in old if p.name not in {n.name for n in new}):
        raise _refuse(
            table,
            f"partition {gone.name} is in the herd but no longer in the file; dropping it would lose its rows",
            "keep it in the file",
        )
    for partition in new:
        known = before.get(partition.name)
        if known is None:
            if any(isinstance(p.bound, type(partition.bound)) and getattr(p.bound, "default", False) for p in old):
                raise _refuse(
                    table,
                    f"partition {partition.name} would take rows out of the DEFAULT partition",
                    "move those rows first, or keep them in the default",
                )
            changes.append(AddPartition(table, parent, partition))
            continue
        if known.bound != partition.bound or known.by != partition.by:
            raise _refuse(table, f"the bounds of partition {partition.name} changed", "add a new partition instead")
        if known.tablespace != partition.tablespace:
            raise _refuse(
                table, f"partition {partition.name} changed its tablespace, so its rows would have to move", "keep it"
            )
        changes.extend(_partitions(table, partition, known.partitions, partition.partitions))
    return changes


def merge(current: Schema, desired: Schema) -> Schema:
    """``current`` with all of ``desired`` in it."""
    spaces = {s.name: s for s in (*current.tablespaces, *desired.tablespaces)}
    merged = replace(current, tablespaces=tuple(spaces.values()), trail=_trail(current, desired))
    for item in desired.items:
        merged = merged.with_item(item.sealed if isinstance(item, SqlObject) else item)
    return merged


def _trail(current: Schema, desired: Schema) -> Trail | None:
    if desired.trail is None:
        return current.trail
    return None if desired.trail is Trail.OFF else desired.trail
