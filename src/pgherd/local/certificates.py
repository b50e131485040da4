"""A local herd's certificates: its CA, whose key stays in the home, and one of each server, all EC P-256.

``<home>/ca.key`` (0600) holds the CA's key and certificate, ``<home>/ca.crt`` the certificates to trust: the CA's and,
after it was renewed, those of former CAs. A server has ``server.pem`` (0600: key and certificate in one file, so that
they change together) and a copy of ``ca.crt``, both beside the data directory that backups and standbys copy. Its
Patroni uses them as well, as server and as client; so does a machine's etcd, and its watcher, those of the machine.
Whatever is killed halfway, :func:`ensure` finishes. Source: RFC 5280, 4.2; PostgreSQL 18 manual, 18.9, 32.19.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import LocalServerError
from ..herdfile import write_atomically
from ..secretfile import refuse_open
from .user import ServerUser

CA_KEY, CA_CERT, SERVER = "ca.key", "ca.crt", "server.pem"
CA_DAYS, SERVER_DAYS = 3650, 730
WARN_DAYS = 30
"""So long before a certificate's end ``status`` warns, and ``up`` renews it."""
_SKEW = timedelta(hours=1)
"""Certificates count from a little before they are made: other machines' clocks may be behind."""


_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""etcd and Patroni are clients of their like, and show the same certificate then."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a certificate: a node or a machine, reached at ``host``; it lies in ``directory``."""

    name: str
    host: str
    directory: Path


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def pem(self) -> str:
        """Both, the key first."""
        kind = serialization.PrivateFormat.PKCS8
        text = self.key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()).decode()
        return text + pem_of([self.certificate])


def pem_of(certificates: Sequence[x509.Certificate]) -> str:
    """Certificates as text."""
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


def read_issued(path: Path, what: str) -> Issued:
    """What :meth:`Issued.pem` gave. Raises UnsafeSetting if others can read it, LocalServerError if it is broken."""
    refuse_open(path, what)
    try:
        data = path.read_bytes()
        key = serialization.load_pem_private_key(data, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Issued(key, x509.load_pem_x509_certificates(data)[0])
    except (OSError, ValueError, AssertionError) as error:
        raise LocalServerError(
            f"{what} {path} can't be used: {type(error).__name__}", hint="put it back from a backup, or see docs/tls.md"
        ) from error


def trusted(home: Path) -> list[x509.Certificate]:
    """The certificates of ``ca.crt``, the newest CA's first; empty without the file."""
    try:
        return x509.load_pem_x509_certificates((home / CA_CERT).read_bytes())
    except (OSError, ValueError):
        return []


def days_left(certificate: x509.Certificate) -> float:
    """How many days a certificate is still good for; negative when it has expired."""
    return (certificate.not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)


def new_ca(until: datetime | None = None) -> Issued:
    """A CA with a fresh key."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pgherd CA {number:x}"[:26])])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    built = (
        _builder(name, name, key, number, until or datetime.now(UTC) + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Issued(key, built.sign(key, hashes.SHA256()))


def issue(ca: Issued, host: str, until: datetime | None = None) -> Issued:
    """A server's certificate, good for ``host``, 127.0.0.1 and localhost; never for longer than its CA's."""
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(until or datetime.now(UTC) + timedelta(days=SERVER_DAYS), ca.certificate.not_valid_after_utc)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pgherd")])  # etcd refuses a client's CN
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    built = (
        _builder(name, ca.certificate.subject, key, x509.random_serial_number(), until)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USES), critical=False)
        .add_extension(issuer, critical=False)
    )
    return Issued(key, built.sign(ca.key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, number: int, until: datetime
) -> x509.CertificateBuilder:
    begins = min(datetime.now(UTC), until) - _SKEW
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=number,
        not_valid_before=begins,
        not_valid_after=until,
    )


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys((host, "127.0.0.1", "localhost")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    return names


def is_issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether the CA has signed it."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def ensure(home: Path, holders: Sequence[Holder], user: ServerUser, *, again: bool = False) -> list[Holder]:
    """Make what is missing or ends soon, of the CA and of each holder.

    Those whose certificate is another one now: running ones must be told to read it. ``again``: all of them. Raises
    UnsafeSetting, naming it, for a key that others can read.
    """
    ca = _ensure_ca(home)
    changed = []
    for holder in holders:
        path = holder.directory / SERVER
        holder.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        user.give(holder.directory)
        if again or not _is_good(path, ca.certificate, holder.host):
            write_atomically(path, issue(ca, holder.host).pem(), mode=0o600, owner=user.owner)
            changed.append(holder)
        _copy_trust(home, holder.directory, user)
    return changed


def _ensure_ca(home: Path) -> Issued:
    path = home / CA_KEY
    if not path.exists():
        ca = new_ca()
        write_atomically(home / CA_CERT, pem_of([ca.certificate, *trusted(home)]), mode=0o644)
        write_atomically(path, ca.pem(), mode=0o600)
    ca = read_issued(path, "the herd CA's key")
    if ca.certificate not in trusted(home):
        write_atomically(home / CA_CERT, pem_of([ca.certificate, *trusted(home)]), mode=0o644)
    return ca


def renew_ca(home: Path, holders: Sequence[Holder], user: ServerUser, once_trusted: Callable[[], None]) -> None:
    """Begin a new CA: everybody trusts it and the former ones before anybody shows a certificate of it.

    ``once_trusted`` has those read whom to trust who do that once only. Killed before the key is there, one more
    certificate is trusted, whose key is nowhere.
    """
    read_issued(home / CA_KEY, "the herd CA's key")
    ca = new_ca()
    write_atomically(home / CA_CERT, pem_of([ca.certificate, *trusted(home)]), mode=0o644)
    for holder in holders:
        _copy_trust(home, holder.directory, user)
    once_trusted()
    write_atomically(home / CA_KEY, ca.pem(), mode=0o600)


def forget_former(home: Path, holders: Sequence[Holder], user: ServerUser) -> int:
    """Trust the CA alone; how many former ones are forgotten. For when no server shows a certificate of theirs."""
    ca, before = read_issued(home / CA_KEY, "the herd CA's key"), trusted(home)
    if before != [ca.certificate]:
        write_atomically(home / CA_CERT, pem_of([ca.certificate]), mode=0o644)
    for holder in holders:
        _copy_trust(home, holder.directory, user)
    return len(before) - 1


def _copy_trust(home: Path, directory: Path, user: ServerUser) -> None:
    text, path = (home / CA_CERT).read_text(), directory / CA_CERT
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text, mode=0o644, owner=user.owner)


def _is_good(path: Path, ca: x509.Certificate, host: str) -> bool:
    if not path.exists():
        return False
    found = read_issued(path, "the server's key").certificate
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    fits = list(names) == _names(host) and set(uses) == set(_USES)  # the first version's had one use, and a CN
    return days_left(found) > WARN_DAYS and is_issued_by(found, ca) and fits
