"""A draft -> a Schema: partitions into trees, keys folded into their table, indexes onto it, items put in order."""

from __future__ import annotations

from dataclasses import replace

from ..model.names import Name
from ..model.schema import (
    Column,
    Item,
    Key,
    ListBound,
    ObjectKind,
    Partition,
    PartitionBy,
    Schema,
    Strategy,
    Table,
    TableKind,
)
from .bounds import list_value
from .drafts import Draft, IndexDraft, TableDraft
from .fold_indexes import fold_indexes
from .ordering import in_order
from .source import Place


def assemble(draft: Draft) -> Schema:
    """The schema of a whole draft. Raises BadSchema for what can't be put together."""
    for table in draft.tables.values():
        _check_repeated(draft, table)
    sequences = _fold_serial(draft)
    folded = fold_indexes(draft)
    for table in draft.tables.values():
        if table.parent is None:
            _fold_keys(draft, table)
    items: list[Item] = []
    for item in draft.items:
        if isinstance(item, TableDraft):
            if item.parent is None:
                items.append(_table(draft, item))
        elif isinstance(item, IndexDraft):
            items += [folded[item.index.name]] if item.index.name in folded else []
        elif not (item.kind is ObjectKind.SEQUENCE and item.name in sequences):
            items.append(item)
    items = _colocate(draft, items)
    return Schema(tuple(draft.tablespaces.values()), in_order(tuple(_references(items)), draft), draft.trail)


def _check_repeated(draft: Draft, table: TableDraft) -> None:
    """What is said of a partition's columns must repeat what the table says."""
    columns = draft.root(table.name).columns
    for name, place in table.restated.items():
        if name not in columns:
            raise place.bad(f"its table has no column {name!r}", hint=f"columns: {', '.join(columns)}")
    for name, (default, place) in table.own_defaults.items():
        if name not in columns or (columns[name].default or "") != default:
            raise place.bad(
                f"column {name!r} of partition {table.name} has a default of its own",
                hint=f"rows come in through the table: set the default on {draft.root(table.name).name}",
            )


def _fold_serial(draft: Draft) -> set[str]:
    """pg_dump writes a serial column as sequence, OWNED BY and DEFAULT nextval: make it the identity column it is.

    The names of the sequences that are then part of their column.
    """
    folded = set()
    for sequence, (owner, name) in draft.owned_sequences.items():
        table = draft.tables.get(owner)
        column = table.columns.get(name) if table else None
        if table is None or column is None or sequence != Name(owner.schema, f"{owner.name}_{name}_seq"):
            continue
        shown = {sequence.sql, sequence.name, f"{sequence.schema}.{sequence.name}"}
        if column.default in {f"nextval(CAST('{s}' AS regclass))" for s in shown} | {f"nextval('{s}')" for s in shown}:
            table.columns[name] = replace(column, default=None, identity="d", not_null=True)
            folded.add(sequence.sql)
    return folded


def _fold_keys(draft: Draft, table: TableDraft) -> None:
    """Keys that every partition repeats are the table's. A key of some partitions only is refused."""
    common = _common_keys(draft, table)
    for key in sorted(common, key=lambda k: (not k.primary, k.columns)):
        if key.primary and any(k.primary for k in table.keys):
            raise table.place.bad("partitions have another primary key than their table", hint="write it on the table")
        if any(c not in table.columns for c in key.columns):
            raise table.place.bad(
                f"partitions have a key over unknown columns ({', '.join(key.columns)})", hint="check the names"
            )
        table.keys.append(key)
    _adopt(draft, table, {_bare(k) for k in table.keys}, table)
    for column in next((k.columns for k in table.keys if k.primary), ()):
        table.columns[column] = replace(table.columns[column], not_null=True)


def _bare(key: Key) -> Key:
    return replace(key, name=None)


def _common_keys(draft: Draft, table: TableDraft) -> set[Key]:
    """The keys that all partitions below have and ``table`` itself hasn't."""
    below = []
    for name in table.children:
        child = draft.tables[name]
        below.append({_bare(k) for k in child.keys} | _common_keys(draft, child))
    own = {_bare(k) for k in table.keys}
    return set.intersection(*below) - own if below else set()


def _adopt(draft: Draft, table: TableDraft, kept: set[Key], root: TableDraft) -> None:
    for name in table.children:
        child = draft.tables[name]
        for key in child.keys:
            if _bare(key) not in kept:
                word = "PRIMARY KEY" if key.primary else "UNIQUE"
                raise child.places.get(key, child.place).bad(
                    f"{word} ({', '.join(key.columns)}) is not on every partition of {root.name}",
                    hint=f"write it on table {root.name}, or on all of its partitions alike",
                )
            if root.hashed is None and key.primary:
                root.hashed = child.hashed
        _adopt(draft, child, kept, root)


def _table(draft: Draft, table: TableDraft) -> Table:
    key = next((k.columns for k in table.keys if k.primary), ())
    by, shard_count = table.by, None
    if by is not None:
        kind = TableKind.DISTRIBUTED
        if by.strategy is Strategy.HASH and not table.children:
            shard_count = table.tablets or 0
        elif table.tablets is not None:
            raise _tablets_place(table).bad(
                "SPLIT INTO on a table with partitions", hint="write it on a partition: … FOR VALUES IN (…) SPLIT INTO"
            )
    elif table.citus is not None:
        kind, shard_count = table.citus, table.shard_count
        by = PartitionBy(Strategy.HASH, (table.hash_column,)) if table.hash_column else None
    elif table.hashed is not None or table.tablets is not None:
        kind, shard_count = TableKind.DISTRIBUTED, table.tablets or 0
        columns = table.hashed or key[:1]
        if not columns:
            raise _tablets_place(table).bad("SPLIT INTO without a primary key", hint="write PRIMARY KEY (id HASH)")
        by = PartitionBy(Strategy.HASH, columns)
    else:
        kind = TableKind.LOCAL
    for column in by.columns if by else ():
        table.column(column, table.place)
    return Table(
        name=table.name,
        columns=tuple(table.columns.values()),
        kind=kind,
        keys=tuple(table.keys),
        foreign_keys=tuple(table.foreign_keys),
        checks=tuple(table.checks),
        by=by,
        partitions=tuple(_partition(draft, n, table, by.columns) for n in table.children) if by else (),
        shard_count=shard_count,
        tablespace=table.tablespace,
        row_security=table.row_security,
        force_row_security=table.force_row_security,
        embeddings=tuple(table.embeddings),
        cells=table.cells,
    )


def _tablets_place(table: TableDraft) -> Place:
    return table.tablets_place or table.place


def _partition(draft: Draft, name: Name, root: TableDraft, above: tuple[str, ...]) -> Partition:
    part = draft.tables[name]
    assert part.bound is not None
    assert part.parent is not None
    parent_by = draft.tables[part.parent].by
    assert parent_by is not None
    limits = part.bound
    if isinstance(limits, ListBound):
        if len(parent_by.columns) != 1:
            raise part.place.bad("PARTITION BY LIST over several columns", hint="name one column")
        column = root.column(parent_by.columns[0], part.place)
        limits = replace(limits, values=tuple(_value(draft, v, column, part.place) for v in limits.values))
    by, count = part.by, None
    if by is not None:
        for c in by.columns:
            root.column(c, part.place)
        if by.strategy is Strategy.HASH and not part.children:
            count = part.tablets or 0
        elif part.tablets is not None:
            raise _tablets_place(part).bad("SPLIT INTO on a partition with partitions", hint="keep one of the two")
    elif part.tablets is not None:
        by, count = _split(root, part, parent_by, above), part.tablets
    below = tuple(_partition(draft, n, root, (*above, *(by.columns if by else ()))) for n in part.children)
    return Partition(name, limits, part.tablespace, by, below, count)


def _split(root: TableDraft, part: TableDraft, parent_by: PartitionBy, above: tuple[str, ...]) -> PartitionBy:
    """SPLIT INTO on a LIST partition: by hash of the key's HASH columns that no level above reads yet."""
    place = _tablets_place(part)
    if parent_by.strategy is Strategy.HASH:
        raise place.bad("SPLIT INTO on a HASH partition", hint="use a larger modulus and more partitions")
    key = next((k.columns for k in root.keys if k.primary), ())
    hashed = tuple(c for c in part.hashed or root.hashed or () if c not in above)
    columns = hashed or tuple(c for c in key if c not in above)[:1]
    if not columns:
        raise place.bad(
            "SPLIT INTO needs a primary key column beside the partition's own",
            hint=f"write PRIMARY KEY (id HASH, {parent_by.columns[0]}) on table {root.name}",
        )
    return PartitionBy(Strategy.HASH, columns)


def _value(draft: Draft, value: str | None, column: Column, place: Place) -> str | None:
    if value is None:
        return None
    type_, seen = column.type, set[str]()
    while (below := draft.domains.get(type_) or draft.domains.get(f"public.{type_}")) and type_ not in seen:
        seen.add(type_)
        type_ = below
    enums = {e.name: e.values for e in draft.objects("type")}
    return list_value(value, type_, enums.get(type_) or enums.get(f"public.{type_}", ()), place)


def _colocate(draft: Draft, items: list[Item]) -> list[Item]:
    """``colocate_with``: the other table's number of shards; shards are placed in turn, so equal counts meet."""
    found = {i.name: i for i in items if isinstance(i, Table)}
    for name, table in found.items():
        said = draft.tables[name].colocate_with
        if said is None or table.kind is not TableKind.DISTRIBUTED:
            continue
        other_name, place = said
        other = found.get(other_name)
        if other is None or other.by is None or other.partitions or other.by.strategy is not Strategy.HASH:
            raise place.bad(f"colocate_with {other_name}: no table distributed by hash", hint="name one that is")
        seen = {name}
        while other.shard_count is None:  # the other table is colocated in its turn
            behind = draft.tables[other.name].colocate_with
            if behind is None or other.name in seen or behind[0] not in found:
                raise place.bad(f"colocate_with {other_name}: a circle", hint="give one table a shard_count")
            seen.add(other.name)
            other = found[behind[0]]
        if table.shard_count not in (None, other.shard_count):
            raise place.bad(
                f"shard_count {table.shard_count}, but {other_name} has {other.shard_count}",
                hint="leave shard_count out beside colocate_with",
            )
        found[name] = replace(table, shard_count=other.shard_count)
    return [found[i.name] if isinstance(i, Table) else i for i in items]


def _references(items: list[Item]) -> list[Item]:
    """Foreign keys that name no columns mean the other table's primary key."""
    keys = {i.name: i.primary_key for i in items if isinstance(i, Table)}
    found: list[Item] = []
    for item in items:
        if not isinstance(item, Table):
            found.append(item)
            continue
        fks = tuple(replace(f, ref_columns=f.ref_columns or keys.get(f.references, ())) for f in item.foreign_keys)
        found.append(replace(item, foreign_keys=fks))
    return found
