"""Who is up, who holds what: a herd as it is right now, asked of every group at once."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import sql

from .client import AsyncHerd
from .engines.base import Connection
from .errors import HerdError
from .model.schema import TableKind
from .model.topology import Group, Shard

COUNT_BELOW_BYTES = 64 << 20
"""Shards up to this size are counted; larger ones are estimated from PostgreSQL's statistics."""


async def status_of(herd: AsyncHerd) -> dict[str, Any]:
    """The stable keys of ``pgherd status --json``. A group that doesn't answer is shown as down, not raised.

    ``rows`` is None where it can't be known: its group is down. ``lag_bytes`` is 0 for a primary, None when unknown.
    """
    topology = herd.topology
    by_home: dict[str, list[Shard]] = {g.name: [] for g in topology.groups}
    for table in topology.schema.tables:
        for shard in topology.shards(table):
            by_home[shard.home].append(shard)
    answers = await asyncio.gather(*(_ask(herd, g, by_home[g.name]) for g in topology.groups))
    sizes = {key: size for sizes, _ in answers for key, size in sizes.items()}
    up = {g.name: alive for g, (_, alive) in zip(topology.groups, answers, strict=True)}
    return {
        "generation": topology.generation,
        "engine": topology.engine.value,
        "groups": [_group(g, up[g.name]) for g in topology.groups],
        "tables": [
            {
                "name": str(table.name),
                "kind": table.kind.value,
                "shards": [
                    {
                        "name": s.name,
                        "home": s.home if table.kind is not TableKind.REFERENCE else "every group",
                        "tablespace": s.tablespace,
                        "rows": sizes.get(s.name, (None, None))[0],
                        "bytes": sizes.get(s.name, (None, None))[1],
                    }
                    for s in topology.shards(table)
                ],
            }
            for table in topology.schema.tables
        ],
    }


def _group(group: Group, up: bool) -> dict[str, Any]:
    return {
        "name": group.name,
        "nodes": [
            {
                "name": n.name,
                "host": n.host,
                "port": n.port,
                "role": n.role.value,
                "cloud": n.label.cloud,
                "region": n.label.region,
                "zone": n.label.zone,
                "up": up,
                "lag_bytes": 0 if up else None,
            }
            for n in group.nodes
        ],
    }


async def _ask(herd: AsyncHerd, group: Group, shards: list[Shard]) -> tuple[dict[str, tuple[int, int]], bool]:
    try:
        async with herd.engine.connection(group.name) as connection:
            await connection.execute("SELECT 1")
            found = {s.name: await _size(connection, s) for s in shards}
            return {name: size for name, size in found.items() if size}, True
    except HerdError:
        return {}, False


async def _size(connection: Connection, shard: Shard) -> tuple[int, int] | None:
    row = await (
        await connection.execute(
            "SELECT pg_table_size(c), pg_total_relation_size(c), (SELECT greatest(reltuples, 0)::bigint FROM pg_class"
            " WHERE oid = c) FROM to_regclass(%s) c",
            [shard.relation.sql],
        )
    ).fetchone()
    assert row is not None
    table_bytes, total_bytes, estimate = row
    if table_bytes is None:  # it was split a moment ago
        return None
    if table_bytes > COUNT_BELOW_BYTES:
        return int(estimate), int(total_bytes)
    count = await (
        await connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*shard.relation)))
    ).fetchone()
    return int(count[0]) if count else 0, int(total_bytes)
