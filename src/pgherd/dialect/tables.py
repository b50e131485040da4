"""CREATE TABLE, its partitions and LIKE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pglast import ast
from pglast.enums import PartitionStrategy

from ..model.names import Name
from ..model.schema import Bound, HashBound, ListBound, PartitionBy, Strategy
from .columns import add_column, add_constraint
from .drafts import Draft, TableDraft
from .indexes import copy_indexes
from .source import Place, Statement
from .text import constant, option_text, relation

_LIKE_CONSTRAINTS, _LIKE_DEFAULTS, _LIKE_GENERATED, _LIKE_IDENTITY, _LIKE_INDEXES = 4, 8, 16, 32, 64


def create_table(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE TABLE in any of its accepted forms. Raises BadSchema."""
    place = statement.place()
    name = relation(node.relation, place)
    _refuse(node, statement)
    if not draft.make_relation(name, place, if_not_exists=bool(node.if_not_exists)):
        return
    table = TableDraft(name, place, tablespace=node.tablespacename, hashed=statement.hashed)
    if statement.tablets is not None:
        table.tablets, table.tablets_place = statement.tablets, statement.place(statement.tablets_at)
    if node.partspec:
        table.by = _by(node.partspec, statement)
    if node.partbound:
        _attach(draft, table, relation(node.inhRelations[0], place), bound(node.partbound, statement), place)
    if table.tablespace is None and not _inherits_tablespace(draft, table):
        table.tablespace = draft.default_tablespace
    draft.tables[name] = table
    draft.items.append(table)
    elements = node.tableElts or ()
    for element in (e for e in elements if not isinstance(e, ast.Constraint)):
        if isinstance(element, ast.TableLikeClause):
            _like(draft, table, element, statement)
        else:
            add_column(table, element, statement)
    for element in (e for e in elements if isinstance(e, ast.Constraint)):
        add_constraint(table, element, statement)
    if table.parent is not None and (table.checks or table.foreign_keys):
        raise place.bad("a constraint on one partition only", hint=f"write it on table {str(table.parent)!r}")
    if table.parent is None and not table.columns:
        raise place.bad("a table without columns", hint="write its columns")


def _inherits_tablespace(draft: Draft, table: TableDraft) -> bool:
    return table.parent is not None and draft.effective_tablespace(table.parent) is not None


def _refuse(node: Any, statement: Statement) -> None:
    place = statement.place()
    if node.relation.relpersistence == "t":
        raise place.bad("a temporary table lives in one session", hint="create it in the session that uses it")
    if node.relation.relpersistence == "u":
        raise place.bad("an UNLOGGED table is on no standby and empty after a crash", hint="leave UNLOGGED out")
    if node.ofTypename:
        raise place.bad("CREATE TABLE … OF type", hint="write the columns out")
    if node.inhRelations and not node.partbound:
        raise place.bad("INHERITS: rows of a child have no shard of the parent", hint="use PARTITION BY LIST or HASH")
    if node.accessMethod and node.accessMethod != "heap":
        raise place.bad(f"USING {node.accessMethod}", hint="leave USING out: every server has heap tables")
    for option in node.options or ():
        if option.defname not in ("colocation", "colocated", "colocation_id"):
            raise statement.place(option.location).bad(
                f"storage parameter {option.defname}: apply keeps definitions, not a server's tuning",
                hint=f"leave {option.defname} = {option_text(option.arg)} out",
            )


def _by(spec: Any, statement: Statement) -> PartitionBy:
    if spec.strategy == PartitionStrategy.PARTITION_STRATEGY_RANGE:
        raise statement.place(spec.location).bad(
            "PARTITION BY RANGE: the newest range would get every write, on one server",
            hint="use PARTITION BY HASH to spread rows, PARTITION BY LIST to pin them",
        )
    columns = []
    for part in spec.partParams:
        place = statement.place(part.location)
        if part.name is None:
            raise place.bad("partitioning by an expression", hint="store the value in a column, and name that")
        if part.opclass or part.collation:
            raise place.bad("an operator class or collation for a partition key", hint="leave it out")
        columns.append(part.name)
    by_list = spec.strategy == PartitionStrategy.PARTITION_STRATEGY_LIST
    return PartitionBy(Strategy.LIST if by_list else Strategy.HASH, tuple(columns))


def bound(spec: Any, statement: Statement) -> Bound:
    """``DEFAULT``, ``FOR VALUES IN`` or ``FOR VALUES WITH``; values are as they were written, casts left out."""
    place = statement.place(spec.location)
    if spec.is_default:
        return ListBound(default=True)
    if spec.strategy == "h":
        return HashBound(spec.modulus, spec.remainder)
    if spec.strategy != "l":
        raise place.bad("FOR VALUES FROM … TO", hint="use FOR VALUES IN (…) or FOR VALUES WITH (MODULUS, REMAINDER)")
    try:
        return ListBound(tuple(constant(v) for v in spec.listdatums))
    except ValueError as e:
        raise place.bad("a value that is not a constant", hint="write the values themselves") from e


def _attach(draft: Draft, table: TableDraft, parent: Name, limits: Bound, place: Place) -> None:
    above = draft.table(parent, place)
    if above.by is None:
        raise place.bad(
            f"table {str(parent)!r} is not partitioned", hint=f"write PARTITION BY in CREATE TABLE {parent}"
        )
    wanted = HashBound if above.by.strategy is Strategy.HASH else ListBound
    if not isinstance(limits, wanted):
        form = "FOR VALUES WITH (MODULUS n, REMAINDER r)" if wanted is HashBound else "FOR VALUES IN (…) or DEFAULT"
        raise place.bad(f"table {str(parent)!r} is partitioned by {above.by.strategy}", hint=f"write {form}")
    table.parent, table.bound = parent, limits
    above.children.append(table.name)


def attach_partition(draft: Draft, parent: Name, node: Any, statement: Statement) -> None:
    """ALTER TABLE parent ATTACH PARTITION child: the child must have the parent's columns."""
    place = statement.place()
    child = draft.table(relation(node.name, place), place)
    if child.parent is not None:
        raise place.bad(f"{str(child.name)!r} is a partition already", hint="attach it once")
    draft.table(parent, place)
    above = draft.root(parent)
    _attach(draft, child, parent, bound(node.bound, statement), place)
    columns = {n: c.type for n, c in child.columns.items()}
    if columns != {n: c.type for n, c in above.columns.items()}:
        raise place.bad(
            f"{str(child.name)!r} and {str(parent)!r} differ in their columns",
            hint=f"write CREATE TABLE {child.name} PARTITION OF {parent} …",
        )
    if child.checks != above.checks or child.foreign_keys:
        kept = [c for c in child.checks if c.expression not in {x.expression for x in above.checks}]
        if kept or child.foreign_keys:
            raise place.bad(f"{str(child.name)!r} has constraints of its own", hint=f"write them on {parent}")
    if child.row_security or child.force_row_security or child.embeddings or child.citus:
        raise place.bad(f"{str(child.name)!r} has settings of its own", hint=f"make them on {parent}")
    child.own_defaults = {n: (c.default, child.place) for n, c in child.columns.items() if c.default}
    child.columns, child.checks = {}, []


def _like(draft: Draft, table: TableDraft, node: Any, statement: Statement) -> None:
    """LIKE other [INCLUDING …]: what is included is copied once, here; other tables of the file only."""
    place = statement.place()
    other, options = draft.table(relation(node.relation, place), place), node.options
    if other.parent is not None:
        raise place.bad("LIKE a partition", hint=f"write LIKE {other.parent}")
    for column in other.columns.values():
        kept = column if options & _LIKE_DEFAULTS else replace(column, default=None)
        kept = kept if options & _LIKE_GENERATED else replace(kept, generated=None)
        kept = kept if options & _LIKE_IDENTITY else replace(kept, identity=None)
        if kept.name in table.columns:
            raise place.bad(f"column {kept.name!r} is written twice", hint="keep one of the two")
        table.columns[kept.name] = kept
    if options & _LIKE_CONSTRAINTS:
        table.checks += other.checks
    if options & _LIKE_INDEXES:
        table.keys += [replace(k, name=None) for k in other.keys]
        copy_indexes(draft, other.name, table.name, place)
