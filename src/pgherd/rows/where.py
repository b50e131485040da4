"""Conditions: from a dict or SQL text to one SQL expression, and to the shards that can hold matching rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, BoolExprType, NullTestType
from pglast.parser import ParseError
from pglast.visitors import Visitor
from psycopg import sql

from ..errors import BadInput
from ..model.names import quote_ident
from ..model.schema import Table
from ..model.topology import Shard
from ..routing.route import Router
from .copying import sendable
from .quoting import escaped
from .types import cast_type

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%|%")
_FIRST_NUMBER = 10_001
"""Placeholders are parsed as $10001 and up, so that a $1 of the caller's own is told from them."""
_EXACT_CASTS = frozenset({"int2", "int4", "int8", "bool", "text", "varchar", "uuid"})
"""Casts, without a length, of a literal that leave its value as it is or fail."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL expression with named parameters; ``equal`` holds what it says of columns by equality (NULL as None).

    ``complete`` when it says nothing else: then a shard whose rows all agree needs no condition.
    ``text`` is in the driver's style: ``%(name)s`` is a parameter, and any other percent sign is doubled.
    """

    text: str = "true"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    equal: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trivial: bool = True
    complete: bool = True

    @property
    def sql(self) -> sql.SQL:
        """``text`` as a part of a composed statement."""
        return sql.SQL(self.text)

    def shards(self, router: Router) -> list[Shard]:
        """The shards that may hold matching rows."""
        return router.prune(self.equal) if self.equal else list(router.shards)

    def settled(self, router: Router) -> bool:
        """Whether where a row lives says all that the condition asks; its shards can be read without it."""
        return self.trivial or (self.complete and router.implies(self.equal))


ANYTHING = Condition()
"""Asks nothing."""


class _Term(NamedTuple):
    """A constant of a condition, or the name of the parameter that holds it (``many``: a list of them)."""

    value: Any
    is_name: bool = False
    many: bool = False

    def values(self, given: Mapping[str, Any]) -> list[Any] | None:
        value = given[self.value] if self.is_name else self.value
        if self.many:
            return [v for v in value if v is not None] if isinstance(value, (list, tuple)) else None
        return [] if value is None else [value]


class _Equality(NamedTuple):
    """``column`` must be one of ``terms``; no terms: it must be NULL."""

    column: str
    terms: tuple[_Term, ...]

    def values(self, given: Mapping[str, Any]) -> list[Any] | None:
        """The values that the column can have, None when any."""
        if not self.terms:
            return [None]
        found = [t.values(given) for t in self.terms]
        return None if any(f is None for f in found) else [v for f in found if f is not None for v in f]


class _Expression(NamedTuple):
    """What a text says: the text to send, the parameters that it uses, and its equalities."""

    text: str
    names: tuple[str, ...]
    equalities: tuple[_Equality, ...]
    complete: bool


def condition_of(
    where: Mapping[str, Any] | str | None, parameters: Mapping[str, Any] | None, table: Table
) -> Condition:
    """Read ``where``.

    A dict means equality of each column (a list: one of; None: IS NULL). Text is one SQL expression over the table's
    columns; with ``parameters`` given, ``%(name)s`` in it stands for one of them. Raises BadInput for an unknown
    column, a parameter without a value, or anything but one expression.
    """
    if where is None:
        return ANYTHING
    if isinstance(where, Mapping):
        if parameters:
            raise BadInput("params belong to a condition in SQL", hint="put the values into the dict itself")
        return _from_dict(where, table)
    if not isinstance(where, str):
        raise BadInput(f"a condition can't be read from {type(where).__name__}", hint="give a dict, or SQL text")
    return _from_sql(where, parameters, table)


def _from_dict(where: Mapping[str, Any], table: Table) -> Condition:
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    equal: dict[str, list[Any]] = {}
    for i, (name, value) in enumerate(where.items()):
        column = table.column(name)
        if column is None:
            known = ", ".join(c.name for c in table.columns)
            raise BadInput(f"table {table.name} has no column {name!r}", hint=f"columns: {known}")
        ident, key = escaped(quote_ident(name)), f"pgherd_where_{i}"
        if value is None:
            parts.append(f"{ident} IS NULL")
            equal[name] = [None]
        elif isinstance(value, (list, tuple, set, frozenset)):
            values = [v for v in value if v is not None]
            parameters[key] = values
            parts.append(f"{ident} = ANY (%({key})s::{escaped(cast_type(column.type))}[])")
            equal[name] = values
        else:
            parameters[key] = sendable([value], column)[0] if isinstance(value, dict) else value
            parts.append(f"{ident} = %({key})s")
            equal[name] = [value]
    return Condition(" AND ".join(parts) or "true", parameters, equal, not parts)


def _from_sql(text: str, parameters: Mapping[str, Any] | None, table: Table) -> Condition:
    expression = _read(text, parameters is not None, table.name.name)
    given = dict(parameters or {})
    for name in expression.names:
        if name not in given:
            raise BadInput(f"the condition uses %({name})s, which has no value", hint="give it in params")
    equal: dict[str, list[Any]] = {}
    for equality in expression.equalities:
        values = equality.values(given)
        # Of several lists for one column any one is right, and the shortest leaves out most. To intersect them would
        # be wrong: 5 and '5' are the same bigint.
        if values is not None and table.column(equality.column) is not None:
            known = equal.get(equality.column)
            if known is None or len(values) < len(known):
                equal[equality.column] = values
    complete = expression.complete and len(equal) == len(expression.equalities)
    return Condition(expression.text, given, equal, False, complete)


@lru_cache(maxsize=1024)
def _read(text: str, has_parameters: bool, table: str) -> _Expression:
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${_FIRST_NUMBER + names.index(name)}"

    plain = _PLACEHOLDER.sub(numbered, text) if has_parameters else text
    expression = _parse(plain, text)
    if "$" in text:
        _refuse_numbered(expression, len(names))
    sent = _PLACEHOLDER.sub(lambda m: m.group() if m.group(1) else "%%", text) if has_parameters else escaped(text)
    found = tuple(_equalities(expression, names, table))
    return _Expression(f"({sent}\n)", tuple(names), found, len(found) == _terms(expression))


def _parse(plain: str, text: str) -> Any:
    """The expression. It must be one both bare and in parentheses: ``a) OR (b`` is only the one, a UNION the other."""
    found = None
    for attempt in (f"SELECT WHERE {plain}\n", f"SELECT WHERE ({plain}\n)"):
        try:
            statements = parse_sql(attempt)
        except ParseError as error:
            hint = "give the values in params" if "%(" in text and "%(" in plain else f"condition: {text}"
            raise BadInput(f"the condition is not valid SQL: {error.args[0]}", hint=hint) from error
        found = _only_where(statements)
        if found is None:
            raise BadInput("the condition must be one SQL expression", hint="write what would follow WHERE")
    return found


def _only_where(statements: Any) -> Any:
    statement: Any = statements[0].stmt if len(statements) == 1 else None
    clauses = ("fromClause", "groupClause", "havingClause", "sortClause", "limitCount", "limitOffset", "lockingClause")
    if (
        not isinstance(statement, ast.SelectStmt)
        or statement.targetList
        or statement.larg is not None
        or any(getattr(statement, c) for c in (*clauses, "windowClause", "withClause", "intoClause"))
    ):
        return None
    return statement.whereClause


def _refuse_numbered(expression: Any, named: int) -> None:
    class Numbers(Visitor):
        def visit_ParamRef(self, _: Any, node: Any) -> None:
            if not _FIRST_NUMBER <= (node.number or 0) < _FIRST_NUMBER + named:
                raise BadInput(f"the condition uses ${node.number}", hint="write %(name)s, and give name in params")

    Numbers()(expression)


def _equalities(node: Any, names: Sequence[str], table: str) -> list[_Equality]:
    """What must hold of single columns: ``column = constant``, ``column IN (…)``, ``= ANY (…)`` and IS NULL."""
    if isinstance(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
        return [found for part in node.args or () for found in _equalities(part, names, table)]
    if isinstance(node, ast.NullTest) and node.nulltesttype == NullTestType.IS_NULL:
        column = _column(node.arg, table)
        return [_Equality(column, ())] if column else []
    if not isinstance(node, ast.A_Expr) or [n.sval for n in node.name or ()] != ["="]:
        return []
    if node.kind == A_Expr_Kind.AEXPR_OP:
        for side, other in ((node.lexpr, node.rexpr), (node.rexpr, node.lexpr)):
            column, term = _column(side, table), _term(other, names)
            if column and term:
                return [_Equality(column, (term,))]
        return []
    column = _column(node.lexpr, table)
    if column and node.kind == A_Expr_Kind.AEXPR_OP_ANY and isinstance(node.rexpr, ast.ParamRef):
        term = _term(node.rexpr, names)
        return [_Equality(column, (term._replace(many=True),))] if term else []
    if column and node.kind == A_Expr_Kind.AEXPR_IN and isinstance(node.rexpr, tuple):
        terms = [_term(v, names) for v in node.rexpr]
        if all(t is not None for t in terms):
            return [_Equality(column, tuple(t for t in terms if t is not None))]
    return []


def _terms(node: Any) -> int:
    """How many conditions AND joins."""
    if isinstance(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
        return sum(_terms(part) for part in node.args or ())
    return 1


def _column(node: Any, table: str) -> str | None:
    if not isinstance(node, ast.ColumnRef):
        return None
    path = [getattr(f, "sval", None) for f in node.fields or ()]
    return path[-1] if len(path) == 1 or (len(path) == 2 and path[0] == table) else None


def _term(node: Any, names: Sequence[str]) -> _Term | None:
    """A literal or parameter; None for anything else, and for a cast that may change a value."""
    if isinstance(node, ast.TypeCast):
        target: Any = node.typeName
        exact = target.names[-1].sval in _EXACT_CASTS and not target.typmods and not target.arrayBounds
        literal = isinstance(node.arg, ast.A_Const) and isinstance(node.arg.val, (ast.String, ast.Integer))
        return _term(node.arg, names) if exact and literal else None
    if isinstance(node, ast.ParamRef):
        number = (node.number or 0) - _FIRST_NUMBER
        return _Term(names[number], is_name=True) if 0 <= number < len(names) else None
    if not isinstance(node, ast.A_Const):
        return None
    if node.isnull:
        return _Term(None)
    inner: Any = node.val
    for attribute in ("ival", "sval", "fval", "boolval"):
        if hasattr(inner, attribute):
            return _Term(getattr(inner, attribute))
    return None
