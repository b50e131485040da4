"""Should vectors be distributed, when, and how: every figure with its formula. Pure, and the same for numbers that
somebody gives as for a database that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from ..errors import BadInput
from ..model.schema import VectorType
from .outlook import Limit, Outlook
from .sizes import MAX_HNSW_DIM, Size, raw_bytes
from .verdict import Fit, Need, fits
from .workload import CPU_SHARE, KINDS, MEMORY_SHARE, Machine, Workload, check

SOON_DAYS = 365
"""What runs out later than this is no reason to distribute now."""
MAX_GROUPS = 1000
"""What pgherd's planner was tried with."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its unit (``B``, ``rows``, ``servers``, ``ms`` or ``cores``) and how it comes about."""

    name: str
    value: float
    unit: str
    formula: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to index the vectors, and how many servers have memory for it (0: no server's memory is known)."""

    name: str
    index: Size
    servers: int
    note: str


@dataclass(frozen=True, slots=True)
class Way:
    """What a change would give: index bytes on each server and those that come a day (``growth``), days until its
    memory is full, its busy cores."""

    name: str
    servers: int
    index_bytes: int
    growth: float
    days: float | None
    cores: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Advice:
    """The answer in one sentence, then what it rests on; ``servers`` and ``engine`` for the indexes as they are."""

    answer: str
    figures: tuple[Figure, ...]
    choices: tuple[Choice, ...]
    limits: tuple[Limit, ...]
    ways: tuple[Way, ...]
    engine: str
    servers: int
    engines: tuple[Fit, ...]
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``pgherd advise --json``."""
        return {
            "answer": self.answer,
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
            "limits": [
                {
                    "name": x.name,
                    "used": x.used,
                    "room": x.room,
                    "unit": x.unit,
                    "days": x.days,
                    "formula": x.formula,
                }
                for x in self.limits
            ],
            "ways": [
                {
                    "name": w.name,
                    "servers": w.servers,
                    "index_bytes": w.index_bytes,
                    "bytes_a_day": w.growth,
                    "days": w.days,
                    "cores": w.cores,
                    "note": w.note,
                }
                for w in self.ways
            ],
            "engine": self.engine,
            "servers": self.servers,
            "engines": [{"name": f.engine, "fits": f.fits, "reason": f.reason} for f in self.engines],
            "reasons": list(self.reasons),
        }


def advise(works: Sequence[Workload], machine: Machine) -> Advice:
    """What the workloads need, all on one such server or on several. Raises BadInput for numbers that make no sense."""
    if not works:
        raise BadInput("there are no vectors to advise on", hint="give --rows and --dim, or a --dsn")
    for work in works:
        check(work, machine)
    outlook = Outlook(tuple(works), machine)
    choices = tuple(_choices(works, machine))
    servers = max(1, choices[0].servers)
    limits = outlook.limits()
    ways = tuple(_ways(outlook, choices))
    figures = tuple(_figures(works, machine, choices[0]))
    need = Need(servers, min((c.servers for c in choices[1:]), default=servers), outlook.short_of_cpu)
    return Advice(
        _answer(outlook, limits, choices),
        figures,
        choices,
        limits,
        ways,
        "single" if servers == 1 else "fleet",
        servers,
        fits(need),
        tuple(_reasons(works, machine, choices, figures)),
    )


def _choices(works: Sequence[Workload], machine: Machine) -> Iterator[Choice]:
    """The columns' own indexes first, then what would make them smaller."""
    pages = machine.pages
    for kind in (None, VectorType.HALFVEC, VectorType.BIT):
        chosen = [w.own_kind if kind is None else _at_most(w, kind) for w in works]
        if kind is not None and not any(c is kind and c is not w.own_kind for w, c in zip(works, chosen, strict=True)):
            continue
        sizes = [w.index(c) for w, c in zip(works, chosen, strict=True)]
        total = sum(s.bytes for s in sizes)
        formula = sizes[0].formula if len(sizes) == 1 else " + ".join(f"{s.bytes:,} B" for s in sizes)
        name, note = _named(works, chosen[0], kind)
        yield Choice(name, Size(total, formula), 0 if pages is None else max(1, -(-total // pages)), note)


def _at_most(work: Workload, kind: VectorType) -> VectorType:
    """``kind``, or what the index holds already where that is smaller, or must hold for its dimensions."""
    own = KINDS.index(work.own_kind)
    return next(k for k in KINDS[max(own, KINDS.index(kind)) :] if work.dim <= MAX_HNSW_DIM[k] or k is VectorType.BIT)


def _named(works: Sequence[Workload], first: VectorType, kind: VectorType | None) -> tuple[str, str]:
    half = "half the bytes a component; recall hardly changes"
    bits = "one bit a component; order the nearest again by the vectors themselves"
    if len(works) > 1:
        match kind:
            case None:
                return "all indexes", "as they are" if all(w.indexed for w in works) else "as they are, or would be"
            case VectorType.HALFVEC:
                return "all on halfvec casts", half
            case _:
                return "all on binary_quantize", bits
    work = works[0]
    note = "as the column is" if first is work.kind else {VectorType.HALFVEC: half, VectorType.BIT: bits}[first]
    if not work.indexed and kind is None:
        note = "there is none yet: every search reads the whole table"
    if first is work.kind:
        return f"{work.method} on {first}", note
    if first is VectorType.HALFVEC:
        return f"{work.method} on a halfvec({work.dim}) cast", note
    return f"{work.method} on binary_quantize", note


def _figures(works: Sequence[Workload], machine: Machine, first: Choice) -> Iterator[Figure]:
    for work in works:
        of = f"{work.name}: " if len(works) > 1 else ""
        raw = raw_bytes(work.rows, work.dim, work.kind)
        yield Figure(f"{of}vectors, raw", raw.bytes, "B", raw.formula)
        yield Figure(f"{of}table", work.table.bytes, "B", work.table.formula)
        own = work.index()
        build = f"m={work.m}" if work.lists is None else f"lists={work.lists}"
        name = _named([work], work.own_kind, None)[0]
        yield Figure(f"{of}index ({name}, {build})", own.bytes, "B", own.formula)
    total = sum(w.table.bytes for w in works) + first.index.bytes
    yield Figure("disk", total, "B", "table + index; WAL, and a second index while it is rebuilt, come on top")
    pages, rows = machine.pages, sum(w.rows for w in works)
    if pages is not None:
        yield Figure("memory for pages", pages, "B", f"{MEMORY_SHARE:.0%} of one server's {machine.memory:,} B")
        full = pages * rows // max(1, first.index.bytes)
        formula = f"memory for pages / ({first.index.bytes:,} B / {rows:,} rows): beyond, searches wait for the disk"
        yield Figure("rows that fill the memory", full, "rows", formula)
        formula = f"index {first.index.bytes:,} B / memory for pages {pages:,} B, rounded up"
        yield Figure("servers for memory", first.servers, "servers", formula)
    yield from _cpu(works)


def _cpu(works: Sequence[Workload]) -> Iterator[Figure]:
    busy, parts = 0.0, []
    for work in works:
        of = f"{work.name}: " if len(works) > 1 else ""
        ms, formula = work.search_ms()
        if work.qps is not None or work.query_ms is not None:
            yield Figure(f"{of}CPU of a search", ms, "ms", formula)
        if work.qps is not None:
            busy += work.qps * ms / 1000
            parts.append(f"{work.qps:,.6g} searches/s x {ms:.2f} ms / 1,000")
    if parts:
        yield Figure("busy cores", busy, "cores", " + ".join(parts))


def _ways(outlook: Outlook, choices: Sequence[Choice]) -> Iterator[Way]:
    cores, first = outlook.busy_cores, choices[0]

    def way(name: str, choice: Choice, groups: int, cores: float | None, note: str, copies: int = 1) -> Way:
        total, days = choice.index.bytes, outlook.memory_days(choice.index.bytes, groups)
        return Way(name, groups * copies, ceil(total / groups), outlook.rate(total) / groups, days, cores, note)

    for choice in choices:
        yield way(choice.name if choice is not first else "as it is", choice, 1, cores, choice.note)
    for choice in choices:
        groups = max(2, choice.servers, _groups_for_a_year(outlook, choice.index.bytes))
        if choice is first:
            note = "every search visits each group: at most the CPU of one server on each, less for smaller indexes"
            yield way(f"sharded over {groups} groups", choice, groups, cores, note)
            note = "if a condition on the key goes with every search (a tenant, a region): it visits one group"
            part = None if cores is None else cores / groups
            yield way(f"placed by a key, {groups} groups", choice, groups, part, note)
        elif choice.servers > 1:
            yield way(f"sharded over {groups} groups, {choice.name}", choice, groups, cores, choice.note)
    if cores is not None:
        room = (outlook.machine.cores or 0) * CPU_SHARE
        copies = max(1, ceil(cores / room) - 1) if room else 1
        note = "a whole copy each: they divide CPU, not memory or disk, and take over when the server dies"
        name = f"{copies} read replica{'s' if copies > 1 else ''}"
        yield way(name, first, 1, cores / (copies + 1), note, copies + 1)


def _groups_for_a_year(outlook: Outlook, index: int) -> int:
    """Groups whose memory lasts ``SOON_DAYS`` more; 1 where that can't be told."""
    pages, rate = outlook.machine.pages, outlook.rate(index)
    return 1 if pages is None else min(MAX_GROUPS, ceil((index + rate * SOON_DAYS) / pages))


def _answer(outlook: Outlook, limits: Sequence[Limit], choices: Sequence[Choice]) -> str:
    known = [x for x in limits if x.days is not None]
    if not limits:
        return "It can't be told without the memory of a server: give --memory"
    first = min(known, key=lambda x: x.days or 0, default=None)
    if first is None or first.days is None:
        if outlook.rows_a_day:
            return "No need to distribute: nothing runs out at present growth"
        return "No need to distribute now: it fits. How long it will depends on its growth (--growth ROWS a day)"
    smaller = next((c for c in choices[1:] if 0 < c.servers < choices[0].servers), None)
    remedies = {
        "memory": f"; {smaller.name} would put it off" if smaller is not None else "",
        "disk": "; sharding divides it",
        "CPU": "; read replicas divide it, or rows placed by a key that searches name",
    }
    cheap = remedies[first.name]
    if first.days <= 0:
        return f"Yes, now: {first.name} has run out{cheap}"
    when = f"{first.name} runs out in {first.days:,.0f} days at present growth"
    return f"Yes, soon: {when}{cheap}" if first.days < SOON_DAYS else f"Not yet: {when}"


def _reasons(
    works: Sequence[Workload], machine: Machine, choices: Sequence[Choice], figures: Sequence[Figure]
) -> Iterator[str]:
    first = choices[0]
    for work in works:
        if work.dim > MAX_HNSW_DIM[work.kind]:
            limit = MAX_HNSW_DIM[work.kind]
            name = _named([work], work.own_kind, None)[0]
            yield f"pgvector indexes {work.kind} up to {limit:,} dimensions: {work.dim:,} need {name}"
    fit, it = ("fits", "needs") if len(works) == 1 else ("fit", "need")
    if machine.pages is None:
        yield "the server's memory is not known: give --memory to learn when it is full"
    elif first.servers == 1:
        full = next(f.value for f in figures if f.name == "rows that fill the memory")
        yield f"{first.name} {fit} one server's memory, up to {full:,.0f} rows: engine single"
    else:
        yield f"{first.name} {it} {first.servers} servers' memory: engine fleet, {first.servers} groups"
        smaller = next((c for c in choices[1:] if c.servers < first.servers), None)
        if smaller is not None:
            plural = "s" if smaller.servers > 1 else ""
            yield f"{smaller.name} would need {smaller.servers} server{plural} ({smaller.note})"
    cores = next((f.value for f in figures if f.unit == "cores"), None)
    if cores is not None:
        yield (
            f"searches keep about {cores:,.2g} cores busy on every server that they visit: sharding divides memory, not"
            " this, unless a condition on the partition key sends each search to one group"
        )
