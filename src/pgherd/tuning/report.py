"""The vector indexes of a herd as they are now, and what was measured of them: ``pgherd index status`` and ``tune``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ..engines.base import Engine
from ..model.schema import Table
from ..model.topology import Shard
from ..search.request import DEFAULT_EF_SEARCH, DEFAULT_RECALL
from .indexes import IndexFacts, index_facts
from .store import Calibration, read_calibrations

K = 10
"""Recall and effort are told for so many rows."""


async def index_status(engine: Engine, table: Table | None = None) -> list[dict[str, Any]]:
    """The stable keys of ``pgherd index status --json``: one entry an index of a shard, of one table or of all.

    ``recall`` (of the ten nearest, lower bound) is the one at ``ef_search`` 200, which a search has without tuning;
    ``effort``, ``exact`` and ``ms`` are what a search has now. All of them are None where nothing was measured.
    Raises GroupUnavailable.
    """
    tables = [table] if table else engine.topology.schema.tables
    shards = [s for t in tables if t.vector_columns for s in engine.topology.shards(t)]
    homes = dict.fromkeys(s.home for s in shards)
    answers = await asyncio.gather(*(_of_home(engine, h, [s for s in shards if s.home == h]) for h in homes))
    order = {s.name: i for i, s in enumerate(shards)}
    return sorted((e for found in answers for e in found), key=lambda e: (order[e["shard"]], e["index"]))


async def _of_home(engine: Engine, home: str, shards: Sequence[Shard]) -> list[dict[str, Any]]:
    async with engine.connection(home) as connection:
        known = {c.key: c for c in await read_calibrations(connection)}
        return [_entry(shard, facts, known) for shard in shards for facts in await index_facts(connection, shard)]


def _entry(shard: Shard, facts: IndexFacts, known: dict[tuple[str, str, str], Calibration]) -> dict[str, Any]:
    metric = facts.metric.value if facts.metric else None
    found = known.get((shard.relation.sql, facts.column or "", metric or ""))
    measured: dict[str, Any] = dict.fromkeys(("calibrated_at", "stale", "recall", "effort", "exact", "ms"))
    if found:
        choice = found.curve.effort_for(DEFAULT_RECALL, K, promised=False)
        measured = {
            "calibrated_at": found.calibrated_at.isoformat() if found.calibrated_at else None,
            "stale": found.is_stale(facts.rows, facts.changes, facts.definition),
            "recall": found.curve.recall_at(DEFAULT_EF_SEARCH, K) if facts.method == "hnsw" else choice.recall,
            "effort": choice.effort,
            "exact": choice.exact,
            "ms": round(choice.ms, 3),
        }
    return {
        "table": str(shard.table),
        "shard": shard.name,
        "home": shard.home,
        "index": facts.name,
        "column": facts.column,
        "metric": metric,
        "method": facts.method,
        "parameters": facts.parameters,
        "bytes": facts.size_bytes,
        "rows": facts.rows,
        "dead": facts.dead,
        "valid": facts.valid,
        **measured,
    }


def tuned(found: Sequence[Calibration], recall: float) -> list[dict[str, Any]]:
    """The stable keys of ``pgherd index tune --json``: one entry a calibration, with what ``recall`` takes."""
    entries = []
    for one in found:
        choice = one.curve.effort_for(recall, K)
        entries.append(
            {
                "relation": one.relation,
                "column": one.column,
                "metric": one.metric,
                "method": one.curve.method,
                "rows": one.rows_at,
                "sample": one.sample,
                "effort": choice.effort,
                "exact": choice.exact,
                "expected_recall": choice.recall,
                "ms": round(choice.ms, 3),
                "exact_ms": round(one.curve.exact_ms, 3),
                "points": [
                    {"effort": p.effort, "recall": one.curve.recall_at(p.effort, K), "ms": round(p.ms, 3)}
                    for p in one.curve.points
                ],
            }
        )
    return entries
