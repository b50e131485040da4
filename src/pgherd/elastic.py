"""Growing and shrinking: which moves a herd needs, from what its shards weigh right now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from .client import AsyncHerd
from .engines.base import Connection
from .engines.failures import talking_to
from .errors import GroupUnavailable
from .model.topology import Shard
from .planning.grow import grow
from .planning.plan import Plan
from .planning.rebalance import Move, drain, rebalance
from .planning.split import Split, describe, splits_of
from .status import status_of

MEASURED_S = 10.0
"""For how long load is measured. PostgreSQL's sessions tell what they did once a second, or up to ten when idle."""


class By(StrEnum):
    """What a group's share is counted in."""

    BYTES = "bytes"
    ROWS = "rows"
    LOAD = "load"


async def rebalance_plan(
    herd: AsyncHerd, by: By = By.BYTES, measured_s: float = MEASURED_S
) -> tuple[tuple[Move, ...], Plan]:
    """The moves that even out the groups' bytes (rows, load), and the plan that makes them. Raises GroupUnavailable.

    Where shards hold too many bytes for that, the plan splits some first, and says so in its notes.
    """
    weights, sizes = await _weights(herd, by, measured_s)
    if by is not By.BYTES:
        moves = _in_bytes(rebalance(herd.topology, weights), sizes)
        return moves, herd.engine.plan_moves(moves)
    splits, moves = grow(herd.topology, sizes)
    notes = tuple(f"{describe(s)} first: moving alone leaves {s.home} too heavy" for s in splits)
    return moves, replace(herd.engine.plan_splits(splits, moves), notes=notes)


async def drain_plan(herd: AsyncHerd, group: str) -> tuple[tuple[Move, ...], Plan]:
    """The moves that leave no shard in a group. Raises UnknownName, ChangeRefused, GroupUnavailable."""
    name = herd.topology.group(group).name
    sizes, _ = await _weights(herd, By.BYTES, 0)
    moves = drain(herd.topology, sizes, name)
    return moves, herd.engine.plan_moves(moves)


async def split_plan(herd: AsyncHerd, name: str) -> tuple[tuple[Split, ...], Plan]:
    """The splits of a shard, or of all hash shards of a table, and their plan. Raises UnknownName, ChangeRefused."""
    sizes, _ = await _weights(herd, By.BYTES, 0)
    splits = splits_of(herd.topology, name, sizes)
    return splits, herd.engine.plan_splits(splits)


async def _weights(herd: AsyncHerd, by: By, measured_s: float) -> tuple[dict[str, int], dict[str, int]]:
    """What each shard weighs, and its bytes, indexes included; by ``Name.sql``."""
    await herd.engine.refresh()
    document = await status_of(herd)
    down = [n["name"] for g in document["groups"] for n in g["nodes"] if not n["up"]]
    if down:
        raise GroupUnavailable(f"group {down[0]} does not answer, so its shards can't be weighed", hint="pgherd up")
    said = {s["name"]: s for t in document["tables"] for s in t["shards"]}
    shards = [s for t in herd.topology.schema.tables for s in herd.topology.shards(t)]
    sizes = {s.relation.sql: int(said[s.name]["bytes"] or 0) for s in shards}
    if by is By.BYTES:
        return sizes, sizes
    if by is By.ROWS:
        return {s.relation.sql: int(said[s.name]["rows"] or 0) for s in shards}, sizes
    return await _load(herd, shards, measured_s), sizes


def _in_bytes(moves: tuple[Move, ...], sizes: Mapping[str, int]) -> tuple[Move, ...]:
    """The moves with their bytes, whatever they were weighed by."""
    return tuple(replace(m, bytes=sum(sizes.get(s.sql, 0) for s in m.shards)) for m in moves)


_PAGES = """
SELECT coalesce(sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0)
    + coalesce(toast_blks_hit + toast_blks_read, 0) + coalesce(tidx_blks_hit + tidx_blks_read, 0)), 0)
FROM pg_statio_all_tables WHERE relid = to_regclass(%s)
"""


async def _load(herd: AsyncHerd, shards: list[Shard], measured_s: float) -> dict[str, int]:
    """Pages of each shard, of its indexes and of its long values that were looked at during ``measured_s``.

    Searches, reads and writes all come down to that, so it is close to the work a shard makes its server do.
    Source: PostgreSQL 18 manual, 27.2 "The Cumulative Statistics System", pg_statio_all_tables.
    """
    before = await _pages(herd, shards)
    await asyncio.sleep(measured_s)
    after = await _pages(herd, shards)
    return {name: max(0, after[name] - before[name]) for name in after}


async def _pages(herd: AsyncHerd, shards: list[Shard]) -> dict[str, int]:
    async def one(connection: Connection, shard: Shard) -> int:
        row = await (await connection.execute(_PAGES, [shard.relation.sql])).fetchone()
        return int(row[0]) if row else 0

    found: dict[str, int] = {}
    for group in herd.topology.groups:
        async with herd.engine.connection(group.name) as connection:
            with talking_to(group.name, "measuring its load"):
                await connection.execute("SELECT pg_stat_force_next_flush()")  # or weighing the shards counts as load
                found |= {s.relation.sql: await one(connection, s) for s in shards if s.home == group.name}
    return found
