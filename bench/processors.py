"""CPU time of servers and of this process, as the operating system counts it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
REAPED_S = 0.1
"""A session that ends just now is its postmaster's child no more, or is not counted among those that ended yet."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of ``/proc/<pid>/stat`` that count. Source: proc(5)."""

    parent: int
    own_s: float
    waited_s: float
    """of children that have ended and were waited for"""


def stat(pid: int) -> Stat | None:
    """None once the process is gone, or where there is no ``/proc``."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    user, system, waited_user, waited_system = (int(f) / _TICKS for f in fields[11:15])
    return Stat(int(fields[1]), user + system, waited_user + waited_system)


def children(pid: int) -> list[int]:
    """The processes whose parent it is."""
    pids = (int(p.name) for p in Path("/proc").glob("[0-9]*"))
    return [p for p in pids if (found := stat(p)) is not None and found.parent == pid]


def servers_s(postmasters: Iterable[int]) -> float:
    """Seconds that these servers have used: the postmasters, their children, and children that have ended."""
    stats = [(int(p.name), stat(int(p.name))) for p in Path("/proc").glob("[0-9]*")]
    wanted = set(postmasters)
    total = 0.0
    for pid, found in stats:
        if found is not None and pid in wanted:
            total += found.own_s + found.waited_s
        elif found is not None and found.parent in wanted:
            total += found.own_s
    return total


@dataclass(slots=True)
class Meter:
    """``with Meter(pids) as m``: seconds that passed, and CPU seconds of this process and of the servers meanwhile."""

    postmasters: tuple[int, ...]
    seconds: float = 0.0
    client_s: float = 0.0
    server_s: float = 0.0

    def __enter__(self) -> Meter:
        self.server_s = -servers_s(self.postmasters)
        self.client_s = -time.process_time()
        self.seconds = -time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.client_s += time.process_time()
        time.sleep(REAPED_S)
        self.server_s += servers_s(self.postmasters)
