"""What the schema file asks for: tablespaces, tables, indexes and other objects, in the file's order.

A ``Schema`` is what the dialect makes out of SQL text and what planning compares; it knows nothing of servers.
Every expression inside (defaults, checks, bounds) is canonical SQL text as libpg_query prints it, so that two files
that differ in layout only are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from .names import Name, quote_literal
from .placement import Tablespace

_SEAL = "sha256:"


class Strategy(StrEnum):
    """How rows are shared out among partitions."""

    LIST = "list"
    HASH = "hash"


class TableKind(StrEnum):
    """How a table lives in a herd."""

    DISTRIBUTED = "distributed"
    """partitioned: its leaf partitions are shards, each at home in one group"""
    REFERENCE = "reference"
    """a full copy on every node"""
    LOCAL = "local"
    """whole, in one group; reachable from all"""


class Trail(StrEnum):
    """Whether what clients read and write leaves lines in the access logs."""

    OFF = "off"
    """only a schema file says so: a topology has None"""
    ON = "on"
    QUESTIONS = "questions"
    """with the texts of questions"""


class VectorType(StrEnum):
    """pgvector's types (PostgreSQL's own ``bit`` counts: pgvector indexes it)."""

    VECTOR = "vector"
    HALFVEC = "halfvec"
    SPARSEVEC = "sparsevec"
    BIT = "bit"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``type`` is canonical SQL (``bigint``, ``vector(256)``), ``identity`` ``a`` (always), ``d`` or None."""

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    generated: str | None = None
    identity: str | None = None
    collation: str | None = None

    @property
    def vector(self) -> tuple[VectorType, int | None] | None:
        """Its vector type and dimension (None: not fixed), or None for any other column."""
        return _vector_of(self.type)


@lru_cache(maxsize=1024)
def _vector_of(type_text: str) -> tuple[VectorType, int | None] | None:
    base, _, rest = type_text.partition("(")
    base = base.rsplit(".", 1)[-1].strip()
    if base not in VectorType.__members__.values() or rest.endswith("]"):
        return None
    return VectorType(base), int(rest.rstrip(")")) if rest else None


@dataclass(frozen=True, slots=True)
class Key:
    """A primary key or unique constraint; ``name`` None lets PostgreSQL choose."""

    columns: tuple[str, ...]
    primary: bool = False
    name: str | None = None
    nulls_not_distinct: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key; ``tail`` is what follows the referenced columns (``ON DELETE CASCADE`` …)."""

    columns: tuple[str, ...]
    references: Name
    ref_columns: tuple[str, ...]
    name: str | None = None
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A CHECK constraint over ``expression`` (canonical SQL, without the outer parentheses)."""

    expression: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionBy:
    """``PARTITION BY strategy (columns)``."""

    strategy: Strategy
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListBound:
    """``FOR VALUES IN (...)``: values as text as PostgreSQL prints them, None for NULL; ``default`` takes the rest."""

    values: tuple[str | None, ...] = ()
    default: bool = False

    @property
    def sql(self) -> str:
        """The bound as SQL."""
        if self.default:
            return "DEFAULT"
        return "FOR VALUES IN (" + ", ".join("NULL" if v is None else quote_literal(v) for v in self.values) + ")"


@dataclass(frozen=True, slots=True)
class HashBound:
    """``FOR VALUES WITH (modulus, remainder)``."""

    modulus: int
    remainder: int

    @property
    def sql(self) -> str:
        """The bound as SQL."""
        return f"FOR VALUES WITH (MODULUS {self.modulus}, REMAINDER {self.remainder})"


Bound = ListBound | HashBound


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition; with ``by`` it is itself partitioned, without it is a leaf and so a shard.

    ``shard_count`` (only with ``by`` HASH and no explicit partitions) asks for that many shards; 0 lets pgherd choose.
    """

    name: Name
    bound: Bound
    tablespace: str | None = None
    by: PartitionBy | None = None
    partitions: tuple[Partition, ...] = ()
    shard_count: int | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """Which text column a vector column is computed from, and by which model."""

    vector_column: str
    text_column: str
    model: str


CELLS_PER_SHARD = 256
"""Shard number i of a table that is shared out by cells holds the cells from 256 i on."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows are shared out by the centroid that their vector is nearest to: ``column`` holds its number, the cell.

    ``table`` is the reference table of the centroids (columns ``cell`` and ``centroid``); ``metric`` says what is near.
    """

    column: str
    vector_column: str
    table: Name
    metric: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table. DISTRIBUTED has ``by`` and either explicit ``partitions`` or a ``shard_count`` (0: pgherd chooses)."""

    name: Name
    columns: tuple[Column, ...]
    kind: TableKind = TableKind.LOCAL
    keys: tuple[Key, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[Check, ...] = ()
    by: PartitionBy | None = None
    partitions: tuple[Partition, ...] = ()
    shard_count: int | None = None
    tablespace: str | None = None
    row_security: bool = False
    force_row_security: bool = False
    embeddings: tuple[Embedding, ...] = ()
    cells: Cells | None = None

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((c for c in self.columns if c.name == name), None)

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The primary key's columns; empty without one."""
        return next((k.columns for k in self.keys if k.primary), ())

    @property
    def key(self) -> tuple[str, ...]:
        """What tells rows apart: the primary key, without the cell, which says only where a row lies."""
        return tuple(c for c in self.primary_key if self.cells is None or c != self.cells.column)

    @property
    def vector_columns(self) -> tuple[Column, ...]:
        """The columns of a pgvector type."""
        return tuple(c for c in self.columns if c.vector)

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """Every column that any level of partitioning reads, outermost first."""
        found: list[str] = []

        def visit(by: PartitionBy | None, partitions: tuple[Partition, ...]) -> None:
            found.extend(c for c in (by.columns if by else ()) if c not in found)
            for p in partitions:
                visit(p.by, p.partitions)

        visit(self.by, self.partitions)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Index:
    """An index on a table. ``elements`` are canonical SQL (``embedding vector_cosine_ops``, ``lower(name) DESC``)."""

    name: Name
    table: Name
    method: str
    elements: tuple[str, ...]
    columns: tuple[str, ...]
    """the plain columns among the elements, in order"""
    unique: bool = False
    nulls_not_distinct: bool = False
    include: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    opclass: str | None = None
    """operator class of the first element"""


class ObjectKind(StrEnum):
    """Other things a schema file makes; each exists on every node. The value is the word after CREATE/DROP."""

    EXTENSION = "extension"
    SCHEMA = "schema"
    ENUM = "type"
    DOMAIN = "domain"
    SEQUENCE = "sequence"
    FUNCTION = "function"
    VIEW = "view"
    MATERIALIZED_VIEW = "materialized view"
    ROLE = "role"
    GRANT = "grant"
    TRIGGER = "trigger"
    POLICY = "policy"
    COMMENT = "comment"


@dataclass(frozen=True, slots=True)
class SqlObject:
    """A statement that is carried out on every node as it stands.

    ``name`` identifies what it makes, ``sql`` is canonical text, ``values`` an enum's labels, ``secret`` says that the
    text holds a password verifier and must not be shown. ``table`` is the relation it belongs to, if any, and
    ``replaceable`` says that running a changed ``sql`` is enough to change it (CREATE OR REPLACE, GRANT, COMMENT).
    """

    kind: ObjectKind
    name: str
    sql: str
    replaceable: bool = False
    secret: bool = False
    values: tuple[str, ...] = ()
    table: Name | None = None

    @property
    def sealed(self) -> SqlObject:
        """The object as a topology keeps it: a text with a secret is replaced by its digest."""
        if not self.secret or self.sql.startswith(_SEAL):
            return self
        return replace(self, sql=_SEAL + hashlib.sha256(self.sql.encode()).hexdigest())


Item = Table | Index | SqlObject


@dataclass(frozen=True, slots=True)
class Schema:
    """A whole schema file: policies and items, in the order in which they can be made.

    ``trail`` is the herd's audit trail; None: a file does not mention it, a herd keeps none.
    """

    tablespaces: tuple[Tablespace, ...] = ()
    items: tuple[Item, ...] = ()
    trail: Trail | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables, in order."""
        return tuple(i for i in self.items if isinstance(i, Table))

    @property
    def indexes(self) -> tuple[Index, ...]:
        """The indexes, in order."""
        return tuple(i for i in self.items if isinstance(i, Index))

    @property
    def objects(self) -> tuple[SqlObject, ...]:
        """Everything that is neither table nor index, in order."""
        return tuple(i for i in self.items if isinstance(i, SqlObject))

    def table(self, name: Name) -> Table | None:
        """The table of that name."""
        return next((t for t in self.tables if t.name == name), None)

    def tablespace(self, name: str) -> Tablespace | None:
        """The tablespace of that name."""
        return next((t for t in self.tablespaces if t.name == name), None)

    def regions_of(self, table: Table) -> frozenset[str]:
        """The regions that rows of a table are pinned to, by any of its tablespaces; empty if none are."""
        return frozenset(region for name in tablespaces_of(table) for region in self.regions_at(name))

    def regions_at(self, tablespace: str | None) -> frozenset[str]:
        """The regions that rows in a tablespace are pinned to; empty if they are not."""
        space = self.tablespace(tablespace) if tablespace else None
        return (space.regions if space else None) or frozenset()

    def with_item(self, item: Item) -> Schema:
        """This schema with ``item`` added, or in the place of the item with the same key."""
        if any(item_key(i) == item_key(item) for i in self.items):
            return replace(self, items=tuple(item if item_key(i) == item_key(item) else i for i in self.items))
        return replace(self, items=(*self.items, item))


def item_key(item: Item) -> tuple[str, str]:
    """What makes two items the same thing: kind and name."""
    if isinstance(item, Table):
        return "table", item.name.sql
    if isinstance(item, Index):
        return "index", item.name.sql
    return item.kind.value, item.name


def tablespaces_of(table: Table) -> set[str | None]:
    """The tablespaces that a table and its partitions name; None where one names none."""
    return {table.tablespace, *(p.tablespace for p in every_partition(table.partitions))}


def every_partition(partitions: tuple[Partition, ...]) -> Iterator[Partition]:
    """The partitions of every level, each before those below it."""
    for part in partitions:
        yield part
        yield from every_partition(part.partitions)


def leaves(partitions: tuple[Partition, ...]) -> Iterator[tuple[tuple[Partition, ...], Partition]]:
    """Every leaf partition with its ancestors (outermost first), in order."""
    for p in partitions:
        if p.by is None:
            yield (), p
        else:
            for path, leaf in leaves(p.partitions):
                yield (p, *path), leaf
