"""Who is up, who holds what: a herd as it is right now, asked of every group at once."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import sql

from .client import AsyncHerd
from .engines.base import Connection
from .engines.guard import is_guarded
from .engines.servers.standing import Standing, standing_of
from .errors import HerdError
from .herdfile import HerdFile, TwoNode
from .model.schema import TableKind
from .model.topology import Group, Node, Role, Shard

COUNT_BELOW_BYTES = 64 << 20
"""Shards up to this size are counted; larger ones are estimated from PostgreSQL's statistics."""


async def status_of(
    herd: AsyncHerd, file: HerdFile | None = None, failovers: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The stable keys of ``pgherd status --json``. A group that doesn't answer is shown as down, not raised.

    ``rows`` is None where it can't be known: its group is down. ``lag_bytes`` is 0 for a primary, None when unknown.
    ``file``, where there is one, says what a group of two nodes does when one is lost; ``failovers`` what is known of
    each group's last change of primary. ``guarded``: whether the group's servers refuse statements that would let
    pinned rows out; None when unknown.
    """
    topology = herd.topology
    by_home: dict[str, list[Shard]] = {g.name: [] for g in topology.groups}
    for table in topology.schema.tables:
        for shard in topology.shards(table):
            by_home[shard.home].append(shard)
    answers = await asyncio.gather(*(_ask(herd, g, by_home[g.name]) for g in topology.groups))
    sizes = {key: size for _, sizes, _ in answers for key, size in sizes.items()}
    return {
        "generation": topology.generation,
        "engine": topology.engine.value,
        "groups": [
            _group(g, standings, file) | {"last_failover": (failovers or {}).get(g.name), "guarded": guarded}
            for g, (standings, _, guarded) in zip(topology.groups, answers, strict=True)
        ],
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


def _group(group: Group, standings: list[Standing], file: HerdFile | None) -> dict[str, Any]:
    return {
        "name": group.name,
        "nodes": [
            {
                "name": n.name,
                "host": n.host,
                "port": n.port,
                "role": _role(group, n, s),
                "cloud": n.label.cloud,
                "region": n.label.region,
                "zone": n.label.zone,
                "up": s.up,
                "lag_bytes": s.lag_bytes,
                "lag_s": s.lag_s,
                "timeline": s.timeline,
                "sync": s.sync,
            }
            for n, s in zip(group.nodes, standings, strict=True)
        ],
        "promise_off": _promise_off(group, standings, file),
    }


def _role(group: Group, node: Node, standing: Standing) -> str:
    """What it is; of a node that is down that was never anything else, what it is for."""
    if standing.role is not None:
        return standing.role.value
    return node.role.value if len(group.nodes) == 1 else "unknown"


def _promise_off(group: Group, standings: list[Standing], file: HerdFile | None) -> str | None:
    """Which promise of a group with replicas doesn't hold now, in words; None while all do, or none was made."""
    total, up = len(group.nodes), sum(s.up for s in standings)
    if total == 1:
        return None
    if not any(s.role is Role.PRIMARY for s in standings):
        return "no primary: no writes until one is elected"
    if total == 2 and file is not None and file.two_node is TwoNode.AVAILABLE:
        if up == total:
            return "two nodes, available: what is written while one is lost is on one node only"
        return "one node only: what is written now is lost if it is lost"
    if total == 2:
        return "two nodes, durable: writes stop when one is lost" if up == total else "one node only: writes wait"
    waited_for = sum(s.sync in ("sync", "quorum") for s in standings)
    if waited_for == 0:
        return "no standby is in step: writes wait"
    if waited_for < min(2, total - 1):
        return f"{waited_for} of {min(2, total - 1)} standbys in step: one more loss stops writes, none is lost"
    return None


async def _ask(
    herd: AsyncHerd, group: Group, shards: list[Shard]
) -> tuple[list[Standing], dict[str, tuple[int, int]], bool | None]:
    standings = await standing_of(herd.engine.whereabouts, group)
    if not any(s.role is Role.PRIMARY for s in standings):
        return standings, {}, None
    try:
        async with herd.engine.connection(group.name) as connection:
            found = {s.name: await _size(connection, s) for s in shards}
            guarded = await is_guarded(connection)
            return standings, {name: size for name, size in found.items() if size}, guarded
    except HerdError:
        return standings, {}, None


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
