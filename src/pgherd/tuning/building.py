"""Index builds under way, as the servers tell of them, whoever started them (pg_stat_progress_create_index)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from ..engines.base import Engine
from ..engines.failures import talking_to
from ..errors import HerdError

LOOK_EVERY_S = 0.5

_QUERY = """
SELECT p.relid::regclass::text, nullif(p.index_relid, 0)::regclass::text, p.phase,
    CASE WHEN p.blocks_total > 0 THEN p.blocks_done ELSE p.tuples_done END,
    CASE WHEN p.blocks_total > 0 THEN p.blocks_total ELSE p.tuples_total END,
    CASE WHEN p.blocks_total > 0 THEN 'blocks' ELSE 'tuples' END,
    extract(epoch FROM clock_timestamp() - a.query_start)::float8
FROM pg_stat_progress_create_index p JOIN pg_stat_activity a USING (pid)
WHERE p.datname = current_database()
ORDER BY a.query_start, p.pid
"""


@dataclass(frozen=True, slots=True)
class Build:
    """One index build: ``done`` of ``total`` (0: unknown) ``unit`` of this phase, ``seconds`` since it began."""

    group: str
    relation: str
    index: str | None
    phase: str
    done: int
    total: int
    unit: str
    seconds: float

    @property
    def share(self) -> float | None:
        """How much of the phase is done, 0 to 1; None where the server can't tell."""
        return min(1.0, self.done / self.total) if self.total else None

    def as_json(self) -> dict[str, Any]:
        """The stable keys of a build."""
        share = None if self.share is None else round(self.share, 4)
        return {**asdict(self), "seconds": round(self.seconds, 1), "share": share}


async def builds(engine: Engine, groups: Sequence[str]) -> list[Build]:
    """All that are under way on these groups right now; a group that doesn't answer has none to tell of."""

    async def of(group: str) -> list[Build]:
        with suppress(HerdError):
            async with engine.connection(group) as connection:
                with talking_to(group, "looking at index builds"):
                    rows = await (await connection.execute(_QUERY)).fetchall()
            return [Build(group, *row) for row in rows]
        return []

    return [build for found in await asyncio.gather(*map(of, groups)) for build in found]


@asynccontextmanager
async def watching(engine: Engine, groups: Sequence[str], tell: Callable[[list[Build]], None]) -> AsyncIterator[None]:
    """Tell of the builds on these groups twice a second, for the length of the block."""

    async def look() -> None:
        while True:
            tell(await builds(engine, groups))
            await asyncio.sleep(LOOK_EVERY_S)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
