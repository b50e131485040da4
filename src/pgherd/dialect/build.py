"""Statements, one after the other, into a draft; the draft, at the end, into a checked Schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pglast.enums import ObjectType, VariableSetKind
from pglast.parser import ParseError, parse_sql

from ..model.names import quote_ident
from ..model.schema import Schema
from . import alter, functions, indexes, objects, tables
from .assemble import assemble
from .check import check
from .drafts import Draft
from .refused import IGNORED, OTHER, REFUSED
from .roles import create_role
from .source import Place, Source, Statement
from .tablespaces import read_tablespace
from .text import constant, qualified, strings
from .translate import statements


def build(source: Source) -> Schema:
    """The schema that a file says. Raises SyntaxProblem and BadSchema."""
    draft = Draft(source)
    for statement in statements(source):
        _read(draft, statement)
    for kind, name, place in draft.drops:
        if (kind, name) not in draft.made:
            raise place.bad(
                f"apply doesn't drop what the file doesn't make again ({name})",
                hint="to drop it, take its CREATE out of the file; a DROP is only left out before a CREATE",
            )
    schema = assemble(draft)
    check(schema, draft)
    return schema


def _read(draft: Draft, statement: Statement) -> None:
    try:
        parsed = parse_sql(statement.sql)
    except ParseError as e:
        message, location = e.args
        raise _syntax(statement, message, location) from None  # the text may hold a password
    for raw in parsed:
        kind = type(raw.stmt).__name__
        act = _ACTS.get(kind)
        if act is not None:
            act(draft, raw.stmt, statement)
        elif kind not in IGNORED:
            reason, hint = REFUSED.get(kind, OTHER)
            raise statement.place().bad(reason, hint=hint)


def _syntax(statement: Statement, message: str, location: int | None) -> Exception:
    place = statement.place(len(statement.sql) if location is None else location)
    what, near, text = message.partition(' at or near "')
    if near and (text[:1] in "'$" or text[:2].lower() in ("e'", "u&")):
        message = f"{what} at a string constant"
    return place.syntax(message, hint="see the PostgreSQL manual for the statement's form")


def _create_tablespace(draft: Draft, node: Any, statement: Statement) -> None:
    name = node.tablespacename
    if type(node).__name__ == "CreateTableSpaceStmt":
        raise statement.place().bad(
            f"tablespace {name!r}: a directory of one server",
            hint="a herd's tablespaces are placement policies: write WITH (replica_placement = '{…}')",
        )
    place = statement.place()
    if statement.placement:
        draft.make("tablespace", quote_ident(name), place)
        draft.tablespaces[name] = read_tablespace(name, node.options, place)
        return
    if name not in draft.tablespaces:
        raise place.bad(f"there is no tablespace {name!r} above this line", hint="write CREATE TABLESPACE first")
    if node.isReset:
        raise place.bad(f"tablespace {name!r}: RESET", hint="write SET (replica_placement = '{…}')")
    draft.tablespaces[name] = read_tablespace(name, node.options, place, draft.tablespaces[name])


def _create_role(draft: Draft, node: Any, statement: Statement) -> None:
    draft.make("role", quote_ident(node.role), statement.place())
    draft.items.append(create_role(node, statement))


def _set(draft: Draft, node: Any, statement: Statement) -> None:
    if node.kind != VariableSetKind.VAR_SET_VALUE:
        return
    try:
        values = [constant(a) or "" for a in node.args or ()]
    except ValueError:
        values = []
    functions.setting(draft, node.name, values, statement.place())


_DROPPED = {
    ObjectType.OBJECT_TABLE: "relation",
    ObjectType.OBJECT_INDEX: "relation",
    ObjectType.OBJECT_VIEW: "relation",
    ObjectType.OBJECT_SEQUENCE: "relation",
    ObjectType.OBJECT_TYPE: "type",
    ObjectType.OBJECT_DOMAIN: "type",
    ObjectType.OBJECT_FUNCTION: "function",
    ObjectType.OBJECT_PROCEDURE: "function",
    ObjectType.OBJECT_EXTENSION: "extension",
    ObjectType.OBJECT_SCHEMA: "schema",
    ObjectType.OBJECT_TRIGGER: "trigger",
    ObjectType.OBJECT_POLICY: "policy",
}


def _drop(draft: Draft, node: Any, statement: Statement) -> None:
    """DROP … IF EXISTS before the CREATE of the same thing is pg_dump --clean, and means nothing here."""
    place = statement.place()
    kind = _DROPPED.get(node.removeType)
    if kind is None or not node.missing_ok:
        raise place.bad("apply doesn't drop", hint="to drop it, take its CREATE out of the file")
    for target in node.objects:
        name = _dropped_name(kind, target, place)
        if (kind, name) in draft.made:
            raise place.bad(f"it drops what the file made above ({name})", hint="take one of the two out")
        draft.drops.append((kind, name, place))


def _dropped_name(kind: str, target: Any, place: Place) -> str:
    if kind in ("extension", "schema"):
        return str(target.sval)
    if kind == "function":
        types = ", ".join(objects.argument_type(t, place) for t in target.objargs or ())
        return f"{qualified(target.objname).sql}({types})"
    if kind == "type":
        return qualified(target.names).sql
    if kind in ("trigger", "policy"):
        return f"{quote_ident(strings(target)[-1])} ON {qualified(target[:-1]).sql}"
    return qualified(target).sql


_ACTS: dict[str, Callable[[Draft, Any, Statement], None]] = {
    "CreateTableSpaceStmt": _create_tablespace,
    "AlterTableSpaceOptionsStmt": _create_tablespace,
    "CreateStmt": tables.create_table,
    "AlterTableStmt": alter.alter_table,
    "AlterSeqStmt": alter.alter_sequence,
    "IndexStmt": indexes.create_index,
    "SelectStmt": functions.run_select,
    "VariableSetStmt": _set,
    "DropStmt": _drop,
    "CreateRoleStmt": _create_role,
    "CreateExtensionStmt": objects.create_extension,
    "CreateSchemaStmt": objects.create_schema,
    "CreateEnumStmt": objects.create_enum,
    "AlterEnumStmt": objects.alter_enum,
    "CreateDomainStmt": objects.create_domain,
    "CreateSeqStmt": objects.create_sequence,
    "CreateFunctionStmt": objects.create_function,
    "ViewStmt": objects.create_view,
    "CreateTrigStmt": objects.create_trigger,
    "CreatePolicyStmt": objects.create_policy,
    "GrantStmt": objects.grant,
    "GrantRoleStmt": objects.grant,
    "AlterDefaultPrivilegesStmt": objects.default_privileges,
    "CommentStmt": objects.comment,
}
