"""etcd and Patroni's REST API: who has no certificate of the herd's CA is told nothing."""

from __future__ import annotations

import ssl
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from availability.replicated import Replicated
from pgherd import exchange
from pgherd.errors import UnsafeSetting
from pgherd.exchange import Identity
from pgherd.local import certificates, machine

Doors = dict[str, tuple[tuple[str, int], str]]


def identity_of(replicated: Replicated) -> Identity:
    found = machine.read(replicated.machine(replicated.nodes[0])).identity
    assert found is not None
    return found


def doors(replicated: Replicated) -> Doors:
    """Where one may ask something, and what."""
    found: Doors = {}
    for m in replicated.file.etcd:
        found[f"clients of {m.name}"] = ((m.host, m.client_port), "/version")
        found[f"peers of {m.name}"] = ((m.host, m.peer_port), "/version")
    for n in replicated.nodes:
        assert n.rest_port is not None
        found[f"Patroni of {n.name}"] = ((n.host, n.rest_port), "/liveness")
    return found


def status(door: tuple[tuple[str, int], str], identity: Identity | None) -> int:
    address, path = door
    return exchange.ask(address, exchange.request("GET", address[0], path), identity, 5).status


@pytest.fixture
def stranger(replicated: Replicated, tmp_path: Path) -> Identity:
    """Has a certificate of another CA, and trusts the herd's."""
    path = tmp_path / "stranger.pem"
    path.write_text(certificates.issue(certificates.new_ca(), "127.0.0.1").pem())
    path.chmod(0o600)
    return Identity(str(path), identity_of(replicated).trust)


def test_those_of_the_herd_are_answered(replicated: Replicated) -> None:
    known, found = identity_of(replicated), doors(replicated)
    assert {name: status(door, known) for name, door in found.items()} == dict.fromkeys(found, 200)


def test_others_are_told_nothing(replicated: Replicated, stranger: Identity) -> None:
    nobody = Identity(None, stranger.trust)
    for name, door in doors(replicated).items():
        for who in (nobody, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                pytest.fail(f"{name} answers {who}: {status(door, who)}")
        with suppress(OSError, HTTPException):
            assert status(door, None) == 400, f"{name} answers without TLS"  # etcd says that it has TLS


def test_who_shows_another_cas_certificate_is_not_asked(replicated: Replicated) -> None:
    trusting_others = Identity(identity_of(replicated).certificate, None)
    for door in doors(replicated).values():
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            status(door, trusting_others)
        host, port = door[0]
        said = trusting_others.complaint(caught.value, (host, port)) or ""
        assert f"the certificate at {host}:{port} is not trusted" in said


def test_a_key_that_others_can_read_is_not_used(replicated: Replicated) -> None:
    known = identity_of(replicated)
    path = Path(known.certificate or "")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    try:
        with pytest.raises(UnsafeSetting, match=f"{path} has mode 0644"):
            machine.read(replicated.machine(replicated.nodes[0])).store().get("x")
    finally:
        path.chmod(0o600)
