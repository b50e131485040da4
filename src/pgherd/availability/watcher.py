"""A machine's watcher: keeps its nodes and its member of etcd running, reaps what ends, fences what hangs.

``python -m pgherd.availability.watcher DIRECTORY`` goes into the background once it holds the machine's lock, with a
guard that starts another watcher should this one die; it exits with 3 if another watcher holds the lock. SIGUSR1 stops
the nodes; SIGTERM the nodes, then etcd, then the watcher; SIGHUP has it read again which nodes there are. It is their
parent, and a child subreaper, so that it knows at once when one ends.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..dcs import NAMESPACE, Store
from ..errors import HerdError
from ..local import machine
from ..local.machine import Machine
from . import children, guard, keys
from .ballot import Ballot
from .decide import BROKEN_S, Broken, Fenced, Life, OwnAction, OwnNode, may_be_copied_anew, may_return, on_own
from .logs import trim
from .node import Kept, Node, measured

TICK_S = 0.1
DROP_FOR_S = 2.0
"""How long dropping a leader key is tried; then the node is started all the same, and its key runs out by itself."""
RETURN_TICK_S = 0.3
TRIM_EVERY_S = 60.0
URGENT = -10
"""The priority that a watcher, and etcd, take where they may."""
log = logging.getLogger("pgherd.watcher")


class Watcher:
    """Keeps one machine's programs; :meth:`run` returns when it has been told to stop and all have ended."""

    def __init__(self, directory: Path, spec: Machine) -> None:
        self.directory, self.spec = directory, spec
        self.store: Store = spec.store()
        self.etcd = Kept(spec.etcd, urgent=True) if spec.etcd else None
        self.nodes = [Node(n, spec) for n in spec.nodes if n.patroni]
        self.ballot = Ballot(spec)
        self._leaving: list[Node] = []
        self._trim_at = 0.0
        self._read_again = self._stop_nodes = self._stop_all = False

    def run(self) -> None:
        """Watch until told to stop."""
        wake, alarm = os.pipe()
        os.set_blocking(alarm, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, self._told_to_stop_nodes)
        signal.signal(signal.SIGTERM, self._told_to_stop)
        signal.signal(signal.SIGHUP, self._told_to_read_again)
        for kept in (*([self.etcd] if self.etcd else []), *(n.patroni for n in self.nodes)):
            kept.processes.kill_keepers()  # a watcher before this one left them; servers go on meanwhile
        self.ballot.start()
        while not self._ended():
            try:
                self.step(time.monotonic())
            except HerdError as error:
                log.warning("%s", error.message)
            select.select([wake], [], [], TICK_S)
            with suppress(BlockingIOError):
                os.read(wake, 4096)

    def _told_to_stop_nodes(self, *_: object) -> None:
        self._stop_nodes = True

    def _told_to_stop(self, *_: object) -> None:
        self._stop_nodes = self._stop_all = True

    def _told_to_read_again(self, *_: object) -> None:
        self._read_again = True

    def _follow(self, spec: Machine) -> None:
        """Nodes that are new are tended from now on; those that are no longer there are stopped."""
        wanted = {n.name: n for n in spec.nodes if n.patroni}
        kept = {n.known.name: n for n in self.nodes if n.known.name in wanted}
        self._leaving = [n for n in (*self._leaving, *self.nodes) if n.known.name not in kept and n.is_running()]
        self.nodes = [kept.get(name) or Node(known, spec) for name, known in wanted.items()]
        self.spec = spec
        self.ballot.follow(spec)
        log.info("watching %s", ", ".join(wanted) or "as a witness")

    def step(self, now: float) -> None:
        """Look once, and do what is due."""
        if self._read_again:
            self._read_again = False
            self._follow(machine.read(self.directory))
        for pid in children.reap():
            everybody = (*self.nodes, *self._leaving)
            ended = [k for k in (self.etcd, *(n.patroni for n in everybody)) if k is not None and k.end(pid)]
            for kept in ended:
                log.info("%s ended, pid %d", kept.program.directory, pid)
        if self.etcd is not None and not self._stop_all and self.etcd.may_start(now):
            self.etcd.start(self.spec.owner, now)
        self._leaving = [n for n in self._leaving if n.is_running()]
        for node in self._leaving:
            node.stop()
        for node in self.nodes:
            if self._stop_nodes:
                node.stop()
            elif node.ready or self._make_ready(node):
                self._tend(node, now)
        if now >= self._trim_at:
            self._trim_at = now + TRIM_EVERY_S
            for kept in (*([self.etcd] if self.etcd else []), *(n.patroni for n in self.nodes)):
                trim(Path(kept.program.log), self.spec.owner)
            trim(self.directory / machine.LOG)
        if self._stop_all and self.etcd is not None and self.etcd.pid and not self._nodes_running():
            with suppress(ProcessLookupError):
                os.kill(self.etcd.pid, signal.SIGTERM)

    def _tend(self, node: Node, now: float) -> None:
        if node.fenced is not None:
            if now >= node.look_again and self._may_return(node, node.fenced, now):
                node.start(time.monotonic())
            return
        seen = node.look(now)
        if self._may_be_copied_anew(node, seen, now):
            why = "has no control file" if node.broken_s(now) else "is too far behind: its primary has less WAL"
            log.warning("%s %s; it is copied anew", node.known.name, why)
            node.clear()
            return
        if seen.server is Life.GONE and seen.was_up and (seen.clean or not seen.led):
            seen = replace(seen, leads=self._leads(node))
        action = on_own(seen)
        asked = self.ballot.handover(node.known)
        if action is OwnAction.FENCE and (seen.was_up or node.patroni.may_start(now)):
            self._fence(node, _why(seen))
        elif action is OwnAction.START and node.patroni.may_start(now):
            node.start(now)
        elif asked is not None and seen.server is Life.RUNNING:
            self._hand_over(node, asked)

    def _leads(self, node: Node) -> bool | None:
        if self.ballot.leads(node.known) is False:
            return False
        try:
            entry = keys.leader(self.store, node.known.group)
        except HerdError:
            return None
        return entry is not None and entry.value == node.known.name

    def _hand_over(self, node: Node, asked: keys.Handover) -> None:
        """As if the node had died, only that its server is shut down first; not where nobody could take over."""
        try:
            if keys.heirs(keys.sync(self.store, node.known.group), node.known.name, asked.to):
                log.info("%s hands over to %s", node.known.name, asked.to or "any standby in step")
                node.shut_down()
                self._fence(node, "planned", asked)
            else:
                log.warning("%s can't hand over: %s is not in step", node.known.name, asked.to or "no standby")
        finally:
            self.store.delete(asked.key)

    def _fence(self, node: Node, why: str, asked: keys.Handover | None = None) -> None:
        """Make sure that nothing of the node can write, then let another be elected."""
        began, name, group = time.monotonic(), node.known.name, node.known.group
        to, present = (asked.to, [asked.key]) if asked else (None, [])
        node.fence()
        dropped, heirs = False, 0
        while time.monotonic() - began < DROP_FOR_S:
            with suppress(HerdError):
                entry = keys.leader(self.store, group)
                if entry is None or entry.value != name:
                    break
                sync = keys.sync(self.store, group)
                heirs = len(keys.heirs(sync, name, to))
                if keys.drop_leader(self.store, group, entry, sync, why, self.spec.name, present, to):
                    dropped = True
                    break
        log.info("fenced %s in %s: %s%s", name, measured(began), why, ", dropped its leader key" if dropped else "")
        node.fenced = Fenced(node.led, heirs, known=False, followed=False, rewindable=False, since_s=0.0)

    def _may_return(self, node: Node, fenced: Fenced, now: float) -> bool:
        group = node.known.group
        node.look_again = now + RETURN_TICK_S
        try:
            followed = fenced.led and keys.is_followed(self.store, group, node.known.name)
            runs = followed and keys.primary_runs(self.store, group, since_elected=True)
            fenced = replace(fenced, known=True, followed=followed, rewindable=runs)
        except HerdError:
            fenced = replace(fenced, known=False)
        return may_return(replace(fenced, since_s=now - node.fenced_at))

    def _may_be_copied_anew(self, node: Node, seen: OwnNode, now: float) -> bool:
        runs = seen.server is not Life.GONE
        broken = Broken(node.broken_s(now), node.behind_s(now), runs, followed=False, rewindable=False, heir=False)
        if max(broken.since_s, broken.behind_s) < BROKEN_S or now < node.look_again:
            return False
        node.look_again = now + RETURN_TICK_S
        try:
            entry = keys.leader(self.store, node.known.group)
            followed = entry is not None and entry.value != node.known.name
            led = keys.primary_runs(self.store, node.known.group)
            sync = keys.sync(self.store, node.known.group)
            heir = entry is not None and node.known.name in keys.heirs(sync, entry.value)
        except HerdError:
            return False
        return may_be_copied_anew(replace(broken, followed=followed, rewindable=led, heir=heir))

    def _make_ready(self, node: Node) -> bool:
        """Whether the group has settings, and this node rows or somebody to copy from."""
        try:
            if self.store.get(f"{NAMESPACE}{node.known.group}/config") is None:
                return False
            if node.is_empty and not keys.primary_runs(self.store, node.known.group):
                return False
        except HerdError:
            return False
        node.ready = True
        return True

    def _nodes_running(self) -> bool:
        return any(n.is_running() for n in (*self.nodes, *self._leaving))

    def _ended(self) -> bool:
        return self._stop_all and (self.etcd is None or self.etcd.pid is None) and not self._nodes_running()


def _why(seen: OwnNode) -> str:
    if seen.stopped_s > 0:
        return "frozen"
    if seen.strange:
        return "its Patroni died, and the clock was set since its server started"
    if seen.server is not Life.GONE:
        return "its server does not answer"
    if not seen.was_up:
        return "started again after it had died"
    return "its server died" if seen.patroni is not Life.GONE else "server and Patroni died"


def main() -> int:
    """Take the lock, go into the background, watch."""
    directory = Path(sys.argv[1])
    spec = machine.read(directory)
    lock = machine.hold_lock(directory)
    if lock is None:
        print(f"machine {spec.name} has a watcher already", file=sys.stderr)
        return guard.SECOND_WATCHER
    wait, signed = os.pipe()
    if os.fork():
        os.close(signed)
        os.read(wait, 1)  # or who looks for the watcher next would find the pid of this process
        os._exit(0)
    os.close(wait)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who reads its file now need not read it again
    guard.become_guarded(directory, lock, signed)
    spec = machine.read(directory)  # it may have changed since the watcher before this one
    children.become_subreaper()
    with suppress(OSError):  # a busy machine must not keep it from acting; only root may
        os.setpriority(os.PRIO_PROCESS, 0, URGENT)
    watcher = Watcher(directory, spec)
    log.info("watching %s: %s", spec.name, ", ".join(n.known.name for n in watcher.nodes) or "a witness")
    watcher.run()
    log.info("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
