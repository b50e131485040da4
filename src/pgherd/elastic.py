"""Growing and shrinking: which moves a herd needs, from what its shards weigh right now."""

from __future__ import annotations

from dataclasses import replace

from .client import AsyncHerd
from .errors import GroupUnavailable
from .planning.grow import grow
from .planning.plan import Plan
from .planning.rebalance import Move, drain
from .planning.split import Split, describe, splits_of
from .status import status_of


async def rebalance_plan(herd: AsyncHerd) -> tuple[tuple[Move, ...], Plan]:
    """The moves that even out the groups' bytes, and the plan that makes them. Raises GroupUnavailable.

    Where shards are too large for that, the plan splits some first, and says so in its notes.
    """
    splits, moves = grow(herd.topology, await _sizes(herd))
    notes = tuple(f"{describe(s)} first: moving alone leaves {s.home} too heavy" for s in splits)
    return moves, replace(herd.engine.plan_splits(splits, moves), notes=notes)


async def drain_plan(herd: AsyncHerd, group: str) -> tuple[tuple[Move, ...], Plan]:
    """The moves that leave no shard in a group. Raises UnknownName, ChangeRefused, GroupUnavailable."""
    name = herd.topology.group(group).name
    moves = drain(herd.topology, await _sizes(herd), name)
    return moves, herd.engine.plan_moves(moves)


async def split_plan(herd: AsyncHerd, name: str) -> tuple[tuple[Split, ...], Plan]:
    """The splits of a shard, or of all hash shards of a table, and their plan. Raises UnknownName, ChangeRefused."""
    splits = splits_of(herd.topology, name, await _sizes(herd))
    return splits, herd.engine.plan_splits(splits)


async def _sizes(herd: AsyncHerd) -> dict[str, int]:
    """Bytes of every shard, indexes included, by ``Name.sql``."""
    await herd.engine.refresh()
    document = await status_of(herd)
    down = [n["name"] for g in document["groups"] for n in g["nodes"] if not n["up"]]
    if down:
        raise GroupUnavailable(f"group {down[0]} does not answer, so its shards can't be weighed", hint="pgherd up")
    bytes_of = {s["name"]: s["bytes"] for t in document["tables"] for s in t["shards"]}
    return {
        s.relation.sql: int(bytes_of[s.name] or 0) for t in herd.topology.schema.tables for s in herd.topology.shards(t)
    }
