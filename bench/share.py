"""A share of a processor for each server, as if it had a machine of its own: by control groups, where they may be made.

Source: the Linux kernel's documentation of CFS bandwidth control, and of cgroup v2 (cpu.max).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .processors import children

V1, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PERIOD_US = 10_000
LEFT_OUT = "servers with a share of a processor each: control groups can't be made here (root on Linux can)"


def possible() -> bool:
    """Whether shares can be given out here."""
    with suppress(OSError), _group("probe", 0.5):
        return True
    return False


@contextmanager
def each(postmasters: Iterable[int], share: float) -> Iterator[None]:
    """``share`` of a processor for each of these servers, with the sessions that it has and will have."""
    with ExitStack() as stack:
        for pid in postmasters:
            procs = stack.enter_context(_group(str(pid), share))
            for process in (pid, *children(pid)):
                with suppress(OSError):  # a session that has ended just now
                    procs.write_text(str(process))
        yield


@contextmanager
def _group(name: str, share: float) -> Iterator[Path]:
    """Where a process is written to be held to ``share``; in the end its processes are let go."""
    v1 = (V1 / "cpu.cfs_quota_us").exists() or (V1 / "tasks").exists()
    root = V1 if v1 else V2
    if not v1:
        (V2 / "cgroup.subtree_control").write_text("+cpu")
    group = root / f"pgherd-bench-{os.getpid()}-{name}"
    group.mkdir()
    try:
        quota = str(int(PERIOD_US * share))
        if v1:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(quota)
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        yield group / "cgroup.procs"
    finally:
        for process in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (root / "cgroup.procs").write_text(process)
        group.rmdir()
