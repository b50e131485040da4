"""Column definitions and constraints -> Column, Key, ForeignKey, Check of a table draft.

``serial`` types become an identity column (BY DEFAULT) of the integer type below: a herd numbers rows without
collisions through identity sequences, and a sequence of its own on each node would not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pglast.enums import ConstrType

from ..model.names import quote_ident
from ..model.schema import Check, Column, ForeignKey, Key
from .drafts import TableDraft
from .source import Place, Statement
from .text import default_expression, expression, qualified, relation, strings, type_name

_SERIAL = {
    "serial": "integer",
    "serial4": "integer",
    "bigserial": "bigint",
    "serial8": "bigint",
    "smallserial": "smallint",
    "serial2": "smallint",
}
_ACTIONS = {"r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_SEQUENCE_DEFAULTS = {"increment": "1", "start": "1", "cache": "1"}


def add_column(table: TableDraft, node: Any, statement: Statement) -> None:
    """Add a ColumnDef with all that is said at the column."""
    place = statement.place(node.location)
    if node.colname in table.columns:
        raise place.bad(f"column {node.colname!r} is written twice", hint="keep one of the two")
    if node.typeName is None:
        if node.constraints:
            raise place.bad("a partition's own column options", hint="set defaults and constraints on the table")
        table.restated[node.colname] = place  # YugabyteDB's examples list a partition's columns again
        return
    if node.compression or node.storage_name or node.fdwoptions:
        raise place.bad("STORAGE and COMPRESSION are not kept", hint="leave them out")
    names = strings(node.typeName.names)
    serial = _SERIAL.get(names[-1]) if len(names) == 1 and not node.typeName.arrayBounds else None
    column = Column(node.colname, serial or type_name(node.typeName, place))
    if serial:
        column = replace(column, identity="d", not_null=True)
    if node.collClause:
        column = replace(column, collation=_collation(node.collClause))
    table.columns[column.name] = column
    constraints = tuple(node.constraints or ())
    for n, c in enumerate(constraints):
        _column_constraint(table, column.name, c, _attributes(constraints[n + 1 :]), statement)


def _collation(clause: Any) -> str:
    name = qualified(clause.collname)
    return quote_ident(name.name) if name.schema in ("public", "pg_catalog") else name.sql


def _attributes(following: tuple[Any, ...]) -> list[str]:
    """DEFERRABLE and its kind come as constraints of their own after the one they belong to."""
    words = {
        ConstrType.CONSTR_ATTR_DEFERRABLE: "DEFERRABLE",
        ConstrType.CONSTR_ATTR_DEFERRED: "INITIALLY DEFERRED",
        ConstrType.CONSTR_ATTR_NOT_ENFORCED: "NOT ENFORCED",
        ConstrType.CONSTR_ATTR_NOT_DEFERRABLE: "",
        ConstrType.CONSTR_ATTR_IMMEDIATE: "",
        ConstrType.CONSTR_ATTR_ENFORCED: "",
    }
    found = []
    for c in following:
        if c.contype not in words:
            break
        found.append(words[c.contype])
    return [w for w in found if w]


def _column_constraint(table: TableDraft, name: str, node: Any, after: list[str], statement: Statement) -> None:
    place, kind, column = statement.place(node.location), node.contype, table.columns[name]
    if kind == ConstrType.CONSTR_NOTNULL:
        table.columns[name] = replace(column, not_null=True)
    elif kind == ConstrType.CONSTR_DEFAULT:
        table.columns[name] = with_default(column, node.raw_expr, place)
    elif kind == ConstrType.CONSTR_IDENTITY:
        table.columns[name] = with_identity(column, node, place)
    elif kind == ConstrType.CONSTR_GENERATED:
        if node.generated_kind == "v":
            raise place.bad("a VIRTUAL column can't be indexed or searched on its shard", hint="write STORED")
        table.columns[name] = replace(column, generated=expression(node.raw_expr, place))
    elif kind in (ConstrType.CONSTR_PRIMARY, ConstrType.CONSTR_UNIQUE, ConstrType.CONSTR_FOREIGN):
        add_constraint(table, node, statement, columns=(name,), after=after)
    elif kind == ConstrType.CONSTR_CHECK:
        add_constraint(table, node, statement, after=after)


def with_default(column: Column, node: Any, place: Place) -> Column:
    """The column with DEFAULT ``node`` (None: without)."""
    if column.identity or column.generated:
        raise place.bad(f"column {column.name!r} is generated and has a default", hint="leave the default out")
    text = None if node is None else default_expression(node, place)
    return replace(column, default=None if text == "NULL" else text)


def with_identity(column: Column, node: Any, place: Place) -> Column:
    """The column with GENERATED … AS IDENTITY; sequence options other than PostgreSQL's defaults are refused."""
    for option in node.options or ():
        value = getattr(option.arg, "ival", None)
        usual = option.defname in ("sequence_name", "owned_by", "as")
        usual = usual or (option.defname in ("minvalue", "maxvalue", "cycle") and not value and option.arg is None)
        usual = usual or str(value) == _SEQUENCE_DEFAULTS.get(option.defname, "")
        usual = usual or (option.defname == "cycle" and not getattr(option.arg, "boolval", True))
        if not usual:
            raise place.bad(
                f"identity option {option.defname.upper()}: every group numbers its rows in a range of its own",
                hint="leave the options out: write GENERATED BY DEFAULT AS IDENTITY",
            )
    return replace(column, identity=node.generated_when, not_null=True, default=None)


def add_constraint(
    table: TableDraft,
    node: Any,
    statement: Statement,
    *,
    columns: tuple[str, ...] = (),
    after: list[str] | None = None,
) -> None:
    """Add a table constraint; ``columns`` and ``after`` are for one that was written at a column."""
    place, kind = statement.place(node.location), node.contype
    if node.fk_with_period or node.pk_with_period:
        raise place.bad("a foreign key with PERIOD can't be checked across shards", hint="leave PERIOD out")
    deferred = after or [
        w for w, on in (("DEFERRABLE", node.deferrable), ("INITIALLY DEFERRED", node.initdeferred)) if on
    ]
    if "NOT ENFORCED" in deferred or (kind in _ENFORCEABLE and not node.is_enforced):
        raise place.bad("a constraint that is NOT ENFORCED", hint="enforce it, or leave it out")
    if kind in (ConstrType.CONSTR_PRIMARY, ConstrType.CONSTR_UNIQUE):
        _add_key(table, node, place, columns or strings(node.keys), deferred)
    elif kind == ConstrType.CONSTR_FOREIGN:
        local = columns or strings(node.fk_attrs)
        _needs(table, local, place)
        reference = ForeignKey(
            local, relation(node.pktable, place), strings(node.pk_attrs), node.conname, _tail(node, deferred)
        )
        table.foreign_keys.append(reference)
        table.places[reference] = place
    elif kind == ConstrType.CONSTR_CHECK:
        if node.is_no_inherit:
            raise place.bad("CHECK … NO INHERIT: partitions inherit every check", hint="leave NO INHERIT out")
        table.checks.append(Check(expression(node.raw_expr, place), node.conname))
    elif kind == ConstrType.CONSTR_NOTNULL:
        for name in strings(node.keys):
            table.columns[name] = replace(table.column(name, place), not_null=True)
    elif kind == ConstrType.CONSTR_EXCLUSION:
        raise place.bad("EXCLUDE can't be checked across shards", hint="use a unique key, or check in the application")
    else:
        raise place.bad("apply doesn't know this constraint", hint="write PRIMARY KEY, UNIQUE, FOREIGN KEY or CHECK")


_ENFORCEABLE = (ConstrType.CONSTR_FOREIGN, ConstrType.CONSTR_CHECK)


def _needs(table: TableDraft, columns: tuple[str, ...], place: Place) -> None:
    # a partition's columns are its parent's: the checks at the end see them
    if table.columns:
        for name in columns:
            table.column(name, place)


def _add_key(table: TableDraft, node: Any, place: Place, columns: tuple[str, ...], deferred: list[str]) -> None:
    primary = node.contype == ConstrType.CONSTR_PRIMARY
    word = "PRIMARY KEY" if primary else "UNIQUE"
    if node.indexname:
        raise place.bad(f"{word} USING INDEX", hint=f"write {word} (columns)")
    if deferred:
        raise place.bad(f"{word} {deferred[0]}: shards check their keys at once", hint=f"leave {deferred[0]} out")
    if node.including:
        raise place.bad(f"{word} … INCLUDE", hint="write CREATE UNIQUE INDEX … INCLUDE beside the key")
    if node.without_overlaps:
        raise place.bad(f"{word} … WITHOUT OVERLAPS can't be checked across shards", hint="leave it out")
    if node.indexspace and node.indexspace != table.tablespace:
        raise place.bad(
            f"{word} USING INDEX TABLESPACE {node.indexspace}: an index lives with its rows",
            hint="leave USING INDEX TABLESPACE out",
        )
    _needs(table, columns, place)
    if len(set(columns)) < len(columns):
        raise place.bad(f"{word} names a column twice", hint="name it once")
    if primary and any(k.primary for k in table.keys):
        raise place.bad("a second primary key", hint="keep one; write UNIQUE for the other")
    key = Key(columns, primary, node.conname, bool(node.nulls_not_distinct))
    table.keys.append(key)
    table.places[key] = place
    if primary and table.columns:
        for name in columns:
            table.columns[name] = replace(table.columns[name], not_null=True)


def _tail(node: Any, deferred: list[str]) -> str:
    parts = ["MATCH FULL"] if node.fk_matchtype == "f" else []
    if node.fk_del_action in _ACTIONS:
        some = f" ({', '.join(_quoted(node.fk_del_set_cols))})" if node.fk_del_set_cols else ""
        parts.append(f"ON DELETE {_ACTIONS[node.fk_del_action]}{some}")
    if node.fk_upd_action in _ACTIONS:
        parts.append(f"ON UPDATE {_ACTIONS[node.fk_upd_action]}")
    if "INITIALLY DEFERRED" in deferred and "DEFERRABLE" not in deferred:
        parts.append("DEFERRABLE")
    return " ".join(parts + deferred)


def _quoted(nodes: Any) -> list[str]:
    return [quote_ident(n) for n in strings(nodes)]
