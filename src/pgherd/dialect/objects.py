"""Other objects -> SqlObject: extensions, types, functions, views, triggers, policies, grants, comments.

``name`` is what DROP would be told: ``public.mood``, ``public.f(integer, text)``, ``guard ON public.t``; extensions,
schemas and roles have their bare, unquoted name, a grant its whole text.
"""

from __future__ import annotations

from typing import Any

from pglast import ast
from pglast.enums import FunctionParameterMode, ObjectType

from ..model.names import Name, quote_ident, quote_literal
from ..model.schema import ObjectKind, SqlObject
from .drafts import RESERVED_SCHEMA, Draft, check_schema
from .source import Place, Statement
from .text import qualified, relation, strings, type_name
from .text import statement as sql_of


def create_extension(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE EXTENSION, always with IF NOT EXISTS."""
    place = statement.place()
    if draft.make("extension", node.extname, place, if_not_exists=True):
        node.if_not_exists = True
        draft.items.append(SqlObject(ObjectKind.EXTENSION, node.extname, sql_of(node, place)))


def create_schema(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE SCHEMA, always with IF NOT EXISTS; schema public is there already."""
    place = statement.place()
    name = node.schemaname or (node.authrole.rolename if node.authrole else None)
    if name is None:
        raise place.bad("a schema without a name", hint="write CREATE SCHEMA name")
    if node.schemaElts:
        raise place.bad("objects inside CREATE SCHEMA", hint="write them as statements of their own: schema.name")
    if name == RESERVED_SCHEMA or name.startswith("pg_"):
        raise place.bad(
            f"schema {name} is {'pgherd' if name == RESERVED_SCHEMA else 'PostgreSQL'}'s own", hint="use another name"
        )
    node.if_not_exists = True
    if name != "public" and draft.make("schema", name, place, if_not_exists=True):
        draft.items.append(SqlObject(ObjectKind.SCHEMA, name, sql_of(node, place)))


def _enum_sql(name: str, values: tuple[str, ...]) -> str:
    return f"CREATE TYPE {name} AS ENUM ({', '.join(quote_literal(v) for v in values)})"


def create_enum(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE TYPE … AS ENUM."""
    place = statement.place()
    name, values = qualified(node.typeName), strings(node.vals)
    check_schema(name, place)
    if len(set(values)) < len(values):
        raise place.bad(f"type {name} has a label twice", hint="write each label once")
    draft.make("type", name.sql, place)
    draft.items.append(SqlObject(ObjectKind.ENUM, name.sql, _enum_sql(name.sql, values), values=values))


def alter_enum(draft: Draft, node: Any, statement: Statement) -> None:
    """ALTER TYPE … ADD VALUE, folded into the CREATE TYPE above."""
    place = statement.place()
    name = qualified(node.typeName).sql
    old = next((o for o in draft.objects("type") if o.name == name), None)
    if old is None:
        raise place.bad(f"there is no type {name} above this line", hint="write CREATE TYPE … AS ENUM first")
    if node.oldVal is not None:
        raise place.bad("RENAME VALUE", hint="write the final labels in CREATE TYPE … AS ENUM")
    values = list(old.values)
    if node.newVal in values:
        if node.skipIfNewValExists:
            return
        raise place.bad(f"type {name} has label {node.newVal!r} already", hint="leave the statement out")
    at = len(values)
    if node.newValNeighbor is not None:
        if node.newValNeighbor not in values:
            raise place.bad(f"type {name} has no label {node.newValNeighbor!r}", hint=f"labels: {', '.join(values)}")
        at = values.index(node.newValNeighbor) + bool(node.newValIsAfter)
    values.insert(at, node.newVal)
    new = SqlObject(ObjectKind.ENUM, name, _enum_sql(name, tuple(values)), values=tuple(values))
    draft.items[draft.items.index(old)] = new


def create_domain(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE DOMAIN."""
    place = statement.place()
    name = qualified(node.domainname)
    check_schema(name, place)
    draft.make("type", name.sql, place)
    node.domainname = _parts(name)
    draft.domains[name.sql] = type_name(node.typeName, place)
    draft.items.append(SqlObject(ObjectKind.DOMAIN, name.sql, sql_of(node, place)))


def _parts(name: Name) -> tuple[Any, ...]:
    return tuple(ast.String(sval=p) for p in name)


def create_sequence(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE SEQUENCE."""
    place = statement.place()
    if node.sequence.relpersistence != "p":
        raise place.bad("a temporary or unlogged sequence", hint="write CREATE SEQUENCE")
    name = relation(node.sequence, place)
    if draft.make_relation(name, place, if_not_exists=bool(node.if_not_exists)):
        node.sequence.schemaname, node.if_not_exists = name.schema, False
        draft.items.append(SqlObject(ObjectKind.SEQUENCE, name.sql, sql_of(node, place)))


def create_function(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE FUNCTION or PROCEDURE, always with OR REPLACE; overloads differ by their argument types."""
    place = statement.place()
    name = qualified(node.funcname)
    check_schema(name, place)
    outputs = (FunctionParameterMode.FUNC_PARAM_OUT, FunctionParameterMode.FUNC_PARAM_TABLE)
    taken = [p for p in node.parameters or () if p.mode not in outputs]
    types = [argument_type(p.argType, place) for p in taken]
    signature = f"{name.sql}({', '.join(types)})"
    draft.make("function", signature, place)
    node.funcname, node.replace = _parts(name), True
    draft.items.append(SqlObject(ObjectKind.FUNCTION, signature, sql_of(node, place), replaceable=True))


def argument_type(node: Any, place: Place) -> str:
    """A function is known by its types without their modifiers."""
    if node.pct_type:
        return ".".join(quote_ident(n) for n in strings(node.names)) + "%type"
    bare = ast.TypeName(names=node.names, arrayBounds=node.arrayBounds, setof=False, pct_type=False, typemod=-1)
    return type_name(bare, place)


def create_view(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE VIEW, always with OR REPLACE."""
    place = statement.place()
    if node.view.relpersistence != "p":
        raise place.bad("a temporary view lives in one session", hint="leave TEMP out")
    name = relation(node.view, place)
    draft.make_relation(name, place)
    node.view.schemaname, node.replace = name.schema, True
    draft.items.append(SqlObject(ObjectKind.VIEW, name.sql, sql_of(node, place), replaceable=True))


def create_trigger(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE TRIGGER, with OR REPLACE unless it is a constraint trigger (PostgreSQL has no such form)."""
    place = statement.place()
    table = relation(node.relation, place)
    check_schema(table, place)
    if table in draft.tables and draft.tables[table].parent is not None:
        raise place.bad("a trigger on one partition only", hint=f"write it on {draft.tables[table].parent}")
    name = f"{quote_ident(node.trigname)} ON {table.sql}"
    draft.make("trigger", name, place)
    node.relation.schemaname, node.replace = table.schema, not node.isconstraint
    # trigger arguments are texts: the scanner gives numbers as texts already
    item = SqlObject(ObjectKind.TRIGGER, name, sql_of(node, place), replaceable=not node.isconstraint, table=table)
    draft.items.append(item)
    draft.places["trigger", name] = place
    if not node.row or node.transitionRels:
        draft.places["statement trigger", name] = place


def create_policy(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE POLICY."""
    place = statement.place()
    table = relation(node.table, place)
    if table in draft.tables and draft.tables[table].parent is not None:
        raise place.bad("a policy on one partition only", hint=f"write it on {draft.tables[table].parent}")
    draft.table(table, place)
    name = f"{quote_ident(node.policy_name)} ON {table.sql}"
    draft.make("policy", name, place)
    node.table.schemaname = table.schema
    draft.items.append(SqlObject(ObjectKind.POLICY, name, sql_of(node, place), table=table))


def grant(draft: Draft, node: Any, statement: Statement) -> None:
    """GRANT and REVOKE of privileges and of roles."""
    place = statement.place()
    for target in getattr(node, "objects", None) or ():
        if isinstance(target, ast.RangeVar):
            target.schemaname = relation(target, place).schema
    _add_grant(draft, sql_of(node, place))


def default_privileges(draft: Draft, node: Any, statement: Statement) -> None:
    """ALTER DEFAULT PRIVILEGES, as a grant; FOR ROLE comes before IN SCHEMA."""
    place = statement.place()
    node.options = tuple(sorted(node.options or (), key=lambda o: str(o.defname))) or None
    # pglast 8.8 prints GRANT OPTION FOR where the grammar has WITH GRANT OPTION
    grantable = node.action.is_grant and node.action.grant_option
    if grantable:
        node.action.grant_option = False
    _add_grant(draft, sql_of(node, place) + (" WITH GRANT OPTION" if grantable else ""))


def _add_grant(draft: Draft, text: str) -> None:
    item = SqlObject(ObjectKind.GRANT, text, text, replaceable=True)
    if item not in draft.items:
        draft.items.append(item)


def comment(draft: Draft, node: Any, statement: Statement) -> None:
    """COMMENT ON; a later comment on the same thing takes the earlier one's place."""
    place = statement.place()
    if node.objtype in (ObjectType.OBJECT_DATABASE, ObjectType.OBJECT_TABLESPACE):
        raise place.bad("a comment on something that belongs to one server", hint="leave it out")
    if node.objtype in (ObjectType.OBJECT_TABCONSTRAINT, ObjectType.OBJECT_INDEX, ObjectType.OBJECT_TRIGGER):
        raise place.bad("keys, indexes and triggers live on the shards, under names of their own", hint="leave it out")
    table = None
    if node.objtype in (ObjectType.OBJECT_TABLE, ObjectType.OBJECT_COLUMN, ObjectType.OBJECT_POLICY):
        whole = node.objtype == ObjectType.OBJECT_TABLE
        table = qualified(node.object if whole else node.object[:-1])
        node.object = _parts(table) + (() if whole else node.object[-1:])
        if ("relation", table.sql) not in draft.made:
            draft.table(table, place)  # says that it is unknown
        table = table if table in draft.tables else None
    sql = sql_of(node, place)
    node.comment = None
    name = sql_of(node, place).removeprefix("COMMENT ON ").removesuffix(" IS NULL")
    item = SqlObject(ObjectKind.COMMENT, name, sql, replaceable=True, table=table)
    same = [i for i in draft.objects("comment") if i.name == name]
    if same:
        draft.items.remove(same[0])
    draft.items.append(item)
