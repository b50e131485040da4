"""Recall measured by the commands that build vector indexes or bring rows, for searches to choose their settings by."""

from __future__ import annotations

from rich.markup import escape

from ..client import AsyncHerd
from ..errors import HerdError
from ..model.schema import Column, Table
from ..planning.sizes import value_bytes
from ..tuning.calibrate import MIN_SAMPLE
from ..tuning.report import drift_of, index_status
from ..tuning.tasks import tunable
from .output import err
from .progress import tune_with_progress

SAMPLE = 40
READ_BYTES = 8 << 30
"""What measuring may read unasked: some seconds from memory, a minute from disk."""


def sample_for(rows: int, column: Column) -> int:
    """How many questions to measure an index with: each reads every vector once; 0 where that takes too long."""
    assert column.vector is not None
    read = rows * value_bytes(column.vector[1] or 0, column.vector[0])
    affordable = READ_BYTES // read if read else 0
    return min(SAMPLE, affordable) if affordable >= MIN_SAMPLE else 0


async def measure_anew(herd: AsyncHerd, table: Table, changed: int, *, tune: bool) -> None:
    """Measure a table's vector indexes if ``changed`` rows have made what is known of them out of date."""
    drift = await drift_of(herd.engine, table, changed)
    if drift.stale:
        await _measure(herd, table, at_least=changed, tune=tune and not drift.given)


async def measure_new(herd: AsyncHerd, *, tune: bool) -> None:
    """Measure the vector indexes of tables that have rows, and an index that was never measured."""
    for table in herd.topology.schema.tables:
        if not tunable(table, herd.topology.indexes(table)):
            continue
        entries = [e for e in await index_status(herd.engine, table) if e["valid"]]
        if any(e["rows"] and not e["calibrated_at"] for e in entries):
            given = (await drift_of(herd.engine, table, 1)).given
            await _measure(herd, table, at_least=0, tune=tune and not given)


async def _measure(herd: AsyncHerd, table: Table, *, at_least: int, tune: bool) -> None:
    """Measure, or say how to: where it takes long, must not be, or questions of somebody's own are to be asked."""
    by_shard: dict[str, int] = {}
    for entry in await index_status(herd.engine, table):
        by_shard[entry["shard"]] = max(by_shard.get(entry["shard"], 0), entry["rows"] or 0)
    rows = max(at_least, sum(by_shard.values()))
    sample = min(sample_for(rows, s.column) for s in tunable(table, herd.topology.indexes(table)))
    if tune and sample:
        try:
            await tune_with_progress(herd.table(str(table.name)), None, sample)
        except HerdError as error:
            err.print(f"[yellow]note[/] what searches find was not measured: {escape(error.message)}", soft_wrap=True)
        return
    name = escape(str(table.name))
    err.print(f"[dim]recall of {name} was measured before these rows, or never:[/] pgherd index tune {name}")
