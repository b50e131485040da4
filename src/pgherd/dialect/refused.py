"""Statements that a schema file may not hold, each with the reason and the way to go instead."""

from __future__ import annotations

_ROWS = ("apply takes definitions, not rows", "load rows with pgherd load or pgherd sql")
_ALTER_ROLE = ("apply can't change a role", "write the final form in CREATE ROLE")
_WHOLE = ("apply can't do this", "write the final form in the CREATE statement")
_SERVER = ("this belongs to one server, or to PostgreSQL itself", "leave it out; pgherd looks after its servers")
_REPLICATION = (
    "pgherd replicates by itself, and a subscription of yours could carry pinned rows out of their region",
    "leave it out; set it up by hand outside the herd if you must",
)

REFUSED: dict[str, tuple[str, str]] = {
    "InsertStmt": _ROWS,
    "UpdateStmt": _ROWS,
    "DeleteStmt": _ROWS,
    "MergeStmt": _ROWS,
    "TruncateStmt": _ROWS,
    "CopyStmt": _ROWS,
    "DoStmt": ("what a DO block does can't be read from its text", "write the statements themselves"),
    "CallStmt": ("a call is not a definition", "run it with pgherd sql"),
    "ExplainStmt": ("a query is not a definition", "run it with pgherd sql"),
    "RuleStmt": ("a rule rewrites queries in ways that routing can't follow", "use a view or a trigger"),
    "CreateForeignServerStmt": ("foreign servers are how nodes reach each other", "leave it out"),
    "CreateForeignTableStmt": ("rows of a foreign table are outside the herd", "load them with pgherd load"),
    "CreateFdwStmt": _SERVER,
    "CreateUserMappingStmt": _SERVER,
    "ImportForeignSchemaStmt": _SERVER,
    "CreatePublicationStmt": _REPLICATION,
    "AlterPublicationStmt": _REPLICATION,
    "CreateSubscriptionStmt": _REPLICATION,
    "AlterSubscriptionStmt": _REPLICATION,
    "CreatedbStmt": ("a herd is one database", "use a schema: CREATE SCHEMA name"),
    "DropdbStmt": ("a herd is one database", "leave it out"),
    "AlterDatabaseSetStmt": _SERVER,
    "AlterSystemStmt": _SERVER,
    "CreateEventTrigStmt": ("it would fire on pgherd's own statements", "leave it out"),
    "CreateTableAsStmt": (
        "it copies rows, of other regions too, onto one node and keeps them there",
        "use CREATE VIEW, or CREATE TABLE with its columns and load rows with pgherd load",
    ),
    "RefreshMatViewStmt": ("a herd has no materialized views", "use CREATE VIEW"),
    "CompositeTypeStmt": ("composite types are not kept", "use columns, or jsonb"),
    "CreateRangeStmt": ("range types of your own are not kept", "use one of PostgreSQL's range types"),
    "DefineStmt": ("aggregates, operators and base types are not kept", "put them into an extension"),
    "CreateCastStmt": ("casts are not kept", "put them into an extension"),
    "CreateOpClassStmt": ("operator classes are not kept", "put them into an extension"),
    "CreateStatsStmt": ("statistics objects belong to each server's planner", "leave it out"),
    "CreateTransformStmt": ("transforms are not kept", "put them into an extension"),
    "CreatePLangStmt": ("languages come with extensions", "write CREATE EXTENSION"),
    "CreateAmStmt": ("access methods come with extensions", "write CREATE EXTENSION"),
    "CreateConversionStmt": ("conversions are not kept", "leave it out"),
    "AlterRoleStmt": _ALTER_ROLE,
    "AlterRoleSetStmt": _ALTER_ROLE,
    "DropRoleStmt": ("apply doesn't drop roles", "drop it with pgherd sql"),
    "RenameStmt": ("a rename and a new object can't be told apart later", "write the new name in CREATE"),
    "AlterObjectSchemaStmt": ("a move to another schema", "write schema.name in CREATE"),
    "AlterFunctionStmt": _WHOLE,
    "AlterDomainStmt": _WHOLE,
    "AlterExtensionStmt": _WHOLE,
    "AlterPolicyStmt": _WHOLE,
    "AlterTypeStmt": _WHOLE,
    "SecLabelStmt": ("security labels are not kept", "leave it out"),
    "VacuumStmt": _SERVER,
    "ReindexStmt": _SERVER,
    "CheckPointStmt": _SERVER,
    "LockStmt": _SERVER,
    "DropOwnedStmt": ("apply doesn't drop what it can't name", "write DROP … for each object"),
    "DropTableSpaceStmt": ("apply doesn't drop tablespaces", "leave the tablespace out of the file"),
}

OTHER = ("apply doesn't know this statement", "leave it out, or run it with pgherd sql")

IGNORED = frozenset({"TransactionStmt", "AlterOwnerStmt"})
"""pg_dump and migration tools write them; apply makes its own transactions, and owns what it makes."""
