"""How one end of a connection sees TLS, in libpq's words. No file is read here.

Source: PostgreSQL 18 manual, 32.19.1 "Client Verification of Server Certificates".
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

HERD_CA = "../ca.crt"
"""The herd's CA as a server of a local herd sees it: libpq in a server starts from the data directory, and this way
links stay right when a home is moved or restored elsewhere."""
SYSTEM = "system"
"""libpq's word for the certificates that the operating system trusts."""


class SslMode(StrEnum):
    """libpq's ``sslmode``, the weakest first."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def encrypts(self) -> bool:
        """Whether nothing is ever sent without TLS."""
        return self in (SslMode.REQUIRE, SslMode.VERIFY_CA, SslMode.VERIFY_FULL)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server is reached; ``sslrootcert`` names the file of certificates to trust, or is ``system``."""

    sslmode: SslMode
    sslrootcert: str | None = None

    def parameters(self) -> dict[str, str]:
        """The libpq parameters."""
        found = {"sslmode": self.sslmode.value}
        return found if self.sslrootcert is None else {**found, "sslrootcert": self.sslrootcert}


def of_link(to: Tls | None, by: Tls | None) -> Tls | None:
    """How the server that is reached by ``by`` reaches the one that is reached by ``to``.

    A server that pgherd did not start has no file with the herd's CA: it can insist on TLS, but not verify.
    """
    if to is not None and to.sslrootcert == HERD_CA and (by is None or by.sslrootcert != HERD_CA):
        return Tls(SslMode.REQUIRE)
    return to


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine: a loopback address, localhost or a Unix socket."""
    if host == "" or host == "localhost" or host[0] in "/@":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
