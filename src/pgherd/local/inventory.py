"""Which certificates a herd depends on, how long they are good for, and what of its TLS is less than it could be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from ..herdfile import HerdFile, HerdNode
from ..model.tls import SslMode, is_loopback
from . import certificates
from .certificates import WARN_DAYS
from .presented import presented


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate. ``kind`` is ca, former ca or server; ``issuer`` the CA's name.

    ``trusted``: whether a client of this home accepts it, None where that is up to others.
    """

    kind: str
    name: str
    address: str | None
    issuer: str
    expires: datetime
    days_left: float
    trusted: bool | None


def inventory(home: Path, herd: HerdFile, *, asking: bool = True) -> list[Entry]:
    """The CAs that are trusted, and the certificate that each server shows (or, of one that is down, would show).

    Not ``asking``: files say what local servers show, and nobody waits for one that doesn't answer.
    """

    def shown(node: HerdNode) -> x509.Certificate | None:
        if asking or node.data_directory is None:
            return presented(node.host, node.port) or _kept(node)
        return _kept(node)

    cas = certificates.trusted(home) if herd.has_ca else []
    found = [_entry("former ca" if i else "ca", "herd", None, ca, True) for i, ca in enumerate(cas)]
    with ThreadPoolExecutor(min(32, len(herd.nodes))) as pool:
        all_shown = list(pool.map(shown, herd.nodes))
    for node, one in zip(herd.nodes, all_shown, strict=True):
        if one is not None:
            ours = herd.has_ca and node.data_directory is not None
            trusted = any(certificates.is_issued_by(one, ca) for ca in cas) if ours else None
            found.append(_entry("server", node.name, f"{node.host}:{node.port}", one, trusted))
    return found


def _entry(kind: str, name: str, address: str | None, one: x509.Certificate, trusted: bool | None) -> Entry:
    issuers = one.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    issuer = str(issuers[0].value) if issuers else one.issuer.rfc4514_string()
    return Entry(kind, name, address, issuer, one.not_valid_after_utc, certificates.days_left(one), trusted)


def _kept(node: HerdNode) -> x509.Certificate | None:
    path = Path(node.data_directory).parent / certificates.SERVER if node.data_directory else None
    return certificates.read_issued(path, "the server's key").certificate if path and path.exists() else None


def tls_state(home: Path, herd: HerdFile) -> dict[str, Any]:
    """The key ``tls`` of ``pgherd status``: the weakest ``sslmode`` in use, and what to do something about."""
    modes = [tls.sslmode if (tls := herd.tls_of(n)) else SslMode.PREFER for n in herd.nodes]
    warnings = [*_weak(herd), *(_ending(e) for e in inventory(home, herd, asking=False) if e.days_left < WARN_DAYS)]
    return {"sslmode": min(modes, key=list(SslMode).index).value, "warnings": warnings}


def _weak(herd: HerdFile) -> list[str]:
    local = [n for n in herd.nodes if n.data_directory is not None]
    if local and herd.tls is None:
        return ["the servers run without TLS: pgherd down and pgherd up switch it on"]
    if local and not herd.has_ca:
        return ["off, as asked (--no-tls): what is sent can be read on this machine"]
    found = []
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
    what = (
        "the herd's CA" if entry.kind == "ca" else f"a {entry.kind}" if entry.kind != "server" else f"node {entry.name}"
    )
    verb = "has expired" if entry.days_left < 0 else "ends"
    command = " --ca" if entry.kind == "ca" else ""
    return f"the certificate of {what} {verb} on {entry.expires:%Y-%m-%d}: pgherd certificates renew{command}"
