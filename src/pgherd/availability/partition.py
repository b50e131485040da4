"""The primary's machine is cut off from everyone: other machines, etcd, clients. What is on it goes on among itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from ..herdfile import HerdNode
from .crossing import Address, Crossing, is_possible
from .faults import Fault, OnWrite

STOP_TIMEOUT_S = 60.0


class Partition(Fault):
    """One machine lives in a network namespace while the drill lasts, and leads whenever it is cut off."""

    name = "partition"
    heals = False

    def prepare(self) -> None:
        """Move a standby's machine into a namespace of its own, where that may be made."""
        self.crossing: Crossing | None = None
        self.machine = ""
        if not is_possible():
            self.how = "SIGSTOP to all processes of the primary's machine (no network namespaces without root on Linux)"
            return
        self.how = "a network namespace: nothing passes between the primary's machine and all others, clients included"
        primary = self.ground.primary()
        self.victim = next(n for n in self.ground.members if n.machine != primary.machine)
        self.machine = self.victim.machine
        self._stop()
        inside, outside = self._addresses()
        self.crossing = Crossing(inside, outside)
        self.crossing.run_inside(self.ground.replicas.start_watchers)
        self.ground.enter = self.enter
        self.ground.await_redundant()

    def arm(self) -> None:
        """Let the machine in the namespace lead."""
        if self.crossing is not None:
            self.ground.switch_over(self.victim)
            self.ground.await_redundant()

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Cut it off."""
        primary = self.ground.primary()
        if self.crossing is not None:
            self.crossing.cut()
        else:
            self.machine = primary.machine
            self._signal(signal.SIGSTOP)
        return [primary.name]

    def mend(self) -> None:
        """Let it be reached again."""
        if self.crossing is not None:
            self.crossing.join()
        elif self.machine:
            self._signal(signal.SIGCONT)

    def finish(self) -> None:
        """Bring the machine back among the others."""
        if self.crossing is None:
            return
        try:
            self._stop()
        finally:
            self.crossing.close()
            self.ground.enter = None
            self.ground.replicas.start_watchers()
        self.ground.await_redundant()

    def enter(self, name: str) -> None:
        """Put the calling thread where the node is, so that it can ask a primary that nobody else reaches."""
        if self.crossing is not None and self.ground.node(name).machine == self.machine:
            self.crossing.enter()

    def _stop(self) -> None:
        """Stop all that runs on the machine, in an orderly way."""
        if (pid := self.ground.watcher(self.machine)) is not None:
            os.kill(pid, signal.SIGTERM)
        self.ground.await_that(lambda: self.ground.watcher(self.machine) is None, STOP_TIMEOUT_S)
        for node in self.ground.on(self.machine):
            self.ground.processes(node).kill()
        self.ground.etcd(self.machine).kill()

    def _signal(self, number: signal.Signals) -> None:
        pid = self.ground.watcher(self.machine)
        if pid is not None:
            os.kill(pid, number)
        for node in self.ground.on(self.machine):
            self.ground.processes(node).signal(number)
        self.ground.etcd(self.machine).signal(number)

    def _addresses(self) -> tuple[list[Address], list[Address]]:
        inside: list[Address] = []
        outside: list[Address] = []
        for node in self.ground.file.nodes:
            side = inside if node.machine == self.machine else outside
            side += [(node.host, node.port), (node.host, _rest(node))]
        for member in self.ground.file.etcd:
            side = inside if member.name == self.machine else outside
            side += [(member.host, member.client_port), (member.host, member.peer_port)]
        return inside, outside


def _rest(node: HerdNode) -> int:
    assert node.rest_port is not None
    return node.rest_port
