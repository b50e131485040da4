"""Whether servers themselves refuse what would let pinned rows out (engines/sql/guard.sql)."""

from __future__ import annotations

from ..errors import HerdError
from ..model.topology import Topology
from .base import Connection, Engine

UNGUARDED = (
    "group {group}: no guard against publications, subscriptions and foreign tables that would let pinned rows out,"
    " since only a superuser may make event triggers there"
)


async def is_guarded(connection: Connection) -> bool:
    """Whether both event triggers are there and enabled; False on a server whose schema pgherd is older."""
    done = await connection.execute("SELECT to_regprocedure('pgherd.guarded()') IS NOT NULL")
    if await done.fetchone() != (True,):
        return False
    return await (await connection.execute("SELECT pgherd.guarded()")).fetchone() == (True,)


async def unguarded_notes(engine: Engine, topology: Topology) -> tuple[str, ...]:
    """What to tell whoever pins rows: which groups have no guard."""
    if not any(topology.schema.regions_of(t) for t in topology.schema.tables):
        return ()
    notes = []
    for group in topology.groups:
        try:
            async with engine.connection(group.name) as connection:
                if not await is_guarded(connection):
                    notes.append(UNGUARDED.format(group=group.name))
        except HerdError:
            continue  # it is down: nothing can be planned to an end then
    return tuple(notes)
