"""The topology as it is kept on every node, in ``pgherd.topology``."""

from __future__ import annotations

from dataclasses import replace

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


_MOVED = """
INSERT INTO pgherd.topology (generation, document)
SELECT %(generation)s, document || jsonb_build_object('generation', %(generation)s::bigint,
    'homes', document -> 'homes' || %(homes)s)
FROM pgherd.topology WHERE generation = %(parent)s
"""


async def write_topology(connection: Connection, topology: Topology, parent: Topology | None = None) -> None:
    """Record a topology inside the caller's transaction.

    Where nothing but homes has changed since ``parent``, which the node has, only those are sent: in a herd of a
    thousand nodes the whole of it is half a megabyte for each of them.
    """
    if (
        parent
        and parent.homes.keys() == topology.homes.keys()
        and topology == replace(parent, generation=topology.generation, homes=topology.homes)
    ):
        changed = {name: home for name, home in topology.homes.items() if parent.homes[name] != home}
        given = {"generation": topology.generation, "homes": Jsonb(changed), "parent": parent.generation}
        if (await connection.execute(_MOVED, given)).rowcount:
            return
    await connection.execute(
        "INSERT INTO pgherd.topology (generation, document) VALUES (%s, %s)",
        [topology.generation, Jsonb(topology_to_json(topology))],
    )
