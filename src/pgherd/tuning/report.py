"""The vector indexes of a herd as they are now, and what was measured of them: ``pgherd index status`` and ``tune``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..engines.base import Engine
from ..model.names import Name
from ..model.schema import Column, Table, VectorType
from ..model.topology import Shard
from ..planning.sizes import hnsw_bytes, ivfflat_bytes
from ..search.effort import ALL, usual_effort
from ..search.request import DEFAULT_RECALL
from .curve import DEPTHS
from .indexes import IndexFacts, index_facts
from .knowledge import cheapest_reach
from .store import STALE_SHARE, Calibration, Key, read_calibrations
from .tasks import tunable

K = 10
"""Recall and effort are told for so many rows."""


async def index_status(engine: Engine, table: Table | None = None) -> list[dict[str, Any]]:
    """The stable keys of ``pgherd index status --json``: one entry an index of a shard, of one table or of all.

    ``recall`` (of the table's ten nearest, lower bound) is the one that a search has without tuning; ``effort``,
    ``exact`` and ``ms`` are what a search has now. All of them are None where nothing was measured. ``bloat`` is the
    share of ``bytes`` beyond what a new index of as many rows would take.
    Raises GroupUnavailable.
    """
    tables = [table] if table else engine.topology.schema.tables
    shards = [s for t in tables if t.vector_columns for s in engine.topology.shards(t)]
    homes = dict.fromkeys(s.home for s in shards)
    answers = await asyncio.gather(
        *(_of_home(engine, h, [s for s in shards if s.home == h], {t.name: t for t in tables}) for h in homes)
    )
    order = {s.name: i for i, s in enumerate(shards)}
    return sorted((e for found in answers for e in found), key=lambda e: (order[e["shard"]], e["index"]))


class Drift(NamedTuple):
    """Whether searches of a table rest on measurements out of date, or on none; ``given``: on somebody's questions."""

    stale: bool
    given: bool


async def drift_of(engine: Engine, table: Table, changed: int) -> Drift:
    """What ``changed`` rows have done to the measurements of a table; nothing, where there is no vector index.

    Raises GroupUnavailable.
    """
    wanted = tunable(table, engine.topology.indexes(table))
    if not wanted or not changed:
        return Drift(stale=False, given=False)
    found: list[Calibration] = []
    for home in dict.fromkeys(s.home for s in engine.topology.shards(table)):
        relations = {s.relation.sql for s in engine.topology.shards(table) if s.home == home}
        async with engine.connection(home) as connection:
            found += [c for c in await read_calibrations(connection) if c.relation in relations]
    rows_at = sum({c.relation: c.rows_at for c in found}.values())
    return Drift(not found or changed > STALE_SHARE * rows_at, any(c.given for c in found))


async def _of_home(
    engine: Engine, home: str, shards: Sequence[Shard], tables: dict[Name, Table]
) -> list[dict[str, Any]]:
    async with engine.connection(home) as connection:
        known = {c.key: c for c in await read_calibrations(connection)}
        return [
            _entry(shard, tables[shard.table], facts, known)
            for shard in shards
            for facts in await index_facts(connection, shard)
        ]


def _entry(shard: Shard, table: Table, facts: IndexFacts, known: dict[Key, Calibration]) -> dict[str, Any]:
    metric = facts.metric.value if facts.metric else None
    column = table.column(facts.column) if facts.column else None
    found = known.get((shard.relation.sql, facts.column or "", metric or "", facts.stored or ""))
    measured: dict[str, Any] = dict.fromkeys(("calibrated_at", "stale", "recall", "effort", "exact", "ms"))
    if found and facts.stored and column and column.vector:
        choice = found.curve.effort_for(DEFAULT_RECALL, K, promised=False, within=ALL)
        usual = usual_effort(facts.stored, column.vector[0], K).ef_search
        measured = {
            "calibrated_at": found.calibrated_at.isoformat() if found.calibrated_at else None,
            "stale": found.is_stale(facts.changes, facts.definition),
            "recall": found.curve.recall_at(usual, K, within=ALL) if facts.method == "hnsw" else choice.recall,
            "effort": choice.effort,
            "exact": choice.exact,
            "ms": round(choice.ms, 3),
        }
    predicted = _predicted_bytes(facts, column)
    return {
        "table": str(shard.table),
        "shard": shard.name,
        "home": shard.home,
        "index": facts.name,
        "column": facts.column,
        "type": facts.stored,
        "metric": metric,
        "method": facts.method,
        "parameters": facts.parameters,
        "bytes": facts.size_bytes,
        "predicted_bytes": predicted,
        "bloat": round(max(0.0, 1 - predicted / facts.size_bytes), 3) if predicted and facts.size_bytes else None,
        "rows": facts.rows,
        "dead": facts.dead,
        "valid": facts.valid,
        **measured,
    }


def _predicted_bytes(facts: IndexFacts, column: Column | None) -> int | None:
    """The size of a new index of these rows; None where it isn't known, and for vectors of any number of components."""
    dim = column.vector[1] if column and column.vector else None
    if not dim or not facts.rows or facts.stored in (None, VectorType.SPARSEVEC):
        return None
    assert facts.stored is not None
    if facts.method == "hnsw":
        return hnsw_bytes(facts.rows, dim, facts.stored, int(facts.parameters["m"])).bytes
    return ivfflat_bytes(facts.rows, dim, facts.stored, int(facts.parameters["lists"])).bytes


def asked_shards(table: str, found: Sequence[Calibration], recall: float) -> list[dict[str, Any]]:
    """Of a table that is shared out by cells, how many shards a search asks: one entry a kind of index; else none."""
    entries = []
    for stored in dict.fromkeys((c.column, c.metric, c.stored) for c in found if c.curve.reaches):
        column, metric, type_ = stored
        mine = {c.relation: c.curve for c in found if (c.column, c.metric, c.stored) == stored}
        curves = list(mine.values())
        gap, ms = cheapest_reach(curves, recall, K)
        choices = [c.effort_for(recall, K, within=ALL if gap is None else gap) for c in curves]
        reaches, depth = curves[0].reaches, DEPTHS.index(K)
        entries.append(
            {
                "table": table,
                "column": column,
                "metric": metric,
                "type": type_,
                "shards": len(mine),
                "asked": next((r.asked for r in reaches if r.gap == gap), float(len(curves))),
                "effort": max(c.effort for c in choices),
                "exact": any(c.exact for c in choices),
                "ms": round(ms, 3),
                "reaches": [{"asked": r.asked, "holds": r.covered[depth]} for r in reaches],
            }
        )
    return entries


def tuned(found: Sequence[Calibration], recall: float) -> list[dict[str, Any]]:
    """The stable keys of ``pgherd index tune --json``: one entry a calibration, with what ``recall`` takes."""
    entries = []
    for one in found:
        choice = one.curve.effort_for(recall, K, within=ALL)
        entries.append(
            {
                "relation": one.relation,
                "column": one.column,
                "metric": one.metric,
                "type": one.stored,
                "method": one.curve.method,
                "rows": one.rows_at,
                "sample": one.sample,
                "effort": choice.effort,
                "exact": choice.exact,
                "expected_recall": choice.recall,
                "ms": round(choice.ms, 3),
                "exact_ms": round(one.curve.exact_ms, 3),
                "points": [
                    {"effort": p.effort, "recall": one.curve.recall_at(p.effort, K, within=ALL), "ms": round(p.ms, 3)}
                    for p in one.curve.points
                ],
            }
        )
    return entries
