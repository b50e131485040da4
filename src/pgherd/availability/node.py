"""A node of the watcher's own machine: looking at it, starting it, fencing it."""

from __future__ import annotations

import logging
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGTERM

from ..local.machine import Machine, Program, WatchedNode
from ..local.processes import Postmaster, Processes, is_alive, is_stopped, remove_tree
from . import children
from .decide import Fenced, Life, OwnNode
from .pulse import Pulse

RESTART_AFTER_S = 0.5
"""How long after a program's start it is started again, should it have ended at once."""
OFTEN_S = 5.0
"""One that ends again and again is started this often."""
SQL_INTERVAL_S = 0.5
LOG_EVERY_S = 2.0
LOG_TAIL_BYTES = 4096
SHUT_DOWN_S = 3.0
STRANGE_S = 2.5
"""A Patroni that finds a server running takes it for another program if the clock was set by 3 s since that started,
and then tries for ever to start one beside it. Source: Patroni 4.1, PostmasterProcess."""
_SHUT_DOWN = (1, 2)
"""DB_SHUTDOWNED and DB_SHUTDOWNED_IN_RECOVERY. Source: PostgreSQL 18, src/include/catalog/pg_control.h."""
_PRIMARY = (1, 3, 4, 6)
"""DB_SHUTDOWNED, DB_SHUTDOWNING, DB_IN_CRASH_RECOVERY, DB_IN_PRODUCTION: what a standby never says."""
_COPYING = ("pg_basebackup", "pg_rewind", "initdb")
log = logging.getLogger("pgherd.watcher")


class Kept:
    """A program that should be running."""

    def __init__(self, program: Program, *, urgent: bool = False) -> None:
        self.program = program
        self.urgent = urgent
        self.pid: int | None = None
        self.processes = Processes(Path(program.directory))
        self._starts: list[float] = []

    def may_start(self, now: float) -> bool:
        """Whether it isn't running, and was not started a moment ago; seldom, if it has ended again and again."""
        if self.pid is not None:
            return False
        recent = [s for s in self._starts if now - s < 3 * OFTEN_S]
        wait_s = OFTEN_S if len(recent) > 3 else RESTART_AFTER_S
        return not recent or now - recent[-1] >= wait_s

    def start(self, owner: tuple[int, int] | None, now: float) -> None:
        """Start it."""
        self._starts = [*self._starts[-5:], now]
        self.pid = children.start(self.program, owner)
        if not self.urgent:
            with suppress(OSError):  # as the watcher itself was started, not as it runs
                os.setpriority(os.PRIO_PROCESS, self.pid, 0)
        log.info("started %s, pid %d", self.program.directory, self.pid)

    def end(self, pid: int) -> bool:
        """Take note that a child has ended; whether it was this one."""
        if pid != self.pid:
            return False
        self.pid = None
        return True


class Node:
    """One node: its Patroni, and the server that Patroni runs."""

    def __init__(self, known: WatchedNode, spec: Machine) -> None:
        assert known.patroni is not None
        assert known.data is not None
        self.known = known
        self.patroni = Kept(known.patroni)
        self.ready = False
        """whether the group is ready for it"""
        self.fenced: Fenced | None = None
        """how it was, if it was fenced and not started since"""
        self.fenced_at = 0.0
        self.look_again = 0.0
        self._owner = spec.owner
        self._data = Path(known.data)
        self._server = Postmaster(self._data)
        self._pid: int | None = None
        self._was_up = False
        self._told: int | None = None
        self._stopped_since: float | None = None
        self._broken_since: float | None = None
        self._behind_since: float | None = None
        self._log_look_again, self._log_size = 0.0, 0
        self._pulse = Pulse(known, spec.sql_user, spec.sql_password, rest=None, interval_s=SQL_INTERVAL_S)
        self._pulse.start()

    @property
    def is_empty(self) -> bool:
        """Whether it holds no rows yet."""
        return not (self._data / "PG_VERSION").exists()

    @property
    def led(self) -> bool:
        """Whether its server ended as a primary, or is one now."""
        return self._state() in _PRIMARY

    def look(self, now: float) -> OwnNode:
        """What is to be seen of it; whether it leads, others know."""
        pid = self._server.pid
        if pid is not None and pid != self._pid:
            self._pid, self._was_up = pid, True
            self._pulse.forget()
            self._pulse.wanted.set()
        patroni, server = _life(self.patroni.pid), _life(pid)
        if Life.STOPPED not in (patroni, server):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        state = self._state() if server is Life.GONE and self._was_up else None
        return OwnNode(
            patroni=patroni,
            server=server,
            was_up=self._was_up,
            clean=state in _SHUT_DOWN,
            led=state in _PRIMARY,
            leads=None,
            stopped_s=0.0 if self._stopped_since is None else now - self._stopped_since,
            silent_s=self._pulse.silent_s if self._pulse.answered else 0.0,
            strange=patroni is Life.GONE and abs(self._server.clock_set_s) > STRANGE_S,
        )

    def broken_s(self, now: float) -> float:
        """How long it has had data without a control file, though nothing was making one."""
        if self.is_empty or self._state() is not None or self.patroni.processes.run(*_COPYING):
            self._broken_since = None
        elif self._broken_since is None:
            self._broken_since = now
        return 0.0 if self._broken_since is None else now - self._broken_since

    def behind_s(self, now: float) -> float:
        """How long its server has said again and again that its primary no longer has the WAL that it needs."""
        if now >= self._log_look_again:
            self._log_look_again = now + LOG_EVERY_S
            size, gone = _wal_is_gone(Path(self.patroni.program.log))
            if not gone or size == self._log_size:
                self._behind_since = None
            elif self._behind_since is None:
                self._behind_since = now
            self._log_size = size
        return 0.0 if self._behind_since is None else now - self._behind_since

    def clear(self) -> None:
        """End all that runs of it, and remove its data: it is copied anew when it is next started."""
        self.fence()
        self.ready = False
        self._broken_since = self._behind_since = None
        remove_tree(self._data)

    def start(self, now: float) -> None:
        """Start Patroni."""
        self.fenced = None
        self.patroni.start(self._owner, now)

    def shut_down(self) -> None:
        """End Patroni, which would start it again, then the server: it ends when standbys hold all that it has written.

        It is given as long as Patroni gives it (``primary_stop_timeout``), then killed.
        """
        self.patroni.processes.kill_keepers()
        self._server.stop("fast", SHUT_DOWN_S)

    def fence(self) -> None:
        """End every process of the node, and return when none is left. Raises LocalServerError if one survives."""
        self.patroni.processes.kill()
        children.reap()
        self.patroni.pid = None
        self._was_up = False
        self._stopped_since = None
        self._pulse.wanted.clear()
        self.fenced_at = time.monotonic()

    def stop(self) -> None:
        """Ask Patroni, which shuts the server down; without Patroni, the server itself."""
        self._pulse.wanted.clear()
        pid = self.patroni.pid
        if pid is not None and pid == self._told:
            return
        self._told = pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGCONT)
                os.kill(pid, SIGTERM)
        elif self._server.is_running():
            self._server.stop("fast", 5)

    def is_running(self) -> bool:
        """Whether anything of it runs."""
        return self.patroni.pid is not None or bool(self.patroni.processes.pids())

    def _state(self) -> int | None:
        """How the server ended, as its control file says; None without one."""
        try:
            with (self._data / "global" / "pg_control").open("rb") as f:
                head = f.read(20)
            return int(struct.unpack("=QIIi", head)[3]) if len(head) == 20 else None
        except OSError:
            return None


def _wal_is_gone(log: Path) -> tuple[int, bool]:
    """How large a server's log is, and whether its last attempt to stream ended so. Its messages are in English.

    Source: PostgreSQL 18, WalSndSegmentOpen in src/backend/replication/walsender.c.
    """
    try:
        with log.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - LOG_TAIL_BYTES))
            tail = f.read()
    except OSError:
        return 0, False
    return size, tail.rfind(b" has already been removed") > tail.rfind(b"started streaming WAL")


def _life(pid: int | None) -> Life:
    if pid is None or not is_alive(pid):
        return Life.GONE
    return Life.STOPPED if is_stopped(pid) else Life.RUNNING


def measured(began: float) -> str:
    """How long something took, for the log."""
    return f"{time.monotonic() - began:.2f} s"
