"""The second fence: is this text one SELECT over the tables it may read, made of nothing but what is allowed?

The first fence are the servers, which let the reader do no more whatever this lets through. Parsed by PostgreSQL's own
grammar (libpg_query), so comments, quoting and Unicode escapes mean here what they mean there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pglast import ast, parse_sql
from pglast.enums import SQLValueFunctionOp
from pglast.parser import ParseError
from pglast.visitors import Visitor

from ..errors import QueryRefused
from .allowed import FUNCTIONS, MADE_BY_SERVER, NODES, OPERATORS, SCHEMAS, SYSTEM_COLUMNS, TYPES

MAX_CHARACTERS = 20_000
_WHAT_IS_ALLOWED = "one SELECT over the tables of list_tables, with functions that only compute; see docs/mcp.md"
_VALUES = frozenset(
    getattr(SQLValueFunctionOp, "SVFOP_" + name)
    for base in ("CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "CURRENT_DATE")
    for name in ((base,) if base == "CURRENT_DATE" else (base, base + "_N"))
)


class Checked(NamedTuple):
    """A query that was let through: its text, without a semicolon, and the tables it names."""

    text: str
    tables: tuple[str, ...]


def check(text: str, tables: Mapping[str, Iterable[str]]) -> Checked:
    """Let a query through, or raise QueryRefused that says why not. ``tables`` maps the names it may use to columns."""
    if len(text) > MAX_CHARACTERS:
        raise _refused(f"the query has {len(text)} characters, more than {MAX_CHARACTERS}")
    if "\0" in text:
        raise _refused("the query holds a NUL character")
    bare = text.strip().removesuffix(";").rstrip()
    select = _only_select(bare)
    visitor = _Fence(tables)
    try:
        visitor(select)
    except RecursionError:
        raise _refused("the query is nested too deeply") from None
    # x.f may be PostgreSQL's other way of writing f(x), so f must be a column, or a function that is allowed anyway.
    columns = {c for t in tables.values() for c in t} | visitor.made | FUNCTIONS | TYPES | MADE_BY_SERVER
    strange = sorted(f for f in visitor.fields - columns if not re.fullmatch(r"column\d+", f))
    if strange:
        raise _refused(f"there is no column {strange[0]!r} here")
    unknown = sorted(visitor.relations - visitor.ctes - set(tables))
    if unknown:
        raise _refused(f"there is no table {unknown[0]!r} here", "tables: " + (", ".join(sorted(tables)) or "none"))
    return Checked(bare, tuple(sorted(visitor.relations & set(tables))))


def _only_select(text: str) -> Any:
    try:
        statements = parse_sql(text)
    except ParseError as error:
        raise _refused(f"this is not SQL: {error.args[0]}") from None
    except RecursionError:
        raise _refused("the query is nested too deeply") from None
    if len(statements) != 1:
        raise _refused(f"these are {len(statements)} statements, not one")
    statement = statements[0].stmt
    if not isinstance(statement, ast.SelectStmt):
        raise _refused(f"{_said(statement)} is not a SELECT")
    return statement


def _refused(why: str, hint: str = _WHAT_IS_ALLOWED) -> QueryRefused:
    return QueryRefused(f"refused: {why}", hint=hint)


def _said(node: Any) -> str:
    return type(node).__name__.removesuffix("Stmt")


def _names(parts: Any) -> list[str]:
    return [str(p.sval) for p in parts or () if isinstance(p, ast.String)]


class _Fence(Visitor):
    """Raises at the first node that is not allowed; collects the names of relations."""

    def __init__(self, tables: Collection[str]) -> None:
        self.tables = tables
        self.relations: set[str] = set()
        self.ctes: set[str] = set()
        self.fields: set[str] = set()
        """what is asked of something else: ``x.f`` or ``(x).f``"""
        self.made: set[str] = set()
        """names that the query gives to columns itself"""

    def visit(self, ancestors: Any, node: Any) -> None:
        """Any node: its kind must be listed, and so must what it names."""
        if type(node) not in NODES:
            raise _refused(f"{_said(node)} is not allowed in a query")
        checker = getattr(self, "_check_" + type(node).__name__, None)
        if checker is not None:
            checker(node)

    def _qualified(self, parts: Any, what: str, listed: Collection[str]) -> None:
        names = _names(parts)
        if len(names) > 2 or (len(names) == 2 and names[0] not in SCHEMAS) or not names or names[-1] not in listed:
            raise _refused(f"{what} {'.'.join(names)} is not allowed in a query")

    def _check_RangeVar(self, node: Any) -> None:
        if node.schemaname is not None or node.catalogname is not None:
            name = ".".join(filter(None, (node.catalogname, node.schemaname, node.relname)))
            raise _refused(f"table {name} is named with a schema", "name tables as list_tables does, without a schema")
        self.relations.add(node.relname)

    def _check_Alias(self, node: Any) -> None:
        self.made.update([node.aliasname, *_names(node.colnames)])

    def _check_ResTarget(self, node: Any) -> None:
        self.made.update([node.name] if node.name else ())

    def _check_ColumnDef(self, node: Any) -> None:
        self.made.add(node.colname)

    def _check_A_Indirection(self, node: Any) -> None:
        self.fields.update(_names(node.indirection))

    def _check_CommonTableExpr(self, node: Any) -> None:
        # Outside of its reach a WITH name would mean a relation of the catalog, or a table.
        if node.ctename.startswith("pg_") or node.ctename in self.tables:
            raise _refused(f"WITH {node.ctename}: that name is taken", "use another name")
        self.ctes.add(node.ctename)
        self.made.update(_names(node.aliascolnames))

    def _check_FuncCall(self, node: Any) -> None:
        self._qualified(node.funcname, "function", FUNCTIONS)

    def _check_TypeName(self, node: Any) -> None:
        if node.setof or node.pct_type:
            raise _refused("SETOF and %TYPE are not allowed in a query")
        self._qualified(node.names, "type", TYPES)

    def _check_A_Expr(self, node: Any) -> None:
        names = _names(node.name)
        if names not in (["BETWEEN"], ["NOT BETWEEN"], ["BETWEEN SYMMETRIC"], ["NOT BETWEEN SYMMETRIC"]):
            self._qualified(node.name, "operator", OPERATORS)

    def _check_SubLink(self, node: Any) -> None:
        if node.operName is not None:
            self._qualified(node.operName, "operator", OPERATORS)

    def _check_SortBy(self, node: Any) -> None:
        if node.useOp is not None:
            self._qualified(node.useOp, "operator", OPERATORS)

    def _check_CollateClause(self, node: Any) -> None:
        self._qualified(node.collname, "collation", ("C", "POSIX", "default", "ucs_basic", "unicode", "en-x-icu"))

    def _check_SQLValueFunction(self, node: Any) -> None:
        if node.op not in _VALUES:
            raise _refused("names of users, roles and catalogs are not given out")

    def _check_ColumnRef(self, node: Any) -> None:
        names = _names(node.fields)
        if len(names) > 2:
            raise _refused(f"column {'.'.join(names)} is named with a schema", "write table.column or column")
        if names and names[-1] in SYSTEM_COLUMNS:
            raise _refused(f"system column {names[-1]} is not given out")
        self.fields.update(names[1:])
