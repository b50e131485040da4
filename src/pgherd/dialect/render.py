"""Schema -> schema file text that ``parse`` reads back to an equal Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..model.names import Name, comma_idents, quote_ident, quote_literal
from ..model.placement import PlacementBlock, Tablespace
from ..model.schema import (
    Column,
    ForeignKey,
    Index,
    Key,
    Partition,
    PartitionBy,
    Schema,
    Strategy,
    Table,
    TableKind,
)


def render(schema: Schema) -> str:
    """The schema as a file. A role's password verifier is in it: keep the text as you would keep the file."""
    said = [*(_tablespace(t) for t in schema.tablespaces)]
    for item in schema.items:
        if isinstance(item, Table):
            said += _table(item)
        else:
            said.append(_index(item) if isinstance(item, Index) else item.sql)
    return "".join(f"{s};\n" for s in said)


def _tablespace(space: Tablespace) -> str:
    live = _placement(space.num_replicas, space.blocks)
    if space.strict:
        live["strict"] = {"except": list(space.granted)} if space.granted else True
    options = [("replica_placement", live)]
    if space.read_replicas:
        read = space.read_replicas
        said = _placement(read.num_replicas, read.blocks)
        if read.placement_uuid is not None:
            said["placement_uuid"] = read.placement_uuid
        options.append(("read_replica_placement", said))
    text = ", ".join(f"{k} = {quote_literal(json.dumps(v, ensure_ascii=False))}" for k, v in options)
    return f"CREATE TABLESPACE {quote_ident(space.name)} WITH ({text})"


def _placement(num: int, blocks: tuple[PlacementBlock, ...]) -> dict[str, Any]:
    return {"num_replicas": num, "placement_blocks": [_block(b) for b in blocks]}


def _block(block: PlacementBlock) -> dict[str, Any]:
    said: dict[str, Any] = {
        "cloud": block.cloud,
        "region": block.region,
        "zone": block.zone,
        "min_num_replicas": block.min_num_replicas,
    }
    if block.leader_preference is not None:
        said["leader_preference"] = block.leader_preference
    return said


def _column_sql(column: Column) -> str:
    """A column as in CREATE TABLE."""
    text = f"{quote_ident(column.name)} {column.type}"
    if column.collation:
        text += f" COLLATE {column.collation}"
    if column.generated:
        text += f" GENERATED ALWAYS AS ({column.generated}) STORED"
    elif column.identity:
        text += f" GENERATED {'ALWAYS' if column.identity == 'a' else 'BY DEFAULT'} AS IDENTITY"
    elif column.default:
        text += f" DEFAULT {column.default}"
    return text + (" NOT NULL" if column.not_null and not column.identity else "")


def _key_sql(key: Key) -> str:
    """A primary key or unique constraint as in CREATE TABLE."""
    word = "PRIMARY KEY" if key.primary else "UNIQUE" + (" NULLS NOT DISTINCT" if key.nulls_not_distinct else "")
    return _named(key.name) + f"{word} ({comma_idents(key.columns)})"


def _foreign_key_sql(fk: ForeignKey) -> str:
    """A foreign key as in CREATE TABLE."""
    to = f"{fk.references.sql} ({comma_idents(fk.ref_columns)})"
    return _named(fk.name) + f"FOREIGN KEY ({comma_idents(fk.columns)}) REFERENCES {to} {fk.tail}".rstrip()


def _named(name: str | None) -> str:
    return f"CONSTRAINT {quote_ident(name)} " if name else ""


def _table(table: Table) -> Iterator[str]:
    lines = [_column_sql(c) for c in table.columns]
    lines += [_key_sql(k) for k in table.keys]
    lines += [f"{_named(c.name)}CHECK ({c.expression})" for c in table.checks]
    lines += [_foreign_key_sql(f) for f in table.foreign_keys]
    space = f" TABLESPACE {quote_ident(table.tablespace)}" if table.tablespace else ""
    by = _by(table.by) if table.by else ""
    yield (
        f"CREATE TABLE {table.name.sql} (\n    " + ",\n    ".join(lines) + f"\n){by}{space}" + _split(table.shard_count)
    )
    for part in table.partitions:
        yield from _partition(table.name, part)
    if table.kind is TableKind.REFERENCE:
        yield f"SELECT create_reference_table({quote_literal(table.name.sql)})"
    if table.row_security:
        yield f"ALTER TABLE {table.name.sql} ENABLE ROW LEVEL SECURITY"
    if table.force_row_security:
        yield f"ALTER TABLE {table.name.sql} FORCE ROW LEVEL SECURITY"
    for e in table.embeddings:
        columns = f"{_ident_literal(e.text_column)}, {_ident_literal(e.vector_column)}"
        model = quote_literal(e.model)
        yield f"SELECT pgherd.embed_column({quote_literal(table.name.sql)}, {columns}, model => {model})"


def _ident_literal(name: str) -> str:
    return quote_literal(quote_ident(name))


def _by(by: PartitionBy) -> str:
    return f" PARTITION BY {'LIST' if by.strategy is Strategy.LIST else 'HASH'} ({comma_idents(by.columns)})"


def _split(count: int | None) -> str:
    return f" SPLIT INTO {count} TABLETS" if count else ""


def _partition(parent: Name, part: Partition) -> Iterator[str]:
    by = _by(part.by) if part.by else ""
    space = f" TABLESPACE {quote_ident(part.tablespace)}" if part.tablespace else ""
    yield f"CREATE TABLE {part.name.sql} PARTITION OF {parent.sql} {part.bound.sql}{by}{space}" + _split(
        part.shard_count
    )
    for below in part.partitions:
        yield from _partition(part.name, below)


def _index(index: Index) -> str:
    text = f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {quote_ident(index.name.name)} ON {index.table.sql}"
    text += f" USING {index.method} ({', '.join(index.elements)})"
    text += f" INCLUDE ({comma_idents(index.include)})" if index.include else ""
    text += " NULLS NOT DISTINCT" if index.nulls_not_distinct else ""
    if index.options:
        text += f" WITH ({', '.join(f'{quote_ident(k)} = {quote_literal(v)}' for k, v in index.options)})"
    return text + (f" WHERE {index.where}" if index.where else "")
