"""From what was measured to advice: workloads, the machine, and what the measurements themselves say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from ..errors import BadInput
from ..planning.advice import Advice, advise
from ..planning.sizes import MAX_HNSW_DIM
from ..planning.workload import KINDS, MEMORY_SHARE, Machine, Workload
from .facts import Survey, VectorColumn, VectorIndex

DEFAULT_CACHE_SIZE = 4 * 2**30
"""PostgreSQL's effective_cache_size where nobody has set it: it says nothing of the machine."""
MIN_HIT_SHARE = 0.95
MAX_DEAD_SHARE = 0.2
MIN_RECALL = 0.9
FEW_BLOCKS = 1000


def advice_on(
    found: Survey,
    memory: int | None = None,
    disk: int | None = None,
    cores: int | None = None,
    qps: float | None = None,
    growth: float | None = None,
) -> Advice:
    """The advice; what is given outright goes before what was measured. Raises BadInput when all tables are empty."""
    works = workloads(found)
    if not works:
        raise BadInput("all tables with vectors are empty", hint="load some rows, or give numbers: --rows and --dim")
    if qps is not None:
        known = sum(w.qps or 0 for w in works)
        works = [replace(w, qps=qps * w.qps / known if known and w.qps else qps / len(works)) for w in works]
    if growth is not None:
        rows = sum(w.rows for w in works)
        works = [replace(w, growth=growth * w.rows / rows) for w in works]
    advice = advise(works, machine(found, memory, disk, cores))
    return replace(advice, reasons=(*advice.reasons, *_observations(found, memory)))


def workloads(found: Survey) -> list[Workload]:
    """One of each column that has rows; a table's bytes go with its first column."""
    works, tables = [], set()
    for column in found.columns:
        if not column.rows or not column.dim:
            continue
        index, rates, probe = column.index, found.rates.get(column.name), column.probe
        vectors = sum(i.bytes for c in found.columns if c.oid == column.oid for i in c.indexes)
        table = column.heap_bytes + column.toast_bytes + max(0, column.indexes_bytes - vectors)
        indexable = index is None or index.kind in KINDS
        works.append(
            Workload(
                column.rows,
                column.dim,
                column.kind,
                int(index.parameters["m"]) if index and index.method == "hnsw" else 16,
                min(1900, column.other_width or 8),
                rates.searches_a_s if rates else None,
                max(0.001, probe.p50_ms) if probe else None,
                rates.rows_a_day if rates else None,
                column.name,
                int(index.parameters["lists"]) if index and index.method == "ivfflat" else None,
                index.kind if index and indexable and column.dim <= MAX_HNSW_DIM[index.kind] else None,
                0 if column.oid in tables else table,
                index.bytes if index else None,
                index is not None,
            )
        )
        tables.add(column.oid)
    return [replace(w, qps=w.qps or None) for w in works]


def machine(found: Survey, memory: int | None, disk: int | None, cores: int | None) -> Machine:
    """The server as given, else as it says itself."""
    server = found.server
    own = {c.oid: c.heap_bytes + c.toast_bytes + c.indexes_bytes for c in found.columns}
    taken = server.disk_taken if disk is None else server.database_bytes
    return Machine(
        memory or server.memory or _by_cache_size(found),
        disk or server.disk,
        cores or server.cores,
        max(0, taken - sum(own.values())),
    )


def _by_cache_size(found: Survey) -> int | None:
    size = found.server.effective_cache_size
    return None if size in (None, DEFAULT_CACHE_SIZE) else int((size or 0) / MEMORY_SHARE)


def _observations(found: Survey, memory: int | None) -> Iterator[str]:
    if memory is None and found.server.memory is None and _by_cache_size(found) is not None:
        yield "memory was taken from effective_cache_size, which somebody has set; --memory says it for certain"
    for column in found.columns:
        yield from _of_column(column)
    for name, rates in found.rates.items():
        yield f"{name}: growth and searches: {rates.source}; {rates.weakness}"


def _of_column(column: VectorColumn) -> Iterator[str]:
    index, probe = column.index, column.probe
    if index is None and column.rows:
        broken = [i for i in column.indexes if not i.valid]
        what = f"index {broken[0].name} is not valid" if broken else "there is no index of all its vectors"
        yield f"{column.name}: {what}, so every search reads all {column.rows:,} rows"
    elif index is not None and probe is not None and probe.index is None:
        yield (
            f"{column.name}: index {index.name} is not used by a plain search ({probe.p50_ms:.1f} ms): the planner"
            " finds reading every row cheaper, or enable_indexscan is off"
        )
    if probe is not None and probe.recall is not None and probe.recall < MIN_RECALL:
        setting = "ivfflat.probes" if index and index.method == "ivfflat" else "hnsw.ef_search"
        yield f"{column.name}: recall of the 10 nearest is {probe.recall:.2f} as configured: raise {setting}"
    for i in column.indexes:
        hit = _share(i.hit, i.read)
        if hit is not None and hit < MIN_HIT_SHARE:
            yield (
                f"{column.name}: {1 - hit:.0%} of the pages of index {i.name} were not in shared_buffers: the kernel's"
                " cache or the disk had to give them"
            )
    if column.dead > MAX_DEAD_SHARE * max(1, column.rows):
        yield f"{column.name}: {column.dead:,} dead rows beside {column.rows:,}: VACUUM, they cost time and recall"


def _share(hit: int, read: int) -> float | None:
    return hit / (hit + read) if hit + read >= FEW_BLOCKS else None


def measured(found: Survey) -> dict[str, Any]:
    """What was measured, for ``--json``, and for a later run to compare with (``--since``)."""
    server = asdict(found.server)
    at, since = server.pop("measured_at"), server.pop("since")
    return {
        "at": at.isoformat(),
        "since": since.isoformat() if since else None,
        "server": server,
        "columns": [_column(found, c) for c in found.columns],
        "mean_ms": found.search_ms,
        "unseen": list(found.unseen),
    }


def _column(found: Survey, column: VectorColumn) -> dict[str, Any]:
    rates = found.rates.get(column.name)
    return {
        "name": column.name,
        "type": column.type,
        "dim": column.dim,
        "rows": column.rows,
        "row_bytes": (column.heap_bytes + column.toast_bytes) / column.rows if column.rows else None,
        "heap_bytes": column.heap_bytes,
        "toast_bytes": column.toast_bytes,
        "indexes_bytes": column.indexes_bytes,
        "parts": column.parts,
        "dead": column.dead,
        "inserted": column.inserted,
        "deleted": column.deleted,
        "heap_hit_share": _share(column.heap_hit + column.toast_hit, column.heap_read + column.toast_read),
        "rates": asdict(rates) if rates else None,
        "probe": asdict(column.probe) if column.probe else None,
        "indexes": [_index(i, column) for i in column.indexes],
    }


def _index(index: VectorIndex, column: VectorColumn) -> dict[str, Any]:
    return {
        "name": index.name,
        "method": index.method,
        "metric": index.metric,
        "holds": f"{index.kind}({index.dim})" if index.dim else str(index.kind),
        "parameters": index.parameters,
        "valid": index.valid,
        "partial": index.partial,
        "used": bool(column.probe and column.probe.index in index.names),
        "bytes": index.bytes,
        "scans": index.scans,
        "hit_share": _share(index.hit, index.read),
    }
