"""Changes to steps, for herds made of plain PostgreSQL servers.

At home a shard is a table; on every other node the same name is a foreign partition, so any node answers any SQL.
With one group there is no elsewhere, and the same rules give an ordinary partitioned table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..errors import BadSchema, ChangeRefused
from ..model.names import Name, derived_name, quote_ident, quote_literal
from ..model.schema import (
    Check,
    Column,
    ForeignKey,
    Index,
    Key,
    ObjectKind,
    Partition,
    Schema,
    SqlObject,
    Table,
    TableKind,
    every_partition,
    leaves,
)
from ..model.topology import GroupId, Topology
from . import ddl
from .diff import (
    AddColumn,
    AddConstraint,
    AddEnumValue,
    AddPartition,
    AlterColumn,
    Change,
    Create,
    Record,
    Replace,
    SetRowSecurity,
)
from .placement import spaces_of
from .plan import BRIEFLY, NOBODY, Step, Traits
from .strict import barred, barrier_name, changed_links, make_barrier

SEQUENCE_STEP = 1024
"""Every group's sequences count in steps of this, each from its own number, so that no two groups give the same id."""

SCAN = "writers and readers of this table, while its rows are read once"
SCAN_WRITERS = "writers of this table, while its rows are read once"


def server_name(group: GroupId) -> str:
    """The foreign server under which every node knows a group."""
    return f"pgherd_{group}"


def linked_sequence(table: Table, column: str) -> Name:
    """The sequence that gives ids to a local table's identity column on groups that see it as a foreign table."""
    return Name(table.name.schema, derived_name(table.name.name, f"_{column}_herd_seq"))


@dataclass(frozen=True, slots=True)
class Compiler:
    """Makes steps that lead to ``target``; ``earlier`` is the schema that is there when they begin."""

    target: Topology
    traits: Traits
    earlier: Schema = field(default_factory=Schema)

    @property
    def keys_on_parent(self) -> bool:
        """Whether keys can live on a partitioned table itself."""
        return self.traits.keys_on_parent

    @property
    def everywhere(self) -> tuple[GroupId, ...]:
        """All groups."""
        return tuple(g.name for g in self.target.groups)

    def elsewhere(self, home: GroupId) -> tuple[GroupId, ...]:
        """All groups but one."""
        return tuple(g for g in self.everywhere if g != home)

    def links(
        self,
        parent: Name,
        parts: Iterable[Partition],
        home: GroupId,
        space: str | None,
        among: tuple[GroupId, ...],
    ) -> Iterator[tuple[str, tuple[GroupId, ...], str]]:
        """What ``among`` have in the place of shards at home in ``home``: (step kind, groups, SQL).

        Foreign partitions; barriers where a strict tablespace lets nobody lead to the rows.
        """
        closed = barred(self.target, space, among)
        for kind, groups in (("link_shard", tuple(g for g in among if g not in closed)), ("bar_shard", closed)):
            if groups:
                server = barrier_name(space or "") if kind == "bar_shard" else server_name(home)
                made = [ddl.create_foreign_partition(p.name, parent, p.bound, server) for p in parts]
                yield kind, groups, ";\n".join([*([make_barrier(space or "")] if kind == "bar_shard" else []), *made])

    def home(self, relation: Name) -> GroupId:
        """The group where a shard or local table lives."""
        return self.target.homes[relation.sql]

    def compile(self, change: Change) -> Iterator[Step]:
        """The steps of one change."""
        match change:
            case Create(Table() as table):
                yield from self._create_table(table)
            case Create(Index() as index):
                yield from self._create_index(index)
            case Create(SqlObject() as item):
                yield from self._run_object(item)
            case Replace(item):
                for step in self._run_object(item):
                    yield replace(step, kind=step.kind.replace("run_", "replace_", 1))
            case AddEnumValue(item, value, after, before):
                place = f" AFTER {quote_literal(after)}" if after else ""
                place = f" BEFORE {quote_literal(before)}" if before else place
                sql = f"ALTER TYPE {item.name} ADD VALUE IF NOT EXISTS {quote_literal(value)}{place}"
                yield self._all("add_enum_value", item.name, sql)
            case AddColumn(table, column):
                sql = f"ALTER TABLE {table.name.sql} ADD COLUMN {ddl.column(column)}"
                if table.kind is TableKind.REFERENCE and not self.keys_on_parent:
                    self._check_same_everywhere(table, column)
                yield Step("add_column", f"{table.name}.{column.name}", self._where(table), sql, blocks=BRIEFLY)
                yield from self._add_foreign_column(table, sql)
            case AlterColumn():
                yield from self._alter_column(change)
            case AddPartition(table, parent, partition):
                above = parent.name if parent else table.name
                yield from self._partition(table, above, partition, spaces_of(table), late=True)
            case AddConstraint(table, constraint):
                yield from self._add_constraint(table, constraint)
            case SetRowSecurity(table):
                yield from self._row_security(table)
            case Record(target):
                yield Step("record", target, (), "", undo="record the earlier schema again")

    def _all(self, kind: str, target: str, sql: str, *, secret: bool = False) -> Step:
        return Step(kind, target, self.everywhere, sql, secret=secret)

    def _where(self, table: Table) -> tuple[GroupId, ...]:
        """Where a table is a table and not a foreign table."""
        return (self.home(table.name),) if table.kind is TableKind.LOCAL else self.everywhere

    def _check_same_everywhere(self, table: Table, column: Column) -> None:
        if column.default is not None and not ddl.is_constant(column.default):
            raise ChangeRefused(
                f"table {table.name}: new column {column.name!r} has a default that calls a function, which would give"
                " the rows of this reference table another value on every node",
                hint="add it without a default or with a constant one, fill it with the client, then set the default",
            )

    def _add_foreign_column(self, table: Table, sql: str) -> Iterator[Step]:
        if table.kind is TableKind.LOCAL and (others := self.elsewhere(self.home(table.name))):
            foreign = sql.replace("ALTER TABLE", "ALTER FOREIGN TABLE", 1)
            yield Step("add_column", str(table.name), others, foreign, blocks=BRIEFLY)

    # tables

    def _create_table(self, table: Table) -> Iterator[Step]:
        name = str(table.name)
        if table.kind is TableKind.DISTRIBUTED:
            constraints = self._parent_constraints(table)
            yield self._all("create_table", name, ddl.create_table(self._writable(table), constraints))
            spaces = spaces_of(table)
            for partition in table.partitions:
                yield from self._partition(table, table.name, partition, spaces)
        else:
            constraints = [*map(ddl.key, table.keys), *map(ddl.foreign_key, table.foreign_keys)]
            sql = ddl.create_table(self._writable(table), constraints)
            yield Step("create_table", name, self._where(table), sql)
            if table.kind is TableKind.REFERENCE and not self.keys_on_parent:
                yield self._all(
                    "guard_reference", name, f"SELECT pgherd.guard_reference({quote_literal(table.name.sql)})"
                )
            if table.kind is TableKind.LOCAL and (others := self.elsewhere(self.home(table.name))):
                yield from self._link_table(table, others)
        yield from self._interleave_identity(table)
        if table.row_security:
            yield from self._row_security(table)

    def _writable(self, table: Table) -> Table:
        """The table with GENERATED ALWAYS AS IDENTITY made BY DEFAULT where other nodes write to it.

        A row that comes in through another node brings its number, which ALWAYS would refuse at its home.
        """
        if self.keys_on_parent or table.kind is TableKind.REFERENCE:
            return table
        columns = tuple(replace(c, identity="d") if c.identity else c for c in table.columns)
        return replace(table, columns=columns)

    def _parent_constraints(self, table: Table) -> list[str]:
        if not self.keys_on_parent:
            return []
        return [*map(ddl.key, table.keys), *map(ddl.foreign_key, table.foreign_keys)]

    def leaf_constraints(self, table: Table, leaf: Partition) -> list[str]:
        """The keys and foreign keys that a shard carries itself."""
        if self.keys_on_parent:
            return []
        keys = [ddl.key(k, named=False) for k in table.keys]
        return keys + [self._leaf_foreign_key(table, leaf.name, fk) for fk in table.foreign_keys]

    def _leaf_foreign_key(self, table: Table, leaf: Name, fk: ForeignKey) -> str:
        other = self.target.table(fk.references)
        if other.kind is not TableKind.DISTRIBUTED:
            return ddl.foreign_key(fk, named=False)
        mine = {s.relation: s for s in self.target.shards(table)}[leaf]
        path = [(lv.by.strategy, lv.bound) for lv in mine.path]
        for theirs in self.target.shards(other):
            if [(lv.by.strategy, lv.bound) for lv in theirs.path] == path and theirs.home == mine.home:
                return ddl.foreign_key(fk, references=theirs.relation, named=False)
        raise BadSchema(
            f"foreign key of {table.name} to {other.name}: shard {leaf} has no counterpart in the same group",
            hint="distribute both tables alike (same key, same shards, same tablespaces), or use a reference table",
        )

    def _partition(
        self, table: Table, parent: Name, part: Partition, spaces: Mapping[Name, str | None], *, late: bool = False
    ) -> Iterator[Step]:
        """A partition with all below it; ``late`` when its table exists already and so do the table's indexes."""
        if part.by is not None:
            sql = ddl.create_partition(part.name, parent, part.bound, part.by, [])
            blocks = BRIEFLY if late else NOBODY
            yield Step("create_partition", str(part.name), self.everywhere, sql, blocks=blocks)
            if late:
                yield from self._policies(table, part.name, self.everywhere)
            for child in part.partitions:
                yield from self._partition(table, part.name, child, spaces, late=late)
            return
        home = self.home(part.name)
        blocks = BRIEFLY if late else NOBODY
        constraints = self.leaf_constraints(table, part)
        sql = ddl.create_partition(part.name, parent, part.bound, None, constraints)
        if any(column.identity for column in table.columns):
            sql += f";\nSELECT pgherd.number_rows({quote_literal(part.name.sql)}, {quote_literal(parent.sql)})"
        yield Step("create_shard", str(part.name), (home,), sql, blocks=blocks)
        for kind, groups, sql in self.links(parent, [part], home, spaces[part.name], self.elsewhere(home)):
            yield Step(kind, str(part.name), groups, sql, blocks=blocks)
        if late and not self.keys_on_parent:
            unique = (i for i in self.target.indexes(table) if i.unique)
            yield from (self._leaf_index(index, part.name) for index in unique)
            triggers = self._earlier(ObjectKind.TRIGGER, table)
            yield from (self._leaf_trigger(item, part.name) for item in triggers)
        if late:
            yield from self._policies(table, part.name, (home,))

    def leaf_extras(self, table: Table, leaf: Name, groups: tuple[GroupId, ...]) -> Iterator[Step]:
        """The triggers and policies of the table, on a shard that has come to a new home."""
        yield from (self._leaf_trigger(item, leaf) for item in self._earlier(ObjectKind.TRIGGER, table))
        yield from self._policies(table, leaf, groups)

    def _earlier(self, kind: ObjectKind, table: Table) -> Iterator[SqlObject]:
        return (i for i in self.earlier.objects if i.kind is kind and i.table == table.name)

    def _policies(self, table: Table, part: Name, groups: tuple[GroupId, ...]) -> Iterator[Step]:
        """The policies that the table has already, on a new partition."""
        for item in self._earlier(ObjectKind.POLICY, table):
            yield Step("run_policy", item.name, groups, ddl.retarget_policy(item.sql, part))

    def _link_table(self, table: Table, others: tuple[GroupId, ...]) -> Iterator[Step]:
        defaults = {}
        for column in table.columns:
            if column.identity:
                sequence = linked_sequence(table, column.name)
                defaults[column.name] = f"nextval({quote_literal(sequence.sql)}::regclass)"
                for group in others:
                    sql = (
                        f"CREATE SEQUENCE {sequence.sql} INCREMENT BY {SEQUENCE_STEP} START WITH {self._number(group)}"
                    )
                    yield Step("create_sequence", str(sequence), (group,), sql)
        closed = barred(self.target, table.tablespace, others)
        if linked := tuple(g for g in others if g not in closed):
            sql = ddl.create_foreign_table(table, defaults, server_name(self.home(table.name)))
            yield Step("link_table", str(table.name), linked, sql)
        if closed:
            space = table.tablespace or ""
            sql = f"{make_barrier(space)};\n{ddl.create_foreign_table(table, defaults, barrier_name(space))}"
            yield Step("bar_table", str(table.name), closed, sql)

    def change_links(self, before: Topology) -> Iterator[Step]:
        """What a changed tablespace makes of foreign partitions: barriers where it closes, links where it opens."""
        where = {leaf.name: (t, above, leaf) for t in before.schema.tables for above, leaf in leaves(t.partitions)}
        for relation, closing, opening in changed_links(before, self.target):
            table, above, leaf = where[relation]
            parent = above[-1].name if above else table.name
            space = spaces_of(table)[relation]
            for kind, groups, sql in self.links(parent, [leaf], self.home(relation), space, (*closing, *opening)):
                yield Step(kind, str(relation), groups, f"DROP FOREIGN TABLE {relation.sql};\n{sql}", blocks=BRIEFLY)

    def _number(self, group: GroupId) -> int:
        return self.target.group(group).number

    def _interleave_identity(self, table: Table) -> Iterator[Step]:
        if self.keys_on_parent or table.kind is TableKind.REFERENCE:
            return
        for column in table.columns:
            if column.identity:
                for group in self._where(table):
                    sql = (
                        f"ALTER TABLE {table.name.sql} ALTER COLUMN {quote_ident(column.name)}"
                        f" SET INCREMENT BY {SEQUENCE_STEP} SET START WITH {self._number(group)} RESTART"
                    )
                    yield Step("interleave_ids", f"{table.name}.{column.name}", (group,), sql)

    def _alter_column(self, change: AlterColumn) -> Iterator[Step]:
        table, old, new = change.table, change.old, change.new
        head = f"ALTER TABLE {table.name.sql} ALTER COLUMN {quote_ident(new.name)}"
        target = f"{table.name}.{new.name}"
        if old.default != new.default:
            action = "DROP DEFAULT" if new.default is None else f"SET DEFAULT {new.default}"
            yield Step("set_default", target, self.everywhere, f"{head} {action}", blocks=BRIEFLY)
        if old.not_null != new.not_null:
            action = "SET NOT NULL" if new.not_null else "DROP NOT NULL"
            blocks = SCAN if new.not_null else BRIEFLY
            yield Step("set_not_null", target, self.everywhere, f"{head} {action}", blocks=blocks)

    def _add_constraint(self, table: Table, constraint: Check | ForeignKey | Key) -> Iterator[Step]:
        where = self._where(table)
        blocks = SCAN_WRITERS if isinstance(constraint, ForeignKey) else SCAN
        if table.kind is TableKind.DISTRIBUTED and not self.keys_on_parent and not isinstance(constraint, Check):
            before = self.earlier.table(table.name)
            for _, leaf in leaves(before.partitions if before else ()):  # a new partition is made with it
                text = (
                    ddl.key(constraint, named=False)
                    if isinstance(constraint, Key)
                    else self._leaf_foreign_key(table, leaf.name, constraint)
                )
                sql = f"ALTER TABLE {leaf.name.sql} ADD {text}"
                yield Step("add_constraint", str(leaf.name), (self.home(leaf.name),), sql, blocks=blocks)
            return
        match constraint:
            case Check():
                text = ddl.check(constraint)
            case ForeignKey():
                text = ddl.foreign_key(constraint)
            case Key():
                text = ddl.key(constraint)
        yield Step("add_constraint", str(table.name), where, f"ALTER TABLE {table.name.sql} ADD {text}", blocks=blocks)

    def _row_security(self, table: Table) -> Iterator[Step]:
        if table.row_security and table.kind is TableKind.LOCAL and len(self.everywhere) > 1:
            raise BadSchema(
                f"row-level security on {table.name}: it is whole on one node, and PostgreSQL keeps no policies on the"
                " foreign tables through which the others read it",
                hint="share it out, or make it a reference table: policies of those hold on every node",
            )
        head = f"ALTER TABLE {table.name.sql}"
        for on, word in ((table.row_security, ""), (table.force_row_security, "FORCE ")):
            verb = word or ("ENABLE " if on else "DISABLE ")
            if word and not on:
                verb = "NO FORCE "
            sql = f"{head} {verb}ROW LEVEL SECURITY"
            yield Step("row_security", str(table.name), self._where(table), sql, blocks=BRIEFLY)

    # indexes and objects

    def _create_index(self, index: Index) -> Iterator[Step]:
        table = self.target.table(index.table)
        if table.kind is TableKind.DISTRIBUTED and index.unique and not self.keys_on_parent:
            yield from (self._leaf_index(index, leaf.name) for _, leaf in leaves(table.partitions))
            return
        yield Step("create_index", str(index.name), self._where(table), ddl.create_index(index))

    def _leaf_index(self, index: Index, leaf: Name) -> Step:
        name = ddl.leaf_index_name(index, leaf)
        return Step("create_index", name, (self.home(leaf),), ddl.create_index(index, on=leaf, name=name))

    def build_index(self, index: Index) -> Iterator[Step]:
        """Build an index on a table that may hold rows, without keeping writers out.

        Each shard's part is built concurrently under the name that the parent's index then adopts.
        """
        table = self.target.table(index.table)
        parts: list[tuple[Name, str, tuple[GroupId, ...]]]
        if table.kind is TableKind.DISTRIBUTED:
            parts = [(s.relation, ddl.leaf_index_name(index, s.relation), (s.home,)) for s in self.target.shards(table)]
        else:
            parts = [(table.name, index.name.name, self._where(table))]
        for relation, name, groups in parts:
            sql = ddl.create_index(index, on=relation, name=name, concurrently=True)
            target = Name(relation.schema, name)
            yield Step("build_index", target.sql, groups, sql, undo=f"DROP INDEX CONCURRENTLY IF EXISTS {target.sql}")

    def adopt_index(self, index: Index) -> Iterator[Step]:
        """After :meth:`build_index`: the parent's index, which finds each shard's part already built."""
        table = self.target.table(index.table)
        if table.kind is TableKind.DISTRIBUTED and (self.keys_on_parent or not index.unique):
            yield Step("create_index", str(index.name), self.everywhere, ddl.create_index(index), blocks=BRIEFLY)
        else:
            yield Step("record", f"index {index.name}", (), "")

    def _leaf_trigger(self, item: SqlObject, leaf: Name) -> Step:
        return Step("run_trigger", item.name, (self.home(leaf),), ddl.retarget_trigger(item.sql, leaf))

    def _run_object(self, item: SqlObject) -> Iterator[Step]:
        kind = "run_" + item.kind.value.replace(" ", "_")
        table = self.target.schema.table(item.table) if item.table else None
        if (
            table
            and item.kind is ObjectKind.TRIGGER
            and table.kind is TableKind.DISTRIBUTED
            and not self.keys_on_parent
        ):
            # On the parent it would fire twice for a row that comes in through a foreign partition.
            yield from (self._leaf_trigger(item, leaf.name) for _, leaf in leaves(table.partitions))
            return
        where = self._where(table) if table else self.everywhere
        yield Step(kind, item.name[:120], where, item.sql, secret=item.secret)
        if table and item.kind is ObjectKind.POLICY:
            for part in every_partition(table.partitions):
                groups = self.everywhere if part.by else (self.home(part.name),)
                yield Step(kind, item.name, groups, ddl.retarget_policy(item.sql, part.name))
        if item.kind is ObjectKind.SEQUENCE and not self.keys_on_parent:
            for group in self.everywhere:
                start = ddl.sequence_start(item.sql) + self._number(group) - 1
                sql = f"ALTER SEQUENCE {item.name} INCREMENT BY {SEQUENCE_STEP} START WITH {start} RESTART"
                yield Step("interleave_ids", item.name, (group,), sql)
        if item.kind is ObjectKind.EXTENSION and not self.keys_on_parent:
            sql = f"SELECT pgherd.ship_extension({quote_literal(item.name)})"
            yield self._all("ship_extension", item.name, sql)
