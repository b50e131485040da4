"""The topology as it is kept on every node, in ``pgherd.topology``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from ...model.codec import topology_from_json, topology_to_json
from ...model.difference import Edit, difference, patched
from ...model.topology import Topology
from ..base import Connection


async def read_generation(connection: Connection) -> int:
    """The newest generation a node knows; 0 on a server that is not part of a herd."""
    row = await (await connection.execute("SELECT to_regclass('pgherd.topology') IS NOT NULL")).fetchone()
    if not row or not row[0]:
        return 0
    row = await (await connection.execute("SELECT coalesce(max(generation), 0) FROM pgherd.topology")).fetchone()
    return int(row[0]) if row else 0


async def read_topology(connection: Connection) -> Topology | None:
    """The newest topology a node knows, None on a server that is not part of a herd."""
    if not await read_generation(connection):
        return None
    row = await (
        await connection.execute("SELECT document FROM pgherd.topology ORDER BY generation DESC LIMIT 1")
    ).fetchone()
    return topology_from_json(row[0]) if row else None


async def read_document(connection: Connection) -> dict[str, Any] | None:
    """The newest topology of a herd's node as it is kept there."""
    row = await (
        await connection.execute("SELECT document FROM pgherd.topology ORDER BY generation DESC LIMIT 1")
    ).fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class Record:
    """A topology as it is sent: whole, and where that is less, as ``edits`` of the generation before it."""

    generation: int
    document: dict[str, Any]
    parent: int
    edits: list[Edit] | None

    @classmethod
    def of(cls, topology: Topology, before: dict[str, Any] | None) -> Record:
        """``before``: the document that every node has now, as it is there.

        In a herd of a thousand nodes a whole one is half a megabyte, for each of them.
        """
        document = json.loads(json.dumps(topology_to_json(topology)))  # as it is read back
        if before is None:
            return cls(topology.generation, document, 0, None)
        edits = difference(before, document)
        short = len(json.dumps(edits)) < len(json.dumps(document)) // 2 and patched(before, edits) == document
        return cls(topology.generation, document, int(before["generation"]), edits if short else None)


_EDITED = """
INSERT INTO pgherd.topology (generation, document)
SELECT %s, pgherd.patched(document, %s) FROM pgherd.topology WHERE generation = %s
"""


async def write_topology(connection: Connection, record: Record) -> None:
    """Record a topology inside the caller's transaction; whole where the generation before it is not known."""
    if record.edits is not None:
        done = await connection.execute(_EDITED, [record.generation, Jsonb(record.edits), record.parent])
        if done.rowcount:
            return
    await connection.execute(
        "INSERT INTO pgherd.topology (generation, document) VALUES (%s, %s)",
        [record.generation, Jsonb(record.document)],
    )
