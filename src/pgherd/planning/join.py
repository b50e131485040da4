"""What a group that joins a herd must get: every name that the others have, and its copy of every reference table.

The steps are those that would make the whole schema from nothing, as far as they concern the new groups: no shard is at
home there yet, so each is a foreign partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..model.names import quote_literal
from ..model.schema import ObjectKind, Schema, TableKind
from ..model.topology import GroupId, Topology
from .compile import Compiler, server_name
from .diff import Create
from .finish import finish
from .plan import Step, Traits

WRITERS_OF_REFERENCE_TABLES = "writers of this table, until the group has joined"


def join_steps(target: Topology, new: tuple[GroupId, ...], roles: Mapping[str, str], traits: Traits) -> Iterator[Step]:
    """The steps on the groups ``new`` of ``target`` (its schema is the herd's, its groups include the new ones).

    ``roles`` maps each role of the schema to the statement that makes it again: a topology keeps no secrets.
    """
    compiler = Compiler(target, traits, Schema())
    source = next(g.name for g in target.groups if g.name not in new)
    for item in target.schema.items:
        for step in compiler.compile(Create(item)):
            secret = step.kind == "run_role"
            here = _narrowed(step, new)
            if here is not None:
                yield replace(here, sql=roles.get(step.target, step.sql), secret=True) if secret else here
    for table in target.schema.tables:
        if table.kind is TableKind.REFERENCE:
            name = quote_literal(table.name.sql)
            lock = f"LOCK TABLE {table.name.sql} IN SHARE MODE"
            yield Step("hold_reference", str(table.name), (source,), lock, blocks=WRITERS_OF_REFERENCE_TABLES)
            copy = f"SELECT pgherd.copy_reference({name}, {quote_literal(server_name(source))})"
            yield Step("copy_reference", str(table.name), new, copy)
    for step in finish(replace(target, schema=Schema()), target):
        here = _narrowed(step, new)
        if here is not None:
            yield here


def role_names(schema: Schema) -> list[str]:
    """The roles that the schema makes."""
    return [o.name for o in schema.objects if o.kind is ObjectKind.ROLE]


def _narrowed(step: Step, new: tuple[GroupId, ...]) -> Step | None:
    """The step on the new groups only; but links of old groups to the new ones carry extensions and logins, too."""
    if step.kind in ("ship_extension", "sync_logins"):
        return step
    groups = tuple(g for g in step.groups if g in new)
    return replace(step, groups=groups) if groups else None
