"""The herd that a drill stands on: a group's nodes, who is primary, what runs where, whether it is redundant again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from .. import herdfile
from ..engines.open import open_home
from ..engines.servers.standing import Standing, standing_of
from ..engines.servers.whereabouts import Whereabouts
from ..errors import BadInput, DrillFailed, DrillRefused, GroupUnavailable, HerdError
from ..herdfile import HerdNode
from ..local import machine, passfile
from ..local.layout import NODES
from ..local.processes import Postmaster, Processes
from ..local.replicas import Replicas
from ..model.topology import Group, Node, Role
from . import keys
from .switchover import switchover

POLL_S = 0.05
REDUNDANT_TIMEOUT_S = 120.0
IN_STEP_BYTES = 1 << 20
"""How far a standby may be behind and count as there again."""


class Ground:
    """One replicated group of the herd in ``home``; the first group unless another is named.

    Raises DrillRefused for a group of one node, and for attached servers unless ``break_production``.
    """

    def __init__(self, home: Path, group: str | None, *, break_production: bool = False) -> None:
        self.home = home.expanduser().resolve()
        self.file = herdfile.read(self.home)
        self.group = self._chosen(group)
        if len(self.group.nodes) < 2:
            raise DrillRefused(
                f"group {self.group.name} has one node: when it is lost, nothing takes over",
                hint="make a herd with standbys: pgherd up --replicas 3 --home DIR",
            )
        self.is_local = all(n.data_directory is not None for n in self.members)
        """whether its processes are this machine's; of attached servers only what SQL and Patroni say is known"""
        if not self.is_local and not break_production:
            raise DrillRefused(
                f"the servers of group {self.group.name} are attached: others may depend on them",
                hint="--yes-break-production drills there all the same: it writes to a schema of its own, pgherd_drill,"
                " in their database, and lets Patroni switch the group over",
            )
        login = self.file.parameters(self.file.user)
        if self.file.passfile:
            login["passfile"] = self.file.passfile
        self.whereabouts = Whereabouts(login, self.file.groups())
        if self.is_local:
            node = self.file.nodes[0]
            path = Path(self.file.passfile or "")
            password = passfile.lookup(path, node.host, node.port, self.file.dbname, self.file.user) or ""
            self.replicas = Replicas(self.home, self.file, password)
            self.store = machine.read(self.replicas.directory(self.replicas.machines[0])).store()
        self.enter: Callable[[str], None] | None = None
        """puts the calling thread onto the machine of a node, where machines have networks of their own"""

    def close(self) -> None:
        """Hang up on etcd."""
        if self.is_local:
            self.store.close()

    def _chosen(self, name: str | None) -> Group:
        groups = self.file.groups()
        for group in groups:
            if name is None or group.name == name:
                return group
        raise BadInput(f"there is no group {name!r}", hint="groups: " + ", ".join(g.name for g in groups))

    def join(self) -> None:
        """See that the herd is one, and whole, before it is broken. Raises GroupUnavailable."""

        async def opened() -> None:
            await (await open_home(self.home)).close()

        asyncio.run(opened())
        self.await_redundant(60)

    # Who is there

    def node(self, name: str) -> HerdNode:
        """The group's node of that name."""
        return next(n for n in self.file.nodes if n.name == name)

    @property
    def members(self) -> list[HerdNode]:
        """The group's nodes."""
        return [n for n in self.file.nodes if n.group == self.group.name]

    def name_of(self, address: str | None) -> str | None:
        """The node at ``host:port``."""
        return next((n.name for n in self.file.nodes if f"{n.host}:{n.port}" == address), address)

    def primary(self, timeout_s: float = 30) -> HerdNode:
        """The node that is primary now. Raises GroupUnavailable."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(psycopg.Error), self.connect() as connection:
                name = self.name_of(f"{connection.info.host}:{connection.info.port}")
                return next(n for n in self.members if n.name == name)
            time.sleep(POLL_S)
        raise GroupUnavailable(f"group {self.group.name} has no primary", hint="pgherd status; pgherd up")

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the primary."""
        return self.whereabouts.connect_now(self.group.name, autocommit=True)

    def connect_to(self, node: Node) -> psycopg.Connection[Any]:
        """A connection to one node, whatever it is."""
        options = {**self.whereabouts.conninfo_of(node), "connect_timeout": 2, "application_name": "pgherd drill"}
        return psycopg.Connection.connect(**options, autocommit=True)

    # What runs where

    def server(self, node: HerdNode) -> Postmaster:
        """The node's PostgreSQL."""
        return Postmaster(Path(node.data_directory or ""))

    def processes(self, node: HerdNode) -> Processes:
        """All that runs for the node: Patroni, PostgreSQL, tools."""
        return Processes(self.home / NODES / node.name)

    def etcd(self, name: str) -> Processes:
        """A machine's member of etcd."""
        return Processes(self.replicas.directory(name) / machine.ETCD)

    def watcher(self, name: str) -> int | None:
        """The pid of a machine's watcher."""
        return machine.watcher_pid(self.replicas.directory(name))

    def on(self, name: str) -> list[HerdNode]:
        """The nodes, of any group, on a machine."""
        return [n for n in self.file.nodes if n.machine == name]

    # How it is

    def standing(self) -> list[Standing]:
        """How the group's nodes stand."""
        return asyncio.run(standing_of(self.whereabouts, self.group))

    def lacks(self) -> str | None:
        """What the group lacks to be redundant, in words; None if nothing."""
        found = self.standing()
        for s in found:
            if not s.up:
                return f"{s.name} is down"
        primaries = [s for s in found if s.role is Role.PRIMARY]
        if len(primaries) != 1:
            return f"there are {len(primaries)} primaries"
        for s in found:
            if s.timeline != primaries[0].timeline:
                return f"{s.name} is on timeline {s.timeline}, the primary on {primaries[0].timeline}"
            if s.role is Role.STANDBY and (s.lag_bytes is None or s.lag_bytes > IN_STEP_BYTES):
                return f"{s.name} is behind"
            if s.role is Role.STANDBY and s.sync is None:
                return f"{s.name} is not streaming from {primaries[0].name}"
        return self._takeover_lacks(primaries[0].name, len(found)) if self.is_local else None

    def _takeover_lacks(self, primary: str, nodes: int) -> str | None:
        """What a failover would lack: standbys in step, etcd, watchers."""
        try:
            heirs = len(keys.heirs(keys.sync(self.store, str(self.group.name)), primary))
        except HerdError as error:
            return error.message
        if heirs < min(2, nodes - 1):
            return f"{heirs} standbys may take over"
        for member in self.file.etcd:
            if not self.store.is_healthy((member.host, member.client_port)):
                return f"etcd on {member.name} is not healthy"
        return next((f"{m} has no watcher" for m in self.replicas.machines if self.watcher(m) is None), None)

    def await_redundant(self, timeout_s: float = REDUNDANT_TIMEOUT_S) -> float:
        """Wait until nothing is lacking; how long it took. Raises DrillFailed saying what is."""
        began = time.monotonic()
        while (lacking := self.lacks()) is not None:
            if time.monotonic() - began > timeout_s:
                raise DrillFailed(
                    f"group {self.group.name} is not redundant after {timeout_s:.0f} s: {lacking}",
                    hint="pgherd status, and the logs in nodes/ and machines/ of its home",
                )
            time.sleep(POLL_S)
        return time.monotonic() - began

    def await_that(self, what: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something; whether it came."""
        deadline = time.monotonic() + timeout_s
        while not what():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def switch_over(self, to: HerdNode | None = None) -> None:
        """Make a standby primary, in an orderly way."""
        if to is None or to.name != self.primary().name:
            switchover(self.home, str(self.group.name), to.name if to else None)
