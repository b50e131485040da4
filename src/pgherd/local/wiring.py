"""etcd of a herd from before it had TLS gets it, while the herd is down; its members and what they know stay.

Members know each other's addresses from etcd itself, so these must be changed while etcd runs: here, for a moment, with
a plain door and one with TLS for each member, and nobody else there. Killed anywhere, the next time finishes it.
Source: etcd 3.5 documentation, "Runtime reconfiguration", "Update a member".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..dcs import Store
from ..herdfile import EtcdMember, HerdFile
from . import etcd, machine, patroni, runtime
from .certified import Certified
from .layout import NODES, free_etcd_port
from .processes import Processes
from .replicas import Replicas, derived
from .user import ServerUser

_TIMEOUT_S = 30.0


def may_begin(home: Path, herd: HerdFile) -> bool:
    """Whether this herd's etcd has no TLS, could have, and nothing of it runs. Raises LocalServerError."""
    if not herd.has_ca or not herd.replicated or herd.mutual_tls:
        return False
    replicas = Replicas(home, herd, "")
    if any(machine.watcher_pid(replicas.directory(name)) for name in replicas.machines):
        return False
    return not any(Processes(home / NODES / n.name).pids() for n in replicas.herd.nodes)


def secured(
    home: Path, herd: HerdFile, password: str, user: ServerUser, certified: Callable[[HerdFile], Certified]
) -> HerdFile:
    """The herd with TLS for etcd and Patroni's REST API, written down; unchanged while a member's data is lost."""
    replicas = Replicas(home, herd, password)
    known = [replicas.has_etcd_data(m) for m in herd.etcd]
    if any(known) and not all(known):
        return herd
    for member in herd.etcd:
        Processes(replicas.directory(member.name)).kill()  # left by one that was killed
    members = tuple(replace(m, tls=True) for m in herd.etcd)
    if any(known):
        members = tuple(replace(m, peer_port=free_etcd_port(m.host, (m.client_port, m.peer_port))) for m in members)
    wanted = replace(herd, etcd=members)
    certified(wanted).ensure()
    if any(known):
        _readdress(Replicas(home, wanted, password), list(zip(herd.etcd, members, strict=True)), user)
    wanted.write(home)
    return wanted


def _readdress(replicas: Replicas, members: Sequence[tuple[EtcdMember, EtcdMember]], user: ServerUser) -> None:
    """Start etcd alone, with both doors, and have it know its members by their new ones."""
    programs = runtime.find(user)
    with ExitStack() as stack:
        for old, new in members:
            program = replicas.etcd_of(new.name, programs)
            assert program is not None
            doors = f"--listen-peer-urls={etcd.peer_url(old)},{etcd.peer_url(new)}"
            process = replace(program, argv=(*program.argv, doors)).start(user.owner)
            stack.callback(process.wait, _TIMEOUT_S)
            stack.callback(process.terminate)
        identity = etcd.identity_of(replicas.directory(members[0][1].name))
        endpoints = [(new.host, new.client_port) for _, new in members]
        login = (patroni.ETCD_USER, derived(replicas.password, "etcd"))
        with closing(Store(endpoints, *login, identity=identity, timeout_s=2.0)) as store:
            for old, new in members:
                change = partial(store.readdress_member, etcd.peer_url(old), etcd.peer_url(new))
                replicas.await_etcd(change, _TIMEOUT_S)
