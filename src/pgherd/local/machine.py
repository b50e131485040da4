"""What one machine's watcher is told: which programs to keep running, and how to reach the others. Holds passwords.

A local herd counts each zone of a region as a machine of its own. Its directory is ``<home>/machines/<machine>``.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..dcs import Endpoint, Store
from ..errors import WrongVersion
from ..exchange import Identity
from ..herdfile import write_atomically
from ..secretfile import refuse_open
from .processes import commanded, kill_all

WATCHER_MODULE = "pgherd.availability.watcher"
SPEC = "machine.json"
LOCK = "lock"
LOG = "watcher.log"
ETCD = "etcd"
TLS = "tls"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is kept running; ``directory`` is where it works, and nobody else."""

    argv: tuple[str, ...]
    env: dict[str, str]
    log: str
    directory: str

    def start(self, owner: tuple[int, int] | None) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, as ``owner`` (uid, gid) if that is given."""
        options: dict[str, object] = {}
        if owner is not None:
            options = {"user": owner[0], "group": owner[1], "extra_groups": []}
        fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            if owner is not None:
                os.fchown(fd, *owner)
            return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
                self.argv,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                cwd="/",
                start_new_session=True,
                **options,
            )
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class WatchedNode:
    """A node of a group: where it answers, and on its own machine, how it is run."""

    name: str
    group: str
    machine: str
    host: str
    port: int
    rest_port: int
    patroni: Program | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine; ``nodes`` are its own, ``peers`` those of the same groups on others.

    ``strict`` names the groups that acknowledge nothing without a standby; only there may anybody act for a machine
    that is gone; ``witnesses`` the machines without a node that have a say then, by group. ``owner`` is the (uid, gid)
    that programs run as, None for the watcher's own. ``identity``: what etcd and Patroni know it by.
    """

    name: str
    etcd: Program | None
    endpoints: tuple[Endpoint, ...]
    etcd_user: str
    etcd_password: str
    nodes: tuple[WatchedNode, ...]
    peers: tuple[WatchedNode, ...]
    strict: tuple[str, ...]
    witnesses: dict[str, tuple[str, ...]]
    sql_user: str
    sql_password: str
    owner: tuple[int, int] | None
    identity: Identity | None = None

    def store(self, timeout_s: float = 1.0) -> Store:
        """A client of etcd, the machine's own member first."""
        return Store(self.endpoints, self.etcd_user, self.etcd_password, identity=self.identity, timeout_s=timeout_s)

    def write(self, directory: Path) -> None:
        """Keep it in ``directory``, for its owner only."""
        document = asdict(self)
        if self.identity is None:
            del document["identity"]  # a watcher from before there was one may read this
        write_atomically(directory / SPEC, json.dumps(document, indent=1), mode=0o600)


def read(directory: Path) -> Machine:
    """The machine of ``directory``. Raises WrongVersion for another version's file, UnsafeSetting for an open one."""
    refuse_open(directory / SPEC, "what the watcher is told, with passwords,")
    document = json.loads((directory / SPEC).read_text())
    try:
        document["etcd"] = _program(document["etcd"])
        document["endpoints"] = tuple((host, port) for host, port in document["endpoints"])
        for key in ("nodes", "peers"):
            document[key] = tuple(WatchedNode(**n | {"patroni": _program(n["patroni"])}) for n in document[key])
        document["strict"] = tuple(document["strict"])
        document["witnesses"] = {g: tuple(names) for g, names in document["witnesses"].items()}
        document["owner"] = tuple(document["owner"]) if document["owner"] else None
        document["identity"] = Identity(**found) if (found := document.get("identity")) else None
        return Machine(**document)
    except (KeyError, TypeError) as e:
        raise WrongVersion(f"{directory / SPEC} is another version's", hint="run pgherd down, then pgherd up") from e


def _program(document: dict[str, Any] | None) -> Program | None:
    return None if document is None else Program(**document | {"argv": tuple(document["argv"])})


def watcher_pid(directory: Path) -> int | None:
    """The pid of the watcher that holds the machine's lock, None if there is none: the lock goes with its holder."""
    try:
        with (directory / LOCK).open() as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(f.read() or 0) or None
    except (FileNotFoundError, ValueError):
        pass
    return None


def kill_watcher(directory: Path) -> None:
    """SIGKILL a machine's watcher and its guard, which would start another, and wait until they are gone."""
    kill_all(lambda: commanded(WATCHER_MODULE, directory), f"the watcher of {directory.name}")


def hold_lock(directory: Path) -> int | None:
    """Become the machine's one watcher: the lock's descriptor, or None if there is one already."""
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    sign(fd)
    return fd


def sign(lock: int) -> None:
    """Write this process's pid into the lock that it holds."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
