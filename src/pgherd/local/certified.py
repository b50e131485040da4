"""Who has certificates on this machine, and how they take up new ones while they run.

Servers and Patroni read theirs again when they are told to, etcd does by itself. Whom etcd trusts it reads only once,
so its members are started anew for that, one after the other: two of three are enough for the others to go on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Container
from contextlib import closing, suppress
from pathlib import Path

from cryptography.x509 import Certificate

from ..errors import LocalServerError
from ..herdfile import EtcdMember, HerdFile, HerdNode
from . import certificates, machine
from .certificates import Holder
from .layout import NODES
from .presented import presented
from .processes import Postmaster, Processes
from .replicas import Replicas
from .user import ServerUser

_TAKE_UP_S = 30.0
_POLL_S = 0.1


class Certified:
    """The local nodes of ``herd``, and the machines of those with standbys."""

    def __init__(self, home: Path, herd: HerdFile, user: ServerUser) -> None:
        self.home, self.herd, self.user = home, herd, user
        self._nodes = [n for n in herd.nodes if n.data_directory is not None]
        self._replicas = Replicas(home, herd, "")
        self._mutual = herd.mutual_tls

    def holders(self) -> list[Holder]:
        """Whose certificates are made here."""
        return [*(Holder(n.name, n.host, self._directory(n)) for n in self._nodes), *self._replicas.holders()]

    def ensure(self, *, again: bool = False) -> list[str]:
        """Certificates for all, see :func:`certificates.ensure`; servers that run take them up at once."""
        holders = self.holders()
        for directory in {h.directory.parent for h in holders}:  # nodes, and those of machines
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if self._nodes:
            (self.home / NODES).chmod(0o711 if self.user.drops else 0o700)
        changed = {h.name for h in certificates.ensure(self.home, holders, self.user, again=again)}
        self.reload(changed)
        return [h.name for h in holders if h.name in changed]

    def reload(self, names: Container[str]) -> None:
        """Have servers, and their Patronis, read their certificates, and whom to trust."""
        for node in (n for n in self._nodes if n.name in names):
            Postmaster(self._directory(node) / "data").reload()
            for pid in Processes(self._directory(node)).keepers() if self._mutual else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGHUP)

    def renew(self, *, ca: bool) -> int:
        """New ones for all, with ``ca`` of a new CA; how many former CAs are trusted no longer.

        Killed anywhere, it can be called again; killed after forgetting, etcd trusts a former CA until its next start.
        Raises LocalServerError, UnsafeSetting.
        """
        if self._mutual:
            self._check_watched()
        if ca:
            certificates.renew_ca(self.home, self.holders(), self.user, self._trust_again)
        self._renew()
        if ca:
            return 0
        forgotten = certificates.forget_former(self.home, self.holders(), self.user)
        if forgotten:
            self._trust_again()
        return forgotten

    def _renew(self) -> None:
        self.ensure(again=True)
        for node in self._nodes:
            self.await_shown(node)

    def _trust_again(self) -> None:
        """Have those who check clients' certificates trust whom the files say now."""
        if self._mutual:
            self._renew()  # Patroni reads both when its certificate is another one
            for member in self.herd.etcd:
                self._restart(member)

    def await_shown(self, node: HerdNode) -> None:
        """Wait until a server, and its Patroni, show what is in their file; who is down reads it when it starts."""
        path = self._directory(node) / certificates.SERVER
        wanted = certificates.read_issued(path, "the server's key").certificate
        server, patroni = Postmaster(self._directory(node) / "data"), Processes(self._directory(node))
        self._await(node.name, wanted, server.is_running, lambda: presented(node.host, node.port), server.reload)
        if self._mutual:
            port = node.rest_port or 0
            self._await(
                f"Patroni of {node.name}",
                wanted,
                lambda: bool(patroni.keepers()),
                lambda: presented(node.host, port, postgres=False, own=str(path)),
                lambda: None,  # it was told, or is just starting
            )

    def _await(
        self,
        what: str,
        wanted: Certificate,
        runs: Callable[[], bool],
        shown: Callable[[], Certificate | None],
        tell: Callable[[], None],
    ) -> None:
        deadline = time.monotonic() + _TAKE_UP_S
        while runs() and shown() != wanted:
            if time.monotonic() > deadline:
                raise LocalServerError(
                    f"{what} does not take up its new certificate", hint=f"see the logs in {self.home}; then again"
                )
            tell()
            time.sleep(_POLL_S)

    def _check_watched(self) -> None:
        for name in self._replicas.machines:
            directory = self._replicas.directory(name)
            if Processes(directory).keepers() and machine.watcher_pid(directory) is None:
                raise LocalServerError(
                    f"machine {name} has no watcher, who would start its etcd again", hint="pgherd up; then again"
                )

    def _restart(self, member: EtcdMember) -> None:
        """End a member of etcd that runs, so that its watcher starts it anew; wait until it takes part again.

        Killed, it breaks off connections, and Patroni asks another member; one that shuts down answers with errors, for
        which a primary gives up.
        """
        processes = Processes(self._replicas.directory(member.name))
        runs = bool(processes.keepers())
        processes.kill_keepers()
        deadline = time.monotonic() + _TAKE_UP_S
        with closing(machine.read(self._replicas.directory(member.name)).store()) as store:
            while runs and not store.is_healthy((member.host, member.client_port)):
                if time.monotonic() > deadline:
                    raise LocalServerError(
                        f"etcd on {member.name} did not come back", hint=f"see {processes.directory}; then again"
                    )
                time.sleep(_POLL_S)

    def _directory(self, node: HerdNode) -> Path:
        return self.home / NODES / node.name
