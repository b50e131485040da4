"""Parse tree -> canonical SQL text, so that two files that differ in layout only say the same.

Whatever is printed is parsed again and compared with the tree it came from: an expression that the printer can't write
faithfully is refused, never changed.
"""

from __future__ import annotations

from typing import Any

from pglast import ast
from pglast.parser import ParseError, parse_sql
from pglast.stream import RawStream

from ..model.names import Name, comma_idents, quote_ident
from .source import Place

_SPELLING = {
    "int2": "smallint",
    "int4": "integer",
    "int": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "varchar": "character varying",
    "decimal": "numeric",
    "varbit": "bit varying",
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "timetz": "time with time zone",
    "time": "time without time zone",
    "bpchar": "character",
}
_BUILT_IN_NAMES = """
smallint integer bigint real numeric boolean text bytea date interval uuid json jsonb xml name oid inet cidr macaddr
macaddr8 money point line lseg box path polygon circle tsvector tsquery bit int4range int8range numrange tsrange
tstzrange daterange int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange regclass
regtype regproc regrole jsonpath pg_lsn xid xid8 trigger event_trigger void record
"""
_BUILT_IN = frozenset(_BUILT_IN_NAMES.split())
_INTERVAL_FIELDS = {
    4: "year",
    2: "month",
    8: "day",
    1024: "hour",
    2048: "minute",
    4096: "second",
    6: "year to month",
    1032: "day to hour",
    3080: "day to minute",
    7176: "day to second",
    3072: "hour to minute",
    7168: "hour to second",
    6144: "minute to second",
}
_FULL_RANGE = 32767


_UNPRINTABLE = (ParseError, NotImplementedError, TypeError, AttributeError, RecursionError)


def statement(node: Any, place: Place) -> str:
    """A statement as canonical SQL. Raises BadSchema if it can't be written faithfully."""
    try:
        printed: str = RawStream()(node)
        same = parse_sql(printed)[0].stmt == node
    except _UNPRINTABLE:
        same = False  # the cause is not kept: its text may quote a verifier
    if not same:
        raise _unfaithful(place)
    return printed


def _unfaithful(place: Place) -> Exception:
    return place.bad("pgherd can't write this down again faithfully", hint="put it in plainer SQL")


def expression(node: Any, place: Place) -> str:
    """An expression as canonical SQL, without outer parentheses."""
    wanted = ast.ResTarget(val=node)
    try:
        printed: str = RawStream()(node)
        again: Any = parse_sql(f"SELECT {printed}")[0].stmt
        same = len(again.targetList) == 1 and again.targetList[0] == wanted
    except _UNPRINTABLE:
        same = False
    if not same:
        raise _unfaithful(place)
    return printed


def default_expression(node: Any, place: Place) -> str:
    """The same for DEFAULT, whose grammar takes fewer forms bare (no AND, IN, IS …): those get parentheses."""
    text = expression(node, place)
    try:
        again: Any = parse_sql(f"CREATE TABLE t (c text DEFAULT {text} NOT NULL)")[0].stmt
    except ParseError:
        return f"({text})"
    said = again.tableElts[0].constraints
    bare = again.tableElts[0].collClause is None and len(said) == 2 and said[0].raw_expr == node
    return text if bare else f"({text})"


def strings(nodes: Any) -> tuple[str, ...]:
    """The texts of a list of String nodes."""
    return tuple(n.sval for n in nodes or ())


def relation(node: Any, place: Place) -> Name:
    """The name of a RangeVar; ``public`` where no schema is said."""
    if node.catalogname:
        raise place.bad("a name of three parts", hint="write schema.name: a herd is one database")
    return Name(node.schemaname or "public", node.relname)


def qualified(nodes: Any) -> Name:
    """The name that a list of String nodes spells."""
    parts = strings(nodes)
    return Name(parts[-2] if len(parts) > 1 else "public", parts[-1])


def bare_type(names: tuple[str, ...]) -> str:
    """A type's name without modifiers as ``format_type`` spells it; ``public.`` is left out where that is safe."""
    last = names[-1]
    if len(names) == 1 or names[0] == "pg_catalog":
        if last == "char":
            return '"char"'
        spelled = _SPELLING.get(last, last)
        return spelled if spelled != last else quote_ident(last) if last not in _BUILT_IN else last
    if names[0] == "public" and last not in _BUILT_IN and last not in _SPELLING and last != "char":
        return quote_ident(last)
    return ".".join(quote_ident(n) for n in names)


def type_name(node: Any, place: Place) -> str:
    """A type as ``format_type`` spells it: ``bigint``, ``character varying(20)``, ``vector(256)``."""
    if node.setof or node.pct_type:
        raise place.bad("this type can't be a column's", hint="name the type itself")
    name = bare_type(strings(node.names))
    mods = [_modifier(m, place) for m in node.typmods or ()]
    if name == "interval" and mods:
        fields = int(mods.pop(0))
        name += "" if fields == _FULL_RANGE else " " + _INTERVAL_FIELDS[fields]
    if name == "numeric" and len(mods) == 1:
        mods.append("0")
    if name == "character" and not mods:
        name = "bpchar"  # without a length it is of any length; CHARACTER alone is read as CHARACTER(1)
    if mods:
        head, space, tail = name.partition(" ") if name.startswith(("timestamp", "time ")) else (name, "", "")
        name = f"{head}({','.join(mods)}){space}{tail}"
    return name + ("[]" if node.arrayBounds else "")  # PostgreSQL doesn't keep the number of dimensions


def _modifier(node: Any, place: Place) -> str:
    if isinstance(node, ast.A_Const):
        if isinstance(node.val, ast.Integer):
            return str(node.val.ival)
        if isinstance(node.val, ast.String):
            return quote_ident(str(node.val.sval))
    if isinstance(node, ast.ColumnRef):
        return comma_idents(list(strings(node.fields)))
    return expression(node, place)


def constant(node: Any) -> str | None:
    """The text of a constant, casts left out; None for NULL. Raises ValueError for anything else."""
    value: Any
    if isinstance(node, ast.TypeCast):
        return constant(node.arg)
    if not isinstance(node, ast.A_Const):
        raise ValueError("not a constant")
    if node.isnull:
        return None
    value = node.val
    if isinstance(value, ast.String):
        return str(value.sval)
    if isinstance(value, ast.Integer):
        return str(value.ival or 0)
    if isinstance(value, ast.Boolean):
        return "true" if value.boolval else "false"
    if isinstance(value, ast.Float):
        return str(value.fval)
    raise ValueError("not a constant")


def option_text(node: Any) -> str:
    """The value of ``name = value`` in a WITH list."""
    if node is None:
        return "true"
    if isinstance(node, ast.String):
        return str(node.sval)
    if isinstance(node, ast.Integer):
        return str(node.ival)
    if isinstance(node, ast.Float):
        return str(node.fval)
    if isinstance(node, ast.TypeName):
        return strings(node.names)[-1]
    return str(RawStream()(node))
