"""A machine's watcher: keeps its nodes and its member of etcd running, and reaps what ends.

``python -m pgherd.availability.watcher DIRECTORY`` goes into the background once it holds the machine's lock; it exits
with 3 if another watcher does. SIGUSR1 stops the nodes; SIGTERM the nodes, then etcd, then the watcher.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from ..dcs import NAMESPACE, Store
from ..errors import HerdError
from ..local import machine
from ..local.machine import Machine, WatchedNode
from ..local.processes import Postmaster, Processes
from . import children

TICK_S = 0.05
RESTART_AFTER_S = 0.5
"""How long after a program's start it is started again, should it have ended at once."""
SECOND_WATCHER = 3
log = logging.getLogger("pgherd.watcher")


class Kept:
    """A program that should be running."""

    def __init__(self, program: machine.Program) -> None:
        self.program = program
        self.pid: int | None = None
        self.started_at = -RESTART_AFTER_S
        self.processes = Processes(Path(program.directory))

    def may_start(self, now: float) -> bool:
        """Whether it isn't running, and was not started a moment ago."""
        return self.pid is None and now - self.started_at >= RESTART_AFTER_S


class Watcher:
    """Keeps one machine's programs; :meth:`run` returns when it has been told to stop and all have ended."""

    def __init__(self, spec: Machine) -> None:
        self.spec = spec
        self.store: Store = spec.store()
        self.etcd = Kept(spec.etcd) if spec.etcd else None
        self.nodes = {n.name: (n, Kept(n.patroni)) for n in spec.nodes if n.patroni}
        self._stop_nodes = self._stop_all = False
        self._open: set[str] = set()

    def run(self) -> None:
        """Watch until told to stop."""
        wake, alarm = os.pipe()
        os.set_blocking(alarm, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, self._told_to_stop_nodes)
        signal.signal(signal.SIGTERM, self._told_to_stop)
        for kept in (*([self.etcd] if self.etcd else []), *(k for _, k in self.nodes.values())):
            kept.processes.kill_keepers()  # a watcher before this one left them; servers go on meanwhile
        while not self._ended():
            self.step(time.monotonic())
            select.select([wake], [], [], TICK_S)
            with suppress(BlockingIOError):
                os.read(wake, 4096)

    def _told_to_stop_nodes(self, *_: object) -> None:
        self._stop_nodes = True

    def _told_to_stop(self, *_: object) -> None:
        self._stop_nodes = self._stop_all = True

    def step(self, now: float) -> None:
        """Look once, and do what is due."""
        for pid in children.reap():
            self._ended_child(pid)
        if self.etcd is not None and not self._stop_all and self.etcd.may_start(now):
            self._start(self.etcd, now)
        for node, kept in self.nodes.values():
            if self._stop_nodes:
                self._stop(node, kept)
            elif kept.may_start(now) and self._is_open(node):
                self._start(kept, now)
        if self._stop_all and self.etcd is not None and self.etcd.pid and not self._nodes_running():
            with suppress(ProcessLookupError):
                os.kill(self.etcd.pid, signal.SIGTERM)

    def _start(self, kept: Kept, now: float) -> None:
        kept.started_at = now
        kept.pid = children.start(kept.program, self.spec.owner)
        log.info("started %s, pid %d", kept.program.directory, kept.pid)

    def _stop(self, node: WatchedNode, kept: Kept) -> None:
        if kept.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(kept.pid, signal.SIGCONT)
                os.kill(kept.pid, signal.SIGTERM)
        elif node.data and (server := Postmaster(Path(node.data))).is_running():
            server.stop("fast", 5)

    def _is_open(self, node: WatchedNode) -> bool:
        """Whether the group is ready for this node: it has settings, and this node rows or somebody to copy from."""
        if node.name in self._open:
            return True
        try:
            key = f"{NAMESPACE}{node.group}/"
            if self.store.get(key + "config") is None:
                return False
            if children.is_empty(str(node.data)) and not self._has_primary(key):
                return False
        except HerdError:
            return False
        self._open.add(node.name)
        return True

    def _has_primary(self, prefix: str) -> bool:
        """Whether there is somebody to copy from: a backup that begins before a promotion is of no use after it."""
        leader = self.store.get(prefix + "leader")
        member = self.store.get(f"{prefix}members/{leader.value}") if leader else None
        if member is None or self.store.get(prefix + "initialize") is None:
            return False
        state = json.loads(member.value)
        return bool(state.get("role") == "primary" and state.get("state") == "running")

    def _ended_child(self, pid: int) -> None:
        for kept in (*([self.etcd] if self.etcd else []), *(k for _, k in self.nodes.values())):
            if kept.pid == pid:
                log.info("%s ended, pid %d", kept.program.directory, pid)
                kept.pid = None

    def _nodes_running(self) -> bool:
        return any(k.pid is not None or k.processes.pids() for _, k in self.nodes.values())

    def _ended(self) -> bool:
        return self._stop_all and (self.etcd is None or self.etcd.pid is None) and not self._nodes_running()


def main() -> int:
    """Take the lock, go into the background, watch."""
    directory = Path(sys.argv[1])
    spec = machine.read(directory)
    lock = machine.hold_lock(directory)
    if lock is None:
        print(f"machine {spec.name} has a watcher already", file=sys.stderr)
        return SECOND_WATCHER
    if os.fork():
        os._exit(0)
    machine.sign(lock)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    children.become_subreaper()
    watcher = Watcher(spec)
    log.info("watching %s: %s", spec.name, ", ".join(watcher.nodes) or "a witness")
    watcher.run()
    log.info("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
