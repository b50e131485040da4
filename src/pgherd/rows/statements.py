"""What an SQL text changes, as far as pgherd must know: reference tables have to change on every node at once."""

from __future__ import annotations

from enum import Enum, auto

from pglast import ast, parse_sql
from pglast.parser import ParseError
from pglast.visitors import Visitor

from ..model.names import Name
from ..model.schema import TableKind
from ..model.topology import Topology


def modified_reference_tables(query: str, topology: Topology) -> list[Name]:
    """The reference tables that ``query`` inserts into, updates, deletes from or truncates.

    Text that libpg_query does not understand (driver placeholders) is looked at with those replaced; if it still can't
    be read, nothing is found, and the guard on every copy refuses the write.
    """
    references = {t.name for t in topology.schema.tables if t.kind is TableKind.REFERENCE}
    if not references or len(topology.groups) < 2:
        return []
    try:
        statements = parse_sql(_without_placeholders(query))
    except ParseError:
        return []
    found = []
    for raw in statements:
        statement = raw.stmt
        targets: tuple[object, ...] = ()
        if isinstance(statement, (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt)):
            targets = (statement.relation,)
        elif isinstance(statement, ast.TruncateStmt):
            targets = tuple(statement.relations or ())
        for target in targets:
            if isinstance(target, ast.RangeVar):
                name = Name(str(target.schemaname or "public"), str(target.relname))
                if name in references:
                    found.append(name)
    return found


def tables_in(query: str) -> list[str]:
    """The tables and views that ``query`` names, in order; none for text that can't be read."""
    try:
        statements = parse_sql(_without_placeholders(query))
    except ParseError:
        return []
    named = _Named()
    for raw in statements:
        named(raw)
    return [str(n) for n in named.tables if n.schema != "public" or n.name not in named.parts]


class Effect(Enum):
    """What may have happened when a connection broke while a statement ran."""

    NONE = auto()
    """nothing: it reads, and may be run again"""
    UNLIKELY = auto()
    """nothing by itself, but it calls functions, which may do anything: don't run it again unasked"""
    POSSIBLE = auto()
    """it may have written"""


def is_about_rows(query: str) -> bool:
    """Whether ``query`` does no more than read and change rows, as any transaction may; not if it can't be read."""
    try:
        statements = parse_sql(_without_placeholders(query))
    except ParseError:
        return False
    return all(isinstance(raw.stmt, _ABOUT_ROWS) for raw in statements)


_ABOUT_ROWS = (ast.SelectStmt, ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)


def effect_of(query: str) -> Effect:
    """What running ``query`` in a transaction of its own can have changed; POSSIBLE for text that can't be read."""
    try:
        statements = parse_sql(_without_placeholders(query))
    except ParseError:
        return Effect.POSSIBLE
    effect = Effect.NONE
    for raw in statements:
        if isinstance(raw.stmt, ast.VariableShowStmt):
            continue
        seen = _Seen()
        seen(raw)
        if not isinstance(raw.stmt, ast.SelectStmt) or seen.writes:
            return Effect.POSSIBLE
        if not seen.functions <= _HARMLESS:
            effect = Effect.UNLIKELY
    return effect


_HARMLESS = frozenset(
    {"count", "sum", "avg", "min", "max", "array_agg", "string_agg", "length", "lower", "upper", "round", "abs"}
)


class _Seen(Visitor):
    """What is inside a statement: functions by name, and whether parts of it write or lock."""

    def __init__(self) -> None:
        self.functions: set[str] = set()
        self.writes = False

    def visit(self, ancestors: object, node: object) -> None:
        if isinstance(node, ast.FuncCall):
            self.functions.add(str(node.funcname[-1].sval) if node.funcname else "")
        elif isinstance(node, (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt, ast.IntoClause)):
            self.writes = True


class _Named(Visitor):
    """The relations that a statement names, and the names of its WITH queries."""

    def __init__(self) -> None:
        self.tables: dict[Name, None] = {}
        self.parts: set[str] = set()

    def visit(self, ancestors: object, node: object) -> None:
        if isinstance(node, ast.RangeVar):
            self.tables[Name(str(node.schemaname or "public"), str(node.relname))] = None
        elif isinstance(node, ast.CommonTableExpr):
            self.parts.add(str(node.ctename))


def _without_placeholders(query: str) -> str:
    out, rest = [], query
    while "%" in rest:
        before, _, rest = rest.partition("%")
        out.append(before)
        if rest.startswith("("):
            name, closed, after = rest.partition(")")
            if closed and after[:1] in ("s", "b", "t") and name[1:].isidentifier():
                out.append("NULL")
                rest = after[1:]
                continue
        if rest[:1] in ("s", "b", "t"):
            out.append("NULL")
            rest = rest[1:]
        elif rest[:1] == "%":
            out.append("%")
            rest = rest[1:]
        else:
            out.append("%")
    return "".join([*out, rest])
