"""Reading the audit trail: the lines of all groups that answer, and where what plain SQL did is to be found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..client import AsyncHerd
from ..engines.plainsql import settings_of, why_not_recorded
from ..errors import HerdError, UnknownName
from ..herdfile import HerdFile
from ..llm.accesslog import newest, read_entries
from ..local.herd import log_of
from ..model.topology import Group, Node


@dataclass(slots=True)
class Told:
    """``entries``, newest first; ``unread``: groups whose log was not to be seen, and why; ``plain_sql``: each node."""

    kept: bool
    entries: list[dict[str, Any]] = field(default_factory=list)
    unread: list[dict[str, str]] = field(default_factory=list)
    plain_sql: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The keys of ``pgherd audit --trail --json``."""
        return {
            "kept": self.kept,
            "entries": self.entries,
            "could_not_look_at": self.unread,
            "plain_sql": self.plain_sql,
        }


async def read_trail(
    herd: AsyncHerd, file: HerdFile | None, since_s: float, limit: int, table: str | None = None
) -> Told:
    """The newest ``limit`` lines, none older than ``since_s`` seconds; of one table and its shards, if it is named."""
    names = None if table is None else _names(herd, table)
    told = Told(herd.topology.schema.trail is not None)
    for group in herd.topology.groups:
        try:
            async with herd.engine.connection(group.name) as connection:
                read = await read_entries(connection, since_s, limit, names)
            told.entries += [{"group": str(group.name), **entry} for entry in read]
        except HerdError as error:
            told.unread.append({"group": str(group.name), "why": error.message})
        for node in group.nodes if told.kept else ():
            told.plain_sql.append(await _plain_sql(herd, file, group, node))
    told.entries = newest(told.entries, limit)
    return told


def _names(herd: AsyncHerd, table: str) -> list[str]:
    """What lines call a table: by its name, as MCP clients do, or by a shard's."""
    try:
        found = herd.topology.table(table)
    except UnknownName:  # a view, or a table that was dropped
        return [table]
    name = str(found.name)
    return [name, name.replace(".", "_"), *(str(s.relation) for s in herd.topology.shards(found))]


async def _plain_sql(herd: AsyncHerd, file: HerdFile | None, group: Group, node: Node) -> dict[str, Any]:
    """Whether statements are recorded on a node, and in which file, where that is known."""
    data = next((n.data_directory for n in file.nodes if n.name == node.name), None) if file else None
    log = str(log_of(Path(data))) if data else None
    try:
        async with herd.engine.connection(group.name, node.name if len(group.nodes) > 1 else None) as connection:
            why = why_not_recorded(await settings_of(connection))
    except HerdError as error:
        return {"node": node.name, "region": node.label.region, "recorded": None, "why": error.message, "log": log}
    return {"node": node.name, "region": node.label.region, "recorded": why is None, "why": why, "log": log}
