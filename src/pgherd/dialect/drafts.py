"""What the statements read so far add up to: tables still growing, and where each thing was said."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from ..model.names import Name
from ..model.placement import Tablespace
from ..model.schema import (
    Bound,
    Cells,
    Check,
    Column,
    Embedding,
    ForeignKey,
    Index,
    Key,
    PartitionBy,
    SqlObject,
    TableKind,
    Trail,
)
from .source import Place, Source

RESERVED_SCHEMA = "pgherd"


@dataclass
class TableDraft:
    """A table or partition that later statements may still change. A partition has a ``parent`` and a ``bound``."""

    name: Name
    place: Place
    columns: dict[str, Column] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    foreign_keys: list[ForeignKey] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    by: PartitionBy | None = None
    tablespace: str | None = None
    parent: Name | None = None
    bound: Bound | None = None
    children: list[Name] = field(default_factory=list)
    tablets: int | None = None
    tablets_place: Place | None = None
    hashed: tuple[str, ...] | None = None
    citus: TableKind | None = None
    shard_count: int | None = None
    hash_column: str | None = None
    colocate_with: tuple[Name, Place] | None = None
    row_security: bool = False
    force_row_security: bool = False
    embeddings: list[Embedding] = field(default_factory=list)
    cells: Cells | None = None
    restated: dict[str, Place] = field(default_factory=dict)
    """columns that a partition lists again"""
    own_defaults: dict[str, tuple[str, Place]] = field(default_factory=dict)
    """defaults said of a partition (pg_dump repeats the table's)"""
    places: dict[Hashable, Place] = field(default_factory=dict)
    """where each key and foreign key was said"""

    def column(self, name: str, place: Place) -> Column:
        """The column of that name; BadSchema otherwise."""
        if name not in self.columns:
            raise place.bad(
                f"table {str(self.name)!r} has no column {name!r}", hint=f"columns: {', '.join(self.columns) or 'none'}"
            )
        return self.columns[name]


@dataclass
class IndexDraft:
    """An index, and the tablespace it asked for."""

    index: Index
    place: Place
    tablespace: str | None = None


@dataclass
class Draft:
    """The schema file read so far."""

    source: Source
    tablespaces: dict[str, Tablespace] = field(default_factory=dict)
    items: list[TableDraft | IndexDraft | SqlObject] = field(default_factory=list)
    tables: dict[Name, TableDraft] = field(default_factory=dict)
    made: dict[tuple[str, str], Place] = field(default_factory=dict)
    """relations and other objects by class of name, as PostgreSQL's catalogues keep them apart"""
    places: dict[Hashable, Place] = field(default_factory=dict)
    attached_indexes: dict[Name, tuple[Name, Place]] = field(default_factory=dict)
    owned_sequences: dict[Name, tuple[Name, str]] = field(default_factory=dict)
    drops: list[tuple[str, str, Place]] = field(default_factory=list)
    domains: dict[str, str] = field(default_factory=dict)
    """each domain's type"""
    default_tablespace: str | None = None
    trail: Trail | None = None

    def make(self, kind: str, name: str, place: Place, *, if_not_exists: bool = False) -> bool:
        """Note that ``name`` is made here; False if it is there already and IF NOT EXISTS was said."""
        if (kind, name) in self.made:
            if if_not_exists:
                return False
            there = self.made[kind, name].where
            raise place.bad(f"{kind} {name} is made twice, first at {there}", hint="keep one of the two")
        self.made[kind, name] = place
        return True

    def make_relation(self, name: Name, place: Place, *, if_not_exists: bool = False) -> bool:
        """The same for tables, indexes, views and sequences, which share one space of names."""
        check_schema(name, place)
        return self.make("relation", name.sql, place, if_not_exists=if_not_exists)

    def table(self, name: Name, place: Place) -> TableDraft:
        """The table of that name; BadSchema if the file hasn't made it."""
        if name not in self.tables:
            known = ", ".join(str(n) for n, t in self.tables.items() if t.parent is None) or "none so far"
            raise place.bad(
                f"there is no table {str(name)!r} above this line", hint=f"create it first; tables so far: {known}"
            )
        return self.tables[name]

    def root(self, name: Name) -> TableDraft:
        """The table that this table or partition is in the end a part of."""
        table = self.tables[name]
        return table if table.parent is None else self.root(table.parent)

    def effective_tablespace(self, name: Name) -> str | None:
        """A table's or partition's tablespace, its own or the one of the nearest level above."""
        table = self.tables[name]
        if table.tablespace is not None or table.parent is None:
            return table.tablespace
        return self.effective_tablespace(table.parent)

    def objects(self, kind: str) -> list[SqlObject]:
        """The other objects of a kind, in order."""
        return [i for i in self.items if isinstance(i, SqlObject) and i.kind.value == kind]


def check_schema(name: Name, place: Place) -> None:
    """Raises BadSchema for a name in a schema that is pgherd's or PostgreSQL's own."""
    if name.schema == RESERVED_SCHEMA:
        raise place.bad("schema pgherd is pgherd's own", hint="use another schema")
    if name.schema == "information_schema" or name.schema.startswith("pg_"):
        raise place.bad(f"schema {name.schema} is PostgreSQL's own", hint="use another schema")
