"""What advice starts from: vectors, what is asked of them, and the server they are on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadInput
from ..model.schema import VectorType
from .sizes import MAX_HNSW_DIM, Size, heap_bytes, hnsw_bytes, ivfflat_bytes, value_bytes

KINDS = (VectorType.VECTOR, VectorType.HALFVEC, VectorType.BIT)
"""The types there is advice on, each smaller than the one before."""
MEMORY_SHARE = 0.75
"""Of a server's memory, what is left for pages beside connections, sorts and the kernel."""
DISK_SHARE = 0.8
"""Of a disk, what tables and indexes may take: WAL, and an index while it is rebuilt, need the rest."""
CPU_SHARE = 0.7
"""Of a server's cores, what searches may keep busy: beyond, they queue."""
EF_SEARCH = 200
_MAX_DIM = 16_000


@dataclass(frozen=True, slots=True)
class Workload:
    """One column of vectors: ``other_bytes`` a row beside it, ``qps`` searches a second, ``growth`` rows a day.

    ``query_ms`` is the CPU of one search, measured; None has it estimated. ``table_bytes`` and ``index_bytes`` are as a
    server has them now, None has them worked out; ``indexed`` False: there is no index yet. ``index_kind`` is what an
    index on an expression holds, if not the column's own type.
    """

    rows: int
    dim: int
    kind: VectorType = VectorType.VECTOR
    m: int = 16
    other_bytes: int = 8
    qps: float | None = None
    query_ms: float | None = None
    growth: float | None = None
    name: str = ""
    lists: int | None = None
    index_kind: VectorType | None = None
    table_bytes: int | None = None
    index_bytes: int | None = None
    indexed: bool = True

    def index(self, kind: VectorType | None = None) -> Size:
        """The index, as measured or worked out; with ``kind`` one that holds that type instead."""
        own = kind is None or kind is self.own_kind
        if own and self.index_bytes is not None:
            return Size(self.index_bytes, "as the server has it")
        chosen = kind or self.own_kind
        if self.lists is not None:
            return ivfflat_bytes(self.rows, self.dim, chosen, self.lists)
        return hnsw_bytes(self.rows, self.dim, chosen, self.m)

    @property
    def own_kind(self) -> VectorType:
        """The type that the index holds: the column's, or the next smaller one that can be indexed at all."""
        if self.index_kind is not None:
            return self.index_kind
        return next(k for k in KINDS[KINDS.index(self.kind) :] if self.dim <= MAX_HNSW_DIM[k])

    @property
    def method(self) -> str:
        """The index's access method."""
        return "hnsw" if self.lists is None else "ivfflat"

    @property
    def table(self) -> Size:
        """The table with its TOAST, as measured or worked out."""
        if self.table_bytes is not None:
            where = "heap, TOAST, other indexes" if self.table_bytes else "counted with the table's first column"
            return Size(self.table_bytes, f"as the server has it: {where}")
        return heap_bytes(self.rows, self.dim, self.kind, self.other_bytes)

    def search_ms(self) -> tuple[float, str]:
        """The CPU of one search, and where the figure is from."""
        if self.query_ms is not None:
            return self.query_ms, "as measured"
        each = 0.4 + value_bytes(self.dim, self.own_kind) * 1e-4
        formula = (
            f"an estimate for pages in memory: ef_search {EF_SEARCH} x m {self.m} distances x (0.4 us + 0.1 ns a"
            " byte); measure yours and give --query-ms"
        )
        return EF_SEARCH * self.m * each / 1000, formula


@dataclass(frozen=True, slots=True)
class Machine:
    """One server: bytes of memory and disk, cores; None where it is not known. ``disk_taken`` by anything else."""

    memory: int | None = 64 * 2**30
    disk: int | None = None
    cores: int | None = None
    disk_taken: int = 0

    @property
    def pages(self) -> int | None:
        """Bytes of memory for pages."""
        return None if self.memory is None else int(self.memory * MEMORY_SHARE)


def check(work: Workload, machine: Machine) -> None:
    """BadInput for numbers that make no sense."""
    if work.kind not in KINDS:
        raise BadInput(f"there is no advice on {work.kind}", hint="one of: " + ", ".join(KINDS))
    for what, value, high in (
        ("rows", work.rows, 10**15),
        ("dim", work.dim, MAX_HNSW_DIM[VectorType.BIT] if work.kind is VectorType.BIT else _MAX_DIM),
        ("memory", machine.memory, 10**18),
        ("disk", machine.disk, 10**18),
        ("cores", machine.cores, 10**6),
        ("qps", work.qps, 10**9),
        ("query-ms", work.query_ms, 10**6),
        ("lists", work.lists, 32_768),
    ):
        if value is not None and not 0 < value <= high:
            raise BadInput(f"{what} is {value:,}", hint=f"more than 0, and at most {high:,}")
    if work.growth is not None and not 0 <= work.growth <= 10**15:
        raise BadInput(f"growth is {work.growth:,} rows a day", hint="0 or more")
    if not 2 <= work.m <= 100:
        raise BadInput(f"m is {work.m}", hint="pgvector takes 2 to 100")
    if not 0 <= work.other_bytes <= 1900:
        raise BadInput(f"row-bytes is {work.other_bytes}", hint="0 to 1,900: longer values are moved out of the row")
