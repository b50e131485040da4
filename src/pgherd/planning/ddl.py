"""PostgreSQL DDL for model objects: text only, one function a statement. Values are quoted, names are quoted."""

from __future__ import annotations

import hashlib
from typing import Any

from pglast import ast, parse_sql
from pglast.enums import SQLValueFunctionOp
from pglast.stream import RawStream
from pglast.visitors import Skip, Visitor

from ..model.names import MAX_IDENTIFIER_BYTES, Name, comma_idents, derived_name, quote_ident, quote_literal
from ..model.schema import Bound, Check, Column, ForeignKey, Index, Key, PartitionBy, Table


def column(c: Column) -> str:
    """``name type …``: a column definition."""
    parts = [quote_ident(c.name), c.type]
    if c.collation:
        parts.append(f"COLLATE {c.collation}")
    if c.default is not None:
        parts.append(f"DEFAULT {c.default}")
    if c.generated is not None:
        parts.append(f"GENERATED ALWAYS AS ({c.generated}) STORED")
    if c.identity:
        parts.append(f"GENERATED {'ALWAYS' if c.identity == 'a' else 'BY DEFAULT'} AS IDENTITY")
    if c.not_null:
        parts.append("NOT NULL")
    return " ".join(parts)


def key(k: Key, *, named: bool = True) -> str:
    """A primary key or unique constraint; ``named=False`` lets PostgreSQL choose a name per partition."""
    name = f"CONSTRAINT {quote_ident(k.name)} " if named and k.name else ""
    word = "PRIMARY KEY" if k.primary else "UNIQUE" + (" NULLS NOT DISTINCT" if k.nulls_not_distinct else "")
    return f"{name}{word} ({comma_idents(k.columns)})"


def foreign_key(fk: ForeignKey, *, references: Name | None = None, named: bool = True) -> str:
    """A foreign key, to ``references`` instead of the table it names when that is given."""
    name = f"CONSTRAINT {quote_ident(fk.name)} " if named and fk.name else ""
    target = (references or fk.references).sql
    columns = f" ({comma_idents(fk.ref_columns)})" if fk.ref_columns else ""
    return f"{name}FOREIGN KEY ({comma_idents(fk.columns)}) REFERENCES {target}{columns} {fk.tail}".rstrip()


def check(c: Check) -> str:
    """A check constraint."""
    name = f"CONSTRAINT {quote_ident(c.name)} " if c.name else ""
    return f"{name}CHECK ({c.expression})"


def partition_by(by: PartitionBy | None) -> str:
    """The PARTITION BY clause, with a leading blank; empty for a leaf."""
    return f" PARTITION BY {by.strategy.upper()} ({comma_idents(by.columns)})" if by else ""


def create_table(table: Table, constraints: list[str]) -> str:
    """CREATE TABLE with its columns, checks and ``constraints``."""
    body = [*map(column, table.columns), *map(check, table.checks), *constraints]
    return f"CREATE TABLE {table.name.sql} (\n    " + ",\n    ".join(body) + f"\n){partition_by(table.by)}"


def create_partition(name: Name, parent: Name, bound: Bound, by: PartitionBy | None, constraints: list[str]) -> str:
    """CREATE TABLE … PARTITION OF, as leaf or (with ``by``) as a level of its own."""
    inner = f" ({', '.join(constraints)})" if constraints else ""
    return f"CREATE TABLE {name.sql} PARTITION OF {parent.sql}{inner} {bound.sql}{partition_by(by)}"


def create_foreign_partition(name: Name, parent: Name, bound: Bound, server: str) -> str:
    """The same name on a node that is not the shard's home."""
    return f"CREATE FOREIGN TABLE {name.sql} PARTITION OF {parent.sql} {bound.sql} {_at(name, server)}"


def create_foreign_table(table: Table, defaults: dict[str, str], server: str) -> str:
    """A local table as other groups see it; ``defaults`` replaces the defaults of identity columns."""
    body = []
    for c in table.columns:
        default = defaults.get(c.name, c.default)
        text = f"{quote_ident(c.name)} {c.type}" + (f" COLLATE {c.collation}" if c.collation else "")
        if c.generated is not None:
            text += f" GENERATED ALWAYS AS ({c.generated}) STORED"
        elif default is not None:
            text += f" DEFAULT {default}"
        body.append(text + (" NOT NULL" if c.not_null else ""))
    return f"CREATE FOREIGN TABLE {table.name.sql} (\n    " + ",\n    ".join(body) + f"\n) {_at(table.name, server)}"


def _at(name: Name, server: str) -> str:
    options = f"schema_name {quote_literal(name.schema)}, table_name {quote_literal(name.name)}"
    return f"SERVER {quote_ident(server)} OPTIONS ({options})"


def create_index(index: Index, *, on: Name | None = None, name: str | None = None, concurrently: bool = False) -> str:
    """CREATE INDEX on the table, or on one of its leaves (``on``) under ``name``."""
    words = ["CREATE", "UNIQUE" if index.unique else "", "INDEX", "CONCURRENTLY IF NOT EXISTS" if concurrently else ""]
    text = " ".join(w for w in words if w)
    text += f" {quote_ident(name or index.name.name)} ON {(on or index.table).sql} USING {quote_ident(index.method)}"
    text += f" ({', '.join(index.elements)})"
    if index.include:
        text += f" INCLUDE ({comma_idents(index.include)})"
    if index.nulls_not_distinct:
        text += " NULLS NOT DISTINCT"
    if index.options:
        text += " WITH (" + ", ".join(f"{k} = {v}" for k, v in index.options) + ")"
    return text + (f" WHERE {index.where}" if index.where else "")


def leaf_index_name(index: Index, leaf: Name) -> str:
    """The name an index has on one shard. One that would be too long ends in a digest, so that no two share it."""
    name = f"{leaf.name}_{index.name.name.removeprefix(index.table.name + '_')}"
    if len(name.encode()) <= MAX_IDENTIFIER_BYTES:
        return name
    return derived_name(name, "_" + hashlib.sha256(name.encode()).hexdigest()[:12])


def sequence_start(sql: str) -> int:
    """The first value of the CREATE SEQUENCE statement ``sql``."""
    statement: Any = parse_sql(sql)[0].stmt
    options = {o.defname: o.arg for o in statement.options or ()}
    first = options.get("start") or options.get("minvalue") or ast.Integer(1)
    return int(first.ival or 0) if isinstance(first, ast.Integer) else int(first.fval)


class _Session(Visitor):
    """Finds what a policy asks its session; see pgherd.policies_ask, which decides."""

    def __init__(self, functions: frozenset[str]) -> None:
        self.functions, self.found = functions, False

    def visit_FuncCall(self, ancestors: object, node: ast.FuncCall) -> None:
        self.found |= (node.funcname or ())[-1].sval in {*self.functions, *_ASKING}

    def visit_SQLValueFunction(self, ancestors: object, node: ast.SQLValueFunction) -> None:
        self.found |= node.op in (SQLValueFunctionOp.SVFOP_SESSION_USER, SQLValueFunctionOp.SVFOP_CURRENT_SCHEMA)


_ASKING = ("current_setting", "current_schemas", "inet_client_addr", "inet_client_port", "pg_backend_pid")


def asks_session(sql: str, functions: frozenset[str]) -> bool:
    """Whether a policy asks for what only the session on the asking node knows, or a function of ``functions`` may."""
    visitor = _Session(functions)
    visitor(parse_sql(sql))
    return visitor.found


def retarget_policy(sql: str, part: Name) -> str:
    """The CREATE POLICY statement ``sql``, on partition ``part`` instead of the table it names."""
    statement: Any = parse_sql(sql)[0].stmt
    rename = _Rename(Name(statement.table.schemaname, statement.table.relname), part)
    for expression in filter(None, (statement.qual, statement.with_check)):
        rename(expression)
    statement.table.schemaname, statement.table.relname = part
    return str(RawStream()(statement))


class _Rename(Visitor):
    """Columns written as ``table.column`` become ``part.column``; below a FROM of the same name they mean another."""

    def __init__(self, table: Name, part: Name) -> None:
        self.table, self.part = table, part

    def visit_SelectStmt(self, ancestors: Any, node: Any) -> Any:
        names = {f.alias.aliasname if f.alias else f.relname for f in _range_vars(node)}
        return Skip if self.table.name in names else None

    def visit_ColumnRef(self, ancestors: Any, node: Any) -> None:
        before = [f.sval for f in node.fields[:-1]]
        if before in ([self.table.name], list(self.table)):
            node.fields = (ast.String(sval=self.part.name), node.fields[-1])


def _range_vars(node: Any) -> list[Any]:
    found: list[Any] = list(node.fromClause or ())
    for item in found:
        if isinstance(item, ast.JoinExpr):
            found += [item.larg, item.rarg]
    return [item for item in found if isinstance(item, ast.RangeVar)]


class _Calls(Visitor):
    found = False

    def visit_FuncCall(self, ancestors: Any, node: Any) -> None:
        self.found = True

    def visit_SQLValueFunction(self, ancestors: Any, node: Any) -> None:
        self.found = True


def is_constant(expression: str) -> bool:
    """Whether a default calls nothing, so that every server computes the same value."""
    visitor = _Calls()
    visitor(parse_sql(f"SELECT {expression}"))
    return not visitor.found


def retarget_trigger(sql: str, leaf: Name) -> str:
    """The CREATE TRIGGER statement ``sql``, on ``leaf`` instead of the table it names."""
    statement: Any = parse_sql(sql)[0].stmt
    statement.relation.schemaname, statement.relation.relname = leaf
    return str(RawStream()(statement))
