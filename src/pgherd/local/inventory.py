"""Which certificates a herd depends on, how long they are good for, and what of its TLS is less than it could be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from ..herdfile import HerdFile
from ..model.tls import SslMode, is_loopback
from . import certificates
from .certificates import CA_CERT, WARN_DAYS
from .presented import presented
from .replicas import Replicas


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate. ``kind`` is ca, former ca, server, patroni, etcd or watcher; ``issuer`` the CA's name.

    ``trusted``: whether a client of this home accepts it, None where that is up to others. ``file``: where it is kept,
    None if that is not known here.
    """

    kind: str
    name: str
    address: str | None
    issuer: str
    expires: datetime
    days_left: float
    trusted: bool | None
    file: Path | None


def inventory(home: Path, herd: HerdFile, *, asking: bool = True) -> list[Entry]:
    """The CAs that are trusted, and the certificate that each server shows (or, of one that is down, would show).

    Not ``asking``: files say what local servers show, and nobody waits for one that doesn't answer.
    """
    doors = _doors(home, herd)
    cas = certificates.trusted(home) if herd.has_ca else []
    found = [_entry("former ca" if i else "ca", "herd", None, ca, True, home / CA_CERT) for i, ca in enumerate(cas)]
    with ThreadPoolExecutor(min(32, len(doors))) as pool:
        all_shown = list(pool.map(lambda door: door.shown(asking=asking), doors))
    for door, one in zip(doors, all_shown, strict=True):
        if one is not None:
            ours = herd.has_ca and door.file is not None
            trusted = any(certificates.is_issued_by(one, ca) for ca in cas) if ours else None
            address = f"{door.address[0]}:{door.address[1]}" if door.address else None
            found.append(_entry(door.kind, door.name, address, one, trusted, door.file))
    return found


@dataclass(frozen=True, slots=True)
class _Door:
    """Where a certificate is shown, and the file it comes from."""

    kind: str
    name: str
    address: tuple[str, int] | None
    file: Path | None

    def shown(self, *, asking: bool) -> x509.Certificate | None:
        """What is shown there; what is kept where nobody is asked or answers."""
        postgres, own = self.kind == "server", str(self.file) if self.file and self.file.exists() else None
        found = None
        if self.address is not None and (asking or self.file is None):
            found = presented(*self.address, postgres=postgres, own=None if postgres else own)
        return found or (certificates.read_issued(Path(own), "the server's key").certificate if own else None)


def _doors(home: Path, herd: HerdFile) -> list[_Door]:
    found = []
    for n in herd.nodes:
        file = Path(n.data_directory).parent / certificates.SERVER if n.data_directory else None
        found.append(_Door("server", n.name, (n.host, n.port), file))
        if herd.mutual_tls and file is not None and n.rest_port is not None:
            found.append(_Door("patroni", n.name, (n.host, n.rest_port), file))
    addresses = {m.name: (m.host, m.client_port) for m in herd.etcd}
    for holder in Replicas(home, herd, "").holders():
        address = addresses.get(holder.name)
        kind = "etcd" if address else "watcher"
        found.append(_Door(kind, holder.name, address, holder.directory / certificates.SERVER))
    return found


def _entry(
    kind: str, name: str, address: str | None, one: x509.Certificate, trusted: bool | None, file: Path | None
) -> Entry:
    issuers = one.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    issuer = str(issuers[0].value) if issuers else one.issuer.rfc4514_string()
    return Entry(kind, name, address, issuer, one.not_valid_after_utc, certificates.days_left(one), trusted, file)


def tls_state(home: Path, herd: HerdFile) -> dict[str, Any]:
    """The key ``tls`` of ``pgherd status``: the weakest ``sslmode`` in use, and what to do something about."""
    modes = [tls.sslmode if (tls := herd.tls_of(n)) else SslMode.PREFER for n in herd.nodes]
    ending = (_ending(e) for e in inventory(home, herd, asking=False) if e.days_left < WARN_DAYS)
    warnings = list(dict.fromkeys([*_weak(herd), *ending]))  # a node's server and Patroni show the same
    return {"sslmode": min(modes, key=list(SslMode).index).value, "warnings": warnings}


def _weak(herd: HerdFile) -> list[str]:
    local = [n for n in herd.nodes if n.data_directory is not None]
    if local and herd.tls is None:
        return ["the servers run without TLS: pgherd down and pgherd up switch it on"]
    if local and not herd.has_ca:
        return ["off, as asked (--no-tls): what is sent can be read on this machine"]
    found = []
    if herd.replicated and not herd.mutual_tls:
        found.append("etcd and Patroni run without TLS: pgherd down and pgherd up switch it on")
    for n in herd.nodes:
        tls = herd.tls_of(n)
        if not is_loopback(n.host) and (tls is None or tls.sslmode is not SslMode.VERIFY_FULL):
            mode = tls.sslmode if tls else "left out"
            found.append(f"node {n.name} is not verified (sslmode {mode}): verify-full and sslrootcert in herd.toml do")
        elif local and n.data_directory is None:
            found.append(
                f"node {n.name} does not have the herd's CA: its links to the others are encrypted, not verified"
            )
    return found


def _ending(entry: Entry) -> str:
    what = {
        "ca": "the herd's CA",
        "former ca": "a former ca",
        "etcd": f"machine {entry.name}",
        "watcher": f"machine {entry.name}",
    }.get(entry.kind, f"node {entry.name}")
    verb = "has expired" if entry.days_left < 0 else "ends"
    command = " --ca" if entry.kind == "ca" else ""
    return f"the certificate of {what} {verb} on {entry.expires:%Y-%m-%d}: pgherd certificates renew{command}"
