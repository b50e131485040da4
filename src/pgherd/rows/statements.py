"""What an SQL text changes, as far as pgherd must know: reference tables have to change on every node at once."""

from __future__ import annotations

from pglast import ast, parse_sql
from pglast.parser import ParseError

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
