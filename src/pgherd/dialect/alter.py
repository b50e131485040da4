"""ALTER TABLE and its kin: what belongs to the definition is folded in, what would change live data is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pglast.enums import AlterTableType, ObjectType

from ..model.names import Name
from .columns import add_column, add_constraint, with_default, with_identity
from .drafts import Draft, TableDraft
from .source import Statement
from .tables import attach_partition
from .text import default_expression, qualified, relation, strings

_CLEANING = (
    AlterTableType.AT_DropConstraint,
    AlterTableType.AT_ColumnDefault,
    AlterTableType.AT_DetachPartition,
    AlterTableType.AT_DropNotNull,
)
_IGNORED = (
    AlterTableType.AT_ChangeOwner,
    AlterTableType.AT_ReplicaIdentity,
    AlterTableType.AT_ClusterOn,
    AlterTableType.AT_SetStatistics,
)


def alter_table(draft: Draft, node: Any, statement: Statement) -> None:
    """ALTER TABLE, ALTER INDEX … ATTACH PARTITION, ALTER VIEW/SEQUENCE … OWNER TO."""
    place = statement.place()
    name = relation(node.relation, place)
    if all(c.subtype in _IGNORED for c in node.cmds):
        return  # who owns what is not part of a herd's definition: its objects belong to the role that applies
    if node.objtype == ObjectType.OBJECT_INDEX:
        _alter_index(draft, name, node, statement)
        return
    if node.missing_ok and name not in draft.tables and all(c.subtype in _CLEANING for c in node.cmds):
        draft.drops.append(("relation", name.sql, place))  # pg_dump --clean
        return
    if node.objtype != ObjectType.OBJECT_TABLE:
        raise place.bad("apply can't do this", hint="write the final form in its CREATE statement")
    table = draft.table(name, place)
    for command in node.cmds:
        _command(draft, table, command, statement)


def _alter_index(draft: Draft, name: Name, node: Any, statement: Statement) -> None:
    place = statement.place()
    command = node.cmds[0]
    if command.subtype != AlterTableType.AT_AttachPartition:
        raise place.bad("apply can't do this to an index", hint="write the final form in CREATE INDEX")
    draft.attached_indexes[relation(command.def_.name, place)] = (name, place)


def _command(draft: Draft, table: TableDraft, command: Any, statement: Statement) -> None:
    place = statement.place()
    act = _ACTS.get(command.subtype)
    if command.subtype in _IGNORED:
        return
    if command.subtype == AlterTableType.AT_AttachPartition:
        attach_partition(draft, table.name, command.def_, statement)
    elif command.subtype in (AlterTableType.AT_SetStorage, AlterTableType.AT_SetCompression):
        raise place.bad("STORAGE and COMPRESSION are not kept", hint="leave the statement out")
    elif act is None:
        what = AlterTableType(command.subtype).name.removeprefix("AT_")
        raise place.bad(
            f"apply can't do this ({what})", hint=f"write the final form of the table in CREATE TABLE {table.name}"
        )
    else:
        if table.parent is not None and command.subtype not in _OF_PARTITIONS:
            raise place.bad("a partition has what its table has", hint=f"write ALTER TABLE {table.parent}")
        act(table, command, statement)
        if table.parent is not None and (table.checks or table.foreign_keys):
            raise place.bad("a constraint on one partition only", hint=f"write ALTER TABLE {table.parent}")


def _add_column(table: TableDraft, command: Any, statement: Statement) -> None:
    if command.missing_ok and command.def_.colname in table.columns:
        return
    add_column(table, command.def_, statement)


def _add_constraint(table: TableDraft, command: Any, statement: Statement) -> None:
    add_constraint(table, command.def_, statement)
    if statement.hashed is not None:
        table.hashed = statement.hashed


def _default(table: TableDraft, command: Any, statement: Statement) -> None:
    place = statement.place()
    if table.parent is not None:
        text = "" if command.def_ is None else default_expression(command.def_, place)
        table.own_defaults[command.name] = (text, place)
        return
    table.columns[command.name] = with_default(table.column(command.name, place), command.def_, place)


def _not_null(table: TableDraft, command: Any, statement: Statement) -> None:
    column = table.column(command.name, statement.place())
    table.columns[command.name] = replace(column, not_null=True)


def _identity(table: TableDraft, command: Any, statement: Statement) -> None:
    place = statement.place(command.def_.location)
    table.columns[command.name] = with_identity(table.column(command.name, place), command.def_, place)


def _tablespace(table: TableDraft, command: Any, statement: Statement) -> None:
    table.tablespace = command.name


def _row_security(table: TableDraft, command: Any, statement: Statement) -> None:
    table.row_security = command.subtype == AlterTableType.AT_EnableRowSecurity


def _force_row_security(table: TableDraft, command: Any, statement: Statement) -> None:
    table.force_row_security = command.subtype == AlterTableType.AT_ForceRowSecurity


_OF_PARTITIONS = (
    AlterTableType.AT_AddConstraint,
    AlterTableType.AT_ColumnDefault,
    AlterTableType.AT_SetTableSpace,
)

_ACTS: dict[Any, Callable[[TableDraft, Any, Statement], None]] = {
    AlterTableType.AT_AddColumn: _add_column,
    AlterTableType.AT_AddConstraint: _add_constraint,
    AlterTableType.AT_ColumnDefault: _default,
    AlterTableType.AT_SetNotNull: _not_null,
    AlterTableType.AT_AddIdentity: _identity,
    AlterTableType.AT_SetTableSpace: _tablespace,
    AlterTableType.AT_EnableRowSecurity: _row_security,
    AlterTableType.AT_DisableRowSecurity: _row_security,
    AlterTableType.AT_ForceRowSecurity: _force_row_security,
    AlterTableType.AT_NoForceRowSecurity: _force_row_security,
}


def alter_sequence(draft: Draft, node: Any, statement: Statement) -> None:
    """ALTER SEQUENCE … OWNED BY: noted, so that pg_dump's three statements for a serial column become one again."""
    place = statement.place()
    for option in node.options or ():
        if option.defname != "owned_by":
            raise place.bad("apply can't do this to a sequence", hint="write the final form in CREATE SEQUENCE")
        parts = strings(option.arg)
        if len(parts) > 1:
            draft.owned_sequences[relation(node.sequence, place)] = (qualified(option.arg[:-1]), parts[-1])
