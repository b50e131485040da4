"""What a drill breaks, and how it is put right. Each fault is told by name; nothing here measures."""

from __future__ import annotations

import os
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from ..errors import DrillRefused, LocalServerError
from ..herdfile import HerdNode
from ..local import machine
from ..local.replicas import limit_files
from .ground import Ground

ETCD_GONE_S = 8.0
SECOND_WITHIN_S = (0.05, 1.0)
FIRST_WRITE_TIMEOUT_S = 60.0

OnWrite = Callable[[str], bool]
"""Whether somebody but the node named has acknowledged a write since it was broken."""


class Fault(ABC):
    """One kind of break. ``how`` says by which means; ``heals``: the group mends itself, nobody has to lend a hand."""

    name: ClassVar[str]
    how: str = ""
    heals: ClassVar[bool] = True
    from_outside: ClassVar[bool] = False
    """whether attached servers can be broken this way: no process of theirs is within reach"""

    def __init__(self, ground: Ground, chance: random.Random) -> None:
        self.ground = ground
        self.chance = chance

    def check_reach(self) -> None:
        """Refuse what takes the servers' processes where they are out of reach."""
        if not self.ground.is_local and not self.from_outside:
            raise DrillRefused(
                f"{self.name} takes the servers' processes, and those of group {self.ground.group.name} are attached:"
                " pgherd can't reach them",
                hint="drills that can be done from outside: switchover; all others on a local herd of the same shape"
                " (pgherd up --replicas 3)",
            )

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Before the clients start: refuse what can't be done here, set up what it takes."""

    def arm(self) -> None:  # noqa: B027
        """Before each round's clients start."""

    @abstractmethod
    def strike(self, written: OnWrite) -> Sequence[str]:
        """Break it; the nodes that were hit, the primary first."""

    def mend(self) -> None:  # noqa: B027
        """Put right what was broken; harmless if nothing was."""

    def finish(self) -> None:  # noqa: B027
        """After the last round: undo what :meth:`prepare` did."""


class KillServer(Fault):
    """The primary's postmaster dies, its children with it."""

    name = "kill-server"
    how = "SIGKILL to the primary's postmaster"

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Kill it."""
        primary = self.ground.primary()
        pid = self.ground.server(primary).pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return [primary.name]


class KillNode(Fault):
    """All of the primary's node dies: Patroni and PostgreSQL."""

    name = "kill-node"
    how = "SIGKILL to all processes of the primary's node"

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Kill it."""
        primary = self.ground.primary()
        self.ground.processes(primary).kill()
        return [primary.name]


class SecondFailure(Fault):
    """The primary's node dies, and soon after the first write on the new primary, that one's."""

    name = "second-failure"
    how = "SIGKILL to the primary's node, and to the new primary's within a second of its first write"

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Kill both."""
        first = self.ground.primary()
        self.ground.processes(first).kill()
        self.ground.await_that(lambda: written(first.name), FIRST_WRITE_TIMEOUT_S)
        second = self.ground.primary()
        self.ground.await_that(lambda: False, self.chance.uniform(*SECOND_WITHIN_S))
        self.ground.processes(second).kill()
        return [first.name, second.name]


class Freeze(Fault):
    """All of the primary's node stands still, its connections open: a hung disk, a paused machine."""

    name = "freeze"
    how = "SIGSTOP to all processes of the primary's node"

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Freeze it."""
        primary = self.ground.primary()
        self.ground.processes(primary).signal(signal.SIGSTOP)
        return [primary.name]

    def mend(self) -> None:
        """Let whatever is left of it go on."""
        for node in self.ground.members:
            self.ground.processes(node).signal(signal.SIGCONT)


class LoseMachines(Fault):
    """Machines are gone, with all that is on them: nodes, etcd, watchers. They come back when the drill says so."""

    heals = False

    def prepare(self) -> None:
        """Refuse where nothing would be left to take over."""
        hit = self.machines(self.ground.primary())
        if all(n.machine in hit for n in self.ground.members):
            raise DrillRefused(
                f"all nodes of group {self.ground.group.name} are there: nothing would be left to take over",
                hint="a group that spans regions: pgherd up --group main=us-east,us-central,us-west",
            )
        left = [m for m in self.ground.file.etcd if m.name not in hit]
        if 2 * len(left) <= len(self.ground.file.etcd):
            raise DrillRefused(
                "most members of etcd are there: without a majority nobody is elected",
                hint="spread the herd over three zones or regions",
            )

    @abstractmethod
    def machines(self, primary: HerdNode) -> list[str]:
        """Which machines are lost, given the primary."""

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Kill all that runs on them, watchers first."""
        primary = self.ground.primary()
        hit = self.machines(primary)
        for name in hit:
            machine.kill_watcher(self.ground.replicas.directory(name))
        for name in hit:
            for node in self.ground.on(name):
                self.ground.processes(node).kill()
            self.ground.etcd(name).kill()
        return [primary.name, *(n.name for m in hit for n in self.ground.on(m) if n.name != primary.name)]

    def mend(self) -> None:
        """Start the machines' watchers again, as their boot would."""
        self.ground.replicas.start_watchers()


class KillHost(LoseMachines):
    """The primary's machine is gone."""

    name = "kill-host"
    how = "SIGKILL to all processes of the primary's machine: watcher, etcd, nodes"

    def machines(self, primary: HerdNode) -> list[str]:
        """The primary's."""
        return [primary.machine]


class LoseZone(LoseMachines):
    """The primary's zone is gone."""

    name = "lose-zone"
    how = "SIGKILL to all processes of all machines of the primary's zone"

    def machines(self, primary: HerdNode) -> list[str]:
        """All of its zone."""
        place = primary.label
        return _machines(self.ground, f"{place.cloud}.{place.region}.{place.zone}")


class LoseRegion(LoseMachines):
    """The primary's region is gone."""

    name = "lose-region"
    how = "SIGKILL to all processes of all machines of the primary's region"

    def machines(self, primary: HerdNode) -> list[str]:
        """All of its region."""
        return _machines(self.ground, f"{primary.label.cloud}.{primary.label.region}.")


class LoseEtcd(Fault):
    """One member of etcd, of the primary's machine if it has one, says nothing for eight seconds."""

    name = "lose-etcd"
    how = "SIGSTOP to one member of etcd for 8 s"
    heals = False

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Freeze it, as a watcher would start a dead one again."""
        primary = self.ground.primary()
        members = [m.name for m in self.ground.file.etcd]
        for name in self.hit(primary, members):
            self.ground.etcd(name).signal(signal.SIGSTOP)
        self.ground.await_that(lambda: False, ETCD_GONE_S)
        return [primary.name]

    def hit(self, primary: HerdNode, members: list[str]) -> list[str]:
        """Which members."""
        return [primary.machine if primary.machine in members else members[0]]

    def mend(self) -> None:
        """Let it go on."""
        for member in self.ground.file.etcd:
            self.ground.etcd(member.name).signal(signal.SIGCONT)


class LoseAllEtcd(LoseEtcd):
    """All of etcd says nothing for eight seconds."""

    name = "lose-all-etcd"
    how = "SIGSTOP to all members of etcd for 8 s"

    def hit(self, primary: HerdNode, members: list[str]) -> list[str]:
        """All."""
        return members


class DiskFull(Fault):
    """The primary's server can't write another byte to any file, nor can the one that is started in its place."""

    name = "disk-full"
    how = (
        "a file size limit (RLIMIT_FSIZE) on all processes of the primary's node: every write fails, as on a full disk"
    )
    heals = False

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Set the limit, also for what they start."""
        primary = self.ground.primary()
        limit_files(self.ground.processes(primary).pids(), "1")
        return [primary.name]

    def mend(self) -> None:
        """Make room again."""
        for node in self.ground.members:
            limit_files(self.ground.processes(node).pids(), "unlimited")


class Switchover(Fault):
    """A standby becomes primary, as planned; any that is in step."""

    name = "switchover"
    how = "a planned switchover"
    from_outside = True

    def strike(self, written: OnWrite) -> Sequence[str]:
        """Ask for it."""
        primary = self.ground.primary()
        self.ground.switch_over()
        return [primary.name]


def _machines(ground: Ground, prefix: str) -> list[str]:
    found = [m for m in ground.replicas.machines if f"{m}.".startswith(prefix) or m.startswith(prefix)]
    if not found:
        raise LocalServerError(f"no machine is in {prefix}")
    return found
