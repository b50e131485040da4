"""What an index build may take of a machine: memory for the graph, processes; shared fairly among builds. Pure.

An HNSW graph that outgrows ``maintenance_work_mem`` is built on disk from then on, several times slower. So the memory
follows from the graph, within what the machine has left.
Source: pgvector 0.8, README (Index Build Time), src/hnsw.h (HnswElementData, HnswCandidate), src/hnswbuild.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.names import Name
from ..model.schema import Index, Table, TableKind, VectorType
from ..model.topology import Topology
from ..model.vectors import quantized
from .ddl import leaf_index_name
from .plan import Step
from .sizes import value_bytes

MIB = 1 << 20
ELEMENT_BYTES = 200
"""An element of the graph in memory without its value and neighbours, and what the allocator adds."""
CANDIDATE_BYTES = 16
KMEANS_ROWS = 50
"""ivfflat's k-means looks at so many rows a list, at least 10,000 (src/ivfbuild.c)."""
DEFAULT_M, DEFAULT_LISTS = 16, 100


@dataclass(frozen=True, slots=True)
class Machine:
    """A server's machine: bytes in all and not in use, processors; None where the server does not tell."""

    memory_bytes: int
    available_bytes: int
    cpus: int | None


@dataclass(frozen=True, slots=True)
class Resources:
    """Settings of the session that builds: ``workers`` beside the session itself, None leaves the server's own."""

    memory_bytes: int
    workers: int | None


def build_memory_bytes(index: Index, table: Table, rows: int) -> int:
    """The memory that a build over ``rows`` rows uses; 0 for an index that is not pgvector's."""
    column = table.column(index.columns[0]) if index.columns else None
    small = quantized(index)
    kind, dim = (small[2], small[1]) if small else column.vector if column and column.vector else (None, None)
    if kind is None or kind is VectorType.SPARSEVEC or not dim or index.method not in ("hnsw", "ivfflat"):
        return 0
    value, options = value_bytes(dim, kind), dict(index.options)
    if index.method == "hnsw":
        neighbours = CANDIDATE_BYTES * int(options.get("m", DEFAULT_M)) * 2 * 9 // 8
        return rows * (ELEMENT_BYTES + value + neighbours) * 5 // 4
    lists = int(options.get("lists", DEFAULT_LISTS))
    sampled = min(rows, max(10_000, KMEANS_ROWS * lists))
    return sampled * value + lists * lists * 4 + lists * value * 3 + 16 * MIB


def resources(machine: Machine, builds: int, needed_bytes: int, configured_bytes: int) -> Resources:
    """What one of ``builds`` builds on a machine gets: what it needs, up to its share of half of the memory.

    Never less than the server is configured for, since somebody may have thought of that.
    """
    room = min(machine.memory_bytes // 2, machine.available_bytes * 3 // 4) // max(1, builds)
    memory = max(configured_bytes, min(needed_bytes, room))
    workers = None if machine.cpus is None else max(0, machine.cpus // max(1, builds) - 1)
    return Resources(memory, workers)


def index_of_step(topology: Topology, step: Step) -> tuple[Index, Table, Name] | None:
    """Which index a ``build_index`` or ``build_part`` step builds, and on which relation."""
    target = step.index.sql if step.index else step.target
    for index in topology.schema.indexes:
        table = topology.table(index.table)
        if table.kind is not TableKind.DISTRIBUTED:
            if index.name.sql == target:
                return index, table, table.name
            continue
        for shard in topology.shards(table):
            if Name(shard.relation.schema, leaf_index_name(index, shard.relation)).sql == target:
                return index, table, shard.relation
    return None
