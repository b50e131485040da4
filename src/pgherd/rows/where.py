"""Conditions: from a dict or SQL text to one SQL expression, and to the shards that can hold matching rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, BoolExprType, NullTestType
from pglast.parser import ParseError
from psycopg import sql

from ..errors import BadInput
from ..model.schema import Table
from ..model.topology import Shard
from ..routing.route import Router

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%|%")


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL expression with named parameters; ``equal`` holds what it says of columns by equality (NULL as None)."""

    sql: sql.Composable = field(default_factory=lambda: sql.SQL("true"))
    parameters: Mapping[str, Any] = field(default_factory=dict)
    equal: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trivial: bool = True

    def shards(self, router: Router) -> list[Shard]:
        """The shards that may hold matching rows."""
        return router.prune(self.equal)


def condition_of(
    where: Mapping[str, Any] | str | None, parameters: Mapping[str, Any] | None, table: Table
) -> Condition:
    """Read ``where``.

    A dict means equality of each column (a list: one of; None: IS NULL). Text is one SQL expression over the table's
    columns, with ``%(name)s`` for ``parameters``. Raises BadInput for an unknown column or anything but one expression.
    """
    if where is None:
        return Condition()
    if isinstance(where, Mapping):
        return _from_dict(where, table)
    return _from_sql(where, parameters, table)


def _from_dict(where: Mapping[str, Any], table: Table) -> Condition:
    parts: list[sql.Composable] = []
    parameters: dict[str, Any] = {}
    equal: dict[str, list[Any]] = {}
    for i, (name, value) in enumerate(where.items()):
        column = table.column(name)
        if column is None:
            known = ", ".join(c.name for c in table.columns)
            raise BadInput(f"table {table.name} has no column {name!r}", hint=f"columns: {known}")
        ident, key = sql.Identifier(name), f"pgherd_where_{i}"
        if value is None:
            parts.append(sql.SQL("{} IS NULL").format(ident))
            equal[name] = [None]
        elif isinstance(value, (list, tuple, set, frozenset)):
            values = list(value)
            parameters[key] = values
            array = sql.SQL("{}::{}[]").format(sql.Placeholder(key), sql.SQL(column.type))
            parts.append(sql.SQL("{} = ANY ({})").format(ident, array))
            equal[name] = [v for v in values if v is not None]
        else:
            parameters[key] = value
            parts.append(sql.SQL("{} = {}").format(ident, sql.Placeholder(key)))
            equal[name] = [value]
    text = sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")
    return Condition(text, parameters, equal, not parts)


def _from_sql(text: str, parameters: Mapping[str, Any] | None, table: Table) -> Condition:
    given = dict(parameters or {})
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "%"
        if name not in given:
            raise BadInput(f"the condition uses %({name})s, which has no value", hint="give it in params")
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    plain = _PLACEHOLDER.sub(numbered, text) if parameters is not None else text
    expression = _parse(plain)
    equal: dict[str, list[Any]] = {}
    for column, values in _equalities(expression, [given[n] for n in names]):
        if table.column(column) is not None:
            equal[column] = [v for v in equal[column] if v in values] if column in equal else values
    sent = text if parameters is not None else text.replace("%", "%%")
    return Condition(sql.SQL("(") + sql.SQL(sent) + sql.SQL("\n)"), given, equal, False)


def _parse(text: str) -> Any:
    try:
        statements = parse_sql(f"SELECT WHERE ({text}\n)")
    except ParseError as error:
        raise BadInput(f"the condition is not valid SQL: {error.args[0]}", hint=f"condition: {text}") from error
    statement: Any = statements[0].stmt if len(statements) == 1 else None
    clauses = ("fromClause", "groupClause", "havingClause", "sortClause", "limitCount", "limitOffset", "lockingClause")
    if (
        not isinstance(statement, ast.SelectStmt)
        or statement.targetList
        or statement.larg is not None
        or any(getattr(statement, c) for c in (*clauses, "windowClause", "withClause", "intoClause"))
    ):
        raise BadInput("the condition must be one SQL expression", hint="write what would follow WHERE")
    return statement.whereClause


def _equalities(node: Any, values: list[Any]) -> list[tuple[str, list[Any]]]:
    """(column, values) for every ``column = constant``, ``column IN (…)`` and IS NULL that must hold."""
    if isinstance(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
        return [pair for part in node.args or () for pair in _equalities(part, values)]
    if isinstance(node, ast.NullTest) and node.nulltesttype == NullTestType.IS_NULL:
        column = _column(node.arg)
        return [(column, [None])] if column else []
    if not isinstance(node, ast.A_Expr) or [n.sval for n in node.name or ()] != ["="]:
        return []
    if node.kind == A_Expr_Kind.AEXPR_OP:
        for side, other in ((node.lexpr, node.rexpr), (node.rexpr, node.lexpr)):
            column = _column(side)
            if column and (found := _constant(other, values)) is not None:
                return [(column, [found[0]])]
    if node.kind == A_Expr_Kind.AEXPR_IN and isinstance(node.rexpr, tuple):
        column = _column(node.lexpr)
        constants = [_constant(v, values) for v in node.rexpr]
        if column and all(c is not None for c in constants):
            return [(column, [c[0] for c in constants if c is not None and c[0] is not None])]
    return []


def _column(node: Any) -> str | None:
    if isinstance(node, ast.ColumnRef) and len(node.fields or ()) == 1:
        name = getattr(node.fields[0], "sval", None)  # type: ignore[index]
        return name if isinstance(name, str) else None
    return None


def _constant(node: Any, values: list[Any]) -> tuple[Any] | None:
    """The value of a literal or parameter, in a tuple; None when it is anything else."""
    if isinstance(node, ast.TypeCast):
        return _constant(node.arg, values)
    if isinstance(node, ast.ParamRef):
        return (values[node.number - 1],)  # type: ignore[operator]
    if not isinstance(node, ast.A_Const) or node.isnull:
        return None
    inner: Any = node.val
    for attribute in ("ival", "sval", "fval", "boolval"):
        if hasattr(inner, attribute):
            return (getattr(inner, attribute),)
    return None
