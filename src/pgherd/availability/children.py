"""Programs that a watcher keeps running: started as its children, reaped the moment they end.

A watcher is a child subreaper: servers, which Patroni leaves to themselves, become its children, too. A dead postmaster
that nobody reaps looks alive to Patroni, which then never lets a standby take over.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from ..local.machine import Program

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans of this process's descendants become its children. Source: Linux manual, prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def start(program: Program, owner: tuple[int, int] | None) -> int:
    """Start a program in a session of its own; its pid."""
    process = program.start(owner)
    process.returncode = 0  # reaped by `reap`, with all the others
    return process.pid


def reap() -> list[int]:
    """The children that have ended since the last call."""
    ended: list[int] = []
    with suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append(pid)
    return ended
