"""When memory, disk and CPU run out, in days from now: straight lines through what is known of today. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .workload import CPU_SHARE, DISK_SHARE, MEMORY_SHARE, Machine, Workload


@dataclass(frozen=True, slots=True)
class Limit:
    """One resource of a server: what is used of what there is room for, and how many days are left.

    ``days`` is 0 where it has run out, None where nothing grows (or nobody said how fast).
    """

    name: str
    used: float
    room: float
    unit: str
    days: float | None
    formula: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """Workloads that grow on one server."""

    works: tuple[Workload, ...]
    machine: Machine

    @property
    def index_bytes(self) -> int:
        """All indexes as they are."""
        return sum(w.index().bytes for w in self.works)

    @property
    def table_bytes(self) -> int:
        """All tables as they are."""
        return sum(w.table.bytes for w in self.works)

    @property
    def rows_a_day(self) -> float:
        """Rows that come a day, in all; 0 where nobody knows."""
        return sum(w.growth or 0.0 for w in self.works)

    @property
    def busy_cores(self) -> float | None:
        """Cores that searches keep busy; None where nobody knows how many there are."""
        known = [w.qps * w.search_ms()[0] / 1000 for w in self.works if w.qps is not None]
        return sum(known) if known else None

    @property
    def short_of_cpu(self) -> bool:
        """Whether searches want more cores than the server should give them."""
        busy, cores = self.busy_cores, self.machine.cores
        return busy is not None and cores is not None and busy > cores * CPU_SHARE

    def rate(self, index: int) -> float:
        """Bytes a day by which indexes grow that are ``index`` bytes together now."""
        each = sum((w.growth or 0.0) * w.index().bytes / w.rows for w in self.works)
        return each * index / max(1, self.index_bytes)

    def memory_days(self, index: int, groups: int = 1) -> float | None:
        """Days until ``index`` bytes of indexes, shared out over ``groups``, fill the servers' memory."""
        pages = self.machine.pages
        return None if pages is None else _days(index, pages * groups, self.rate(index))

    def disk_rate(self) -> float:
        """Bytes a day by which tables and indexes grow."""
        return sum((w.growth or 0.0) * w.table.bytes / w.rows for w in self.works) + self.rate(self.index_bytes)

    def limits(self) -> tuple[Limit, ...]:
        """What is known to be limited."""
        return tuple(self._limits())

    def _limits(self) -> Iterator[Limit]:
        pages, machine = self.machine.pages, self.machine
        if pages is not None:
            rate = self.rate(self.index_bytes)
            formula = (
                f"({MEMORY_SHARE:.0%} of {machine.memory:,} B - indexes {self.index_bytes:,} B) / {rate:,.0f} B a day"
            )
            yield Limit("memory", self.index_bytes, pages, "B", self.memory_days(self.index_bytes), formula)
        if machine.disk is not None:
            used, room = self.index_bytes + self.table_bytes + machine.disk_taken, machine.disk * DISK_SHARE
            rate = self.disk_rate()
            formula = f"({DISK_SHARE:.0%} of {machine.disk:,} B - {used:,} B in use) / {rate:,.0f} B a day"
            yield Limit("disk", used, room, "B", _days(used, room, rate), formula)
        busy = self.busy_cores
        if busy is not None and machine.cores is not None:
            room = machine.cores * CPU_SHARE
            rate = busy * self.rows_a_day / max(1, sum(w.rows for w in self.works))
            formula = (
                f"({CPU_SHARE:.0%} of {machine.cores} cores - {busy:.3g} busy) / {rate:.3g} cores a day, if searches"
                " grow as rows do"
            )
            yield Limit("CPU", busy, room, "cores", _days(busy, room, rate), formula)


def _days(used: float, room: float, rate: float) -> float | None:
    if used >= room:
        return 0.0
    return (room - used) / rate if rate > 0 else None
