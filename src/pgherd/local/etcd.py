"""How a member of etcd is run: data, doors and certificates. Pure; who starts it is others' business.

Source: etcd 3.5 documentation, "Configuration flags", "Transport security model".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..exchange import Identity
from ..herdfile import EtcdMember
from . import certificates, machine
from .machine import Program

KEY = "key"
"""The file that tokens are signed with."""


def peer_url(member: EtcdMember) -> str:
    """Where the other members reach it."""
    return f"{_scheme(member)}://{member.host}:{member.peer_port}"


def log_of(directory: Path) -> Path:
    """The log of the member of the machine in ``directory``."""
    return directory / machine.ETCD / "etcd.log"


def has_data(directory: Path) -> bool:
    """Whether the member of the machine in ``directory`` has begun, and has not lost what it knows."""
    return (directory / machine.ETCD / "data" / "member").exists()


def identity_of(directory: Path) -> Identity:
    """What the machine in ``directory`` shows, and whom it trusts."""
    tls = directory / machine.TLS
    return Identity(str(tls / certificates.SERVER), str(tls / certificates.CA_CERT))


def program(
    path: Path, member: EtcdMember, members: Sequence[EtcdMember], directory: Path, token: str, *, joins: bool
) -> Program:
    """The program ``path`` for a member on the machine in ``directory``.

    ``joins``: without data of its own it joins others that have some; else all begin together, under ``token``.
    """
    home = directory / machine.ETCD
    client = f"{_scheme(member)}://{member.host}:{member.client_port}"
    options = {
        "name": member.name,
        "data-dir": str(home / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer_url(member),
        "initial-advertise-peer-urls": peer_url(member),
        "initial-cluster": ",".join(f"{m.name}={peer_url(m)}" for m in members),
        "initial-cluster-state": "existing" if joins else "new",
        "initial-cluster-token": token,
        "auth-token": f"jwt,priv-key={home / KEY},sign-method=HS256,ttl=10m",
        "bcrypt-cost": "4",  # the password is random, 160 bits
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        # A killed member of 3.5.0 to 3.5.2 may come back with other data (etcd issue 13766): then it should not start.
        "experimental-initial-corrupt-check": "true",
        "logger": "zap",
        "log-level": "warn",
    }
    if member.tls:
        own = identity_of(directory)
        shown = {"cert-file": own.certificate, "key-file": own.certificate, "trusted-ca-file": own.trust}
        for door in ("", "peer-"):
            options |= {f"{door}{k}": str(v) for k, v in shown.items()} | {f"{door}client-cert-auth": "true"}
    argv = (str(path), *(f"--{k}={v}" for k, v in options.items()))
    return Program(argv, {"HOME": str(home)}, str(log_of(directory)), str(home))


def _scheme(member: EtcdMember) -> str:
    return "https" if member.tls else "http"
