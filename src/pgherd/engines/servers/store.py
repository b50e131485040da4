"""The topology as it is kept on every node, in ``pgherd.topology``."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from ...model.codec import topology_from_json, topology_to_json
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


async def write_topology(connection: Connection, topology: Topology) -> None:
    """Record a topology inside the caller's transaction."""
    await connection.execute(
        "INSERT INTO pgherd.topology (generation, document) VALUES (%s, %s)",
        [topology.generation, Jsonb(topology_to_json(topology))],
    )
