"""Whether a server records what plain SQL does, by any driver, for a herd with an audit trail: pgaudit does."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import HerdError
from ..model.topology import Topology
from .base import Connection, Engine

_CLASSES = frozenset({"read", "write"})
"""What has to be recorded, of pgaudit's classes; ``all`` has them, too."""
_NOTE = "node {node}: the audit trail has what pgherd's clients do, not what plain SQL does: {why} (docs/trail.md)"
_SETTINGS = (
    "SELECT name, setting FROM pg_settings"
    " WHERE name LIKE 'pgaudit.%' OR name IN ('log_line_prefix', 'log_destination')"
)


def why_not_recorded(settings: Mapping[str, str | None]) -> str | None:
    """Why statements are not recorded on a server with such settings, as a session in the herd's database has them.

    None if they are.
    """
    listed = settings.get("pgaudit.log")
    if listed is None:
        return "pgaudit is not loaded"
    classes = {c.strip() for c in listed.lower().split(",")}
    if not (classes >= _CLASSES or "all" in classes) or classes & {"-" + c for c in _CLASSES}:
        return f"pgaudit.log is {listed}"
    if settings.get("pgaudit.log_relation") != "on":
        return "pgaudit.log_relation is off, so tables are not named"
    destinations = settings.get("log_destination") or ""
    if "%u" not in (settings.get("log_line_prefix") or "") and not {"csvlog", "jsonlog"} & set(destinations.split(",")):
        return "log_line_prefix has no %u, so roles are not named"
    return None


async def settings_of(connection: Connection) -> dict[str, str | None]:
    """The settings that :func:`why_not_recorded` asks for."""
    return {str(name): value for name, value in await (await connection.execute(_SETTINGS)).fetchall()}


async def unrecorded_notes(engine: Engine, topology: Topology) -> tuple[str, ...]:
    """What to tell whoever has a trail kept: on which nodes plain SQL will not be recorded."""
    notes = []
    for group in topology.groups if topology.schema.trail is not None else ():
        for node in group.nodes:
            try:
                async with engine.connection(group.name, node.name if len(group.nodes) > 1 else None) as connection:
                    found = await settings_of(connection)
                    may_set = connection.info.parameter_status("is_superuser") == "on"
            except HerdError:
                continue  # it is down: the audit tells, once it is back
            why = why_not_recorded(found)
            if why and not ("pgaudit.log" in found and may_set):  # or else the plan does it
                notes.append(_NOTE.format(node=node.name, why=why))
    return tuple(notes)
