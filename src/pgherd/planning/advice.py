"""Should vectors be distributed, when, and how: from numbers alone, every figure with its formula. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from ..model.schema import VectorType
from .sizes import MAX_HNSW_DIM, Size, heap_bytes, hnsw_bytes, raw_bytes, value_bytes

MEMORY_SHARE = 0.75
"""Of a server's memory, what is left for pages beside connections, sorts and the kernel."""
EF_SEARCH = 200
_KINDS = (VectorType.VECTOR, VectorType.HALFVEC, VectorType.BIT)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_COUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([kmgbt]?)", re.IGNORECASE)
_BYTES = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is stored and asked: ``other_bytes`` a row beside the vector, ``memory`` of one server in bytes.

    ``query_ms``: CPU of one search, measured; None has it estimated.
    """

    rows: int
    dim: int
    kind: VectorType = VectorType.VECTOR
    m: int = 16
    memory: int = 64 * 2**30
    other_bytes: int = 8
    qps: float | None = None
    query_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its unit (``B``, ``rows``, ``servers``, ``ms`` or ``cores``) and how it comes about."""

    name: str
    value: float
    unit: str
    formula: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to index the vectors, and how many servers have memory for it."""

    name: str
    index: Size
    servers: int
    note: str


@dataclass(frozen=True, slots=True)
class Advice:
    """The answer: figures, choices, the engine that fits with how many servers, and the reasons in words."""

    figures: tuple[Figure, ...]
    choices: tuple[Choice, ...]
    engine: str
    servers: int
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``pgherd advise --json``."""
        return {
            "figures": [{"name": f.name, "value": f.value, "unit": f.unit, "formula": f.formula} for f in self.figures],
            "choices": [
                {
                    "name": c.name,
                    "bytes": c.index.bytes,
                    "servers": c.servers,
                    "formula": c.index.formula,
                    "note": c.note,
                }
                for c in self.choices
            ],
            "engine": self.engine,
            "servers": self.servers,
            "reasons": list(self.reasons),
        }


def advise(work: Workload) -> Advice:
    """What the workload needs. Raises BadInput for numbers that make no sense."""
    _check(work)
    usable = int(work.memory * MEMORY_SHARE)
    choices = tuple(_choices(work, usable))
    figures = tuple(_figures(work, choices[0], usable))
    servers = choices[0].servers
    reasons = tuple(_reasons(work, choices, figures))
    return Advice(figures, choices, "single" if servers == 1 else "fleet", servers, reasons)


def count_of(text: str) -> int:
    """``10M`` as a number; k, M, G (or B) and T are powers of a thousand. Raises BadInput."""
    found = _COUNT.fullmatch(text.strip())
    if found is None:
        raise BadInput(f"{text!r} is not a number", hint="write for example 250k, 10M or 2B")
    return round(_plain(found[1]) * _UNITS[found[2].lower()])


def bytes_of(text: str) -> int:
    """``64GiB`` (or ``64 GB``, ``64g``) as bytes; KiB, MiB, GiB, TiB are powers of 1,024. Raises BadInput."""
    found = _BYTES.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise BadInput(f"{text!r} is not a size", hint="write for example 512MiB or 64GiB")
    power = " kmgt".index(found[2].lower() or " ")
    return round(_plain(found[1]) * (1024.0 if found[3] else 1000.0) ** power)


def _plain(digits: str) -> float:
    return float(digits.replace(",", "").replace("_", ""))


def _check(work: Workload) -> None:
    if work.kind not in _KINDS:
        raise BadInput(f"there is no advice on {work.kind}", hint="one of: " + ", ".join(_KINDS))
    for what, value, high in (
        ("rows", work.rows, 10**15),
        ("dim", work.dim, MAX_HNSW_DIM[VectorType.BIT] if work.kind is VectorType.BIT else 16_000),
        ("memory", work.memory, 10**18),
        ("qps", work.qps, 10**9),
        ("query-ms", work.query_ms, 10**6),
    ):
        if value is not None and not 0 < value <= high:
            raise BadInput(f"{what} is {value:,}", hint=f"more than 0, and at most {high:,}")
    if not 2 <= work.m <= 100:
        raise BadInput(f"m is {work.m}", hint="pgvector takes 2 to 100")
    if not 0 <= work.other_bytes <= 1900:
        raise BadInput(f"row-bytes is {work.other_bytes}", hint="0 to 1,900: longer values are moved out of the row")


def _choices(work: Workload, usable: int) -> Iterator[Choice]:
    """The column's own index first, if there can be one, then what would make it smaller."""
    for kind in _KINDS[_KINDS.index(work.kind) :]:
        if work.dim > MAX_HNSW_DIM[kind]:
            continue
        size = hnsw_bytes(work.rows, work.dim, kind, work.m)
        name, note = f"hnsw on {kind}", "as the column is"
        if kind is VectorType.HALFVEC and kind is not work.kind:
            name, note = f"hnsw on a halfvec({work.dim}) cast", "half the bytes a component; recall hardly changes"
        if kind is VectorType.BIT and kind is not work.kind:
            name, note = (
                "hnsw on binary_quantize",
                "one bit a component; order the nearest again by the vectors themselves",
            )
        yield Choice(name, size, -(-size.bytes // usable), note)


def _figures(work: Workload, first: Choice, usable: int) -> Iterator[Figure]:
    raw = raw_bytes(work.rows, work.dim, work.kind)
    heap = heap_bytes(work.rows, work.dim, work.kind, work.other_bytes)
    yield Figure("vectors, raw", raw.bytes, "B", raw.formula)
    yield Figure("table", heap.bytes, "B", heap.formula)
    yield Figure(f"index ({first.name}, m={work.m})", first.index.bytes, "B", first.index.formula)
    total = heap.bytes + first.index.bytes
    yield Figure("disk", total, "B", "table + index; WAL, and a second index while it is rebuilt, come on top")
    yield Figure("memory for pages", usable, "B", f"{MEMORY_SHARE:.0%} of one server's {work.memory:,} B")
    full = usable * work.rows // first.index.bytes
    formula = f"memory for pages / ({first.index.bytes:,} B / {work.rows:,} rows): beyond, searches wait for the disk"
    yield Figure("rows that fill the memory", full, "rows", formula)
    formula = f"index {first.index.bytes:,} B / memory for pages {usable:,} B, rounded up"
    yield Figure("servers for memory", first.servers, "servers", formula)
    if work.qps is not None:
        ms, formula = _query_ms(work)
        yield Figure("CPU of a search", ms, "ms", formula)
        cores = work.qps * ms / 1000
        yield Figure("busy cores", cores, "cores", f"{work.qps:,.0f} searches/s x {ms:.2f} ms / 1,000")


def _query_ms(work: Workload) -> tuple[float, str]:
    if work.query_ms is not None:
        return work.query_ms, "as measured"
    each = 0.4 + value_bytes(work.dim, work.kind) * 1e-4
    formula = (
        f"an estimate for pages in memory: ef_search {EF_SEARCH} x m {work.m} distances x (0.4 us + 0.1 ns a byte);"
        " measure yours and give --query-ms"
    )
    return EF_SEARCH * work.m * each / 1000, formula


def _reasons(work: Workload, choices: tuple[Choice, ...], figures: tuple[Figure, ...]) -> Iterator[str]:
    first = choices[0]
    if work.dim > MAX_HNSW_DIM[work.kind]:
        limit = MAX_HNSW_DIM[work.kind]
        yield f"pgvector indexes {work.kind} up to {limit:,} dimensions: {work.dim:,} need {first.name}"
    if first.servers == 1:
        full = next(f.value for f in figures if f.name == "rows that fill the memory")
        yield f"{first.name} fits one server's memory, up to {full:,.0f} rows: engine single"
    else:
        yield f"{first.name} needs {first.servers} servers' memory: engine fleet, {first.servers} groups"
        smaller = next((c for c in choices[1:] if c.servers < first.servers), None)
        if smaller is not None:
            plural = "s" if smaller.servers > 1 else ""
            yield f"{smaller.name} would need {smaller.servers} server{plural} ({smaller.note})"
    cores = next((f.value for f in figures if f.unit == "cores"), None)
    if cores is not None:
        yield (
            f"searches keep about {cores:,.1f} cores busy on every server that they visit: sharding divides memory, not"
            " this, unless a condition on the partition key sends each search to one group"
        )
