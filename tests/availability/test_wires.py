"""etcd and Patroni's REST API: who has no certificate of the herd's CA is told nothing."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path

import pytest

from availability.replicated import Replicated, wait_until
from pgherd import exchange, herdfile
from pgherd.errors import StoreUnavailable, UnsafeSetting
from pgherd.exchange import Identity
from pgherd.local import certificates, machine
from pgherd.local.certificates import CA_KEY, SERVER
from pgherd.local.certified import Certified
from pgherd.local.inventory import inventory
from pgherd.local.processes import Processes
from pgherd.local.user import server_user
from pgherd.sync import Herd

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
            with pytest.raises((OSError, HTTPException)):
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


def test_an_expired_certificate_is_named(replicated: Replicated, tmp_path: Path) -> None:
    spec, path = machine.read(replicated.machine(replicated.nodes[0])), tmp_path / "expired.pem"
    ca = certificates.read_issued(replicated.home / CA_KEY, "the CA's key")
    path.write_text(certificates.issue(ca, "127.0.0.1", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)).pem())
    path.chmod(0o600)
    expired = replace(identity_of(replicated), certificate=str(path))
    with pytest.raises(StoreUnavailable, match=f"certificate in {path} has expired, on 2026-01-02 03:04 UTC"):
        replace(spec, identity=expired).store().get("x")
    with pytest.raises(StoreUnavailable, match="No such file"):
        replace(spec, identity=replace(expired, certificate="/nowhere")).store().get("x")


@pytest.mark.long
def test_once_renewed_all_old_certificates_may_end(replicated: Replicated, client: Herd) -> None:
    """Those shown until then end a moment later; connections made after that, a failover's too, need new ones."""
    user, table = server_user(), client.table("moving")
    known = Certified(replicated.home, replicated.file, user)
    ca = certificates.read_issued(replicated.home / CA_KEY, "the CA's key")
    ends = datetime.now(UTC) + timedelta(seconds=45)
    for holder in known.holders():
        text = certificates.issue(ca, holder.host, ends).pem()
        herdfile.write_atomically(holder.directory / SERVER, text, mode=0o600, owner=user.owner)
    known.reload([n.name for n in replicated.file.nodes])
    for node in replicated.nodes:
        known.await_shown(node)
    table.upsert([{"id": 8, "words": "before"}])
    assert datetime.now(UTC) < ends
    replicated.local.renew_certificates()
    shown = inventory(replicated.home, replicated.file)
    assert {e.kind for e in shown} == {"ca", "server", "patroni", "etcd", "watcher"}
    assert min(e.days_left for e in shown) > certificates.WARN_DAYS
    while datetime.now(UTC) < ends + timedelta(seconds=1):
        table.upsert([{"id": 8, "words": "meanwhile"}])
    for m in replicated.file.etcd:  # new connections all around, as after any outage
        replicated.kill(Processes(replicated.home / "machines" / m.name / "etcd").keepers())
    wait_until(replicated.in_step, 180)
    old = replicated.primary()
    replicated.kill(replicated.processes(old).pids())
    replicated.new_primary(old)
    wait_until(replicated.in_step, 180)
    table.upsert([{"id": 8, "words": "after"}])
    assert client.sql("SELECT words FROM moving WHERE id = 8") == [{"words": "after"}]
