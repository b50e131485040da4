"""A watcher's guard: its parent, which starts another watcher when one dies, and reaps what that one leaves.

It holds no lock and does nothing else, so that nothing is likely to end it; whoever wants a machine gone ends it, too
(:func:`pgherd.local.machine.kill_watcher`).
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from ..local import machine
from . import children

SECOND_WATCHER = 3
"""The exit status of a watcher that finds another one at work; no guard starts one after that."""
SHORT_S = 60.0
"""A watcher that ended sooner is followed by another one only after a pause: perhaps what ended it is still there."""
PAUSE_S = 5.0
log = logging.getLogger("pgherd.watcher")


def become_guarded(directory: Path, lock: int, signed: int) -> None:
    """Return in the watcher, which holds the machine's ``lock``, and in each that follows it; never in the guard.

    ``signed`` is closed when the lock has the watcher's pid in it.
    """
    children.become_subreaper()
    first = True
    while True:
        began = time.monotonic()
        watcher = os.fork()
        if watcher == 0:
            break
        if first:
            first = False
            os.close(signed)
            os.close(lock)  # it goes with the watcher that holds it
        status = _wait(watcher)
        if status in (0, SECOND_WATCHER):
            os._exit(0)
        log.warning("the watcher, pid %d, ended with %d; another one is started", watcher, status)
        if time.monotonic() - began < SHORT_S:
            time.sleep(PAUSE_S)
    if first:
        machine.sign(lock)
        os.close(signed)
    elif machine.hold_lock(directory) is None:
        os._exit(SECOND_WATCHER)


def _wait(watcher: int) -> int:
    """The exit status of the watcher, a signal as a negative number; servers that it left are reaped meanwhile."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == watcher:
            return os.waitstatus_to_exitcode(status)
