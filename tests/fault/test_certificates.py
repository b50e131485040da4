"""Certificates that end, are renewed and are somebody else's; files that others could read; homes without TLS."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgherd
from pgherd import dialect, herdfile
from pgherd.cli.main import main
from pgherd.errors import BadInput, CertificateRefused, UnsafeSetting
from pgherd.local import certificates, settings
from pgherd.local.certificates import CA_CERT, CA_KEY, SERVER
from pgherd.local.herd import LocalHerd
from pgherd.local.presented import presented
from pgherd.local.user import server_user
from pgherd.model.placement import Label
from pgherd.model.tls import SslMode, Tls
from twins import EAST, WEST, two_servers

SCHEMA = "CREATE TABLE item (id bigint PRIMARY KEY, n int) PARTITION BY HASH (id) SPLIT INTO 4 TABLETS;"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalHerd]:
    with two_servers() as found:
        with pgherd.connect(home=found.home) as herd:
            herd.execute(herd.plan(dialect.parse(SCHEMA)))
            herd.table("item").upsert([{"id": i, "n": 0} for i in range(40)])
        yield found


def run(local: LocalHerd, capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--home", str(local.home), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def give(local: LocalHerd, name: str, issued: certificates.Issued) -> None:
    """Let a running server show another certificate."""
    path = local.home / "nodes" / name / SERVER
    herdfile.write_atomically(path, issued.pem(), mode=0o600, owner=server_user().owner)
    file = herdfile.read(local.home)
    local.certified(file, server_user()).await_shown(next(n for n in file.nodes if n.name == name))


def ca_of(local: LocalHerd) -> certificates.Issued:
    return certificates.read_issued(local.home / CA_KEY, "the CA's key")


def test_who_may_read_what(local: LocalHerd) -> None:
    modes = {p: (local.home / p).stat().st_mode & 0o777 for p in (CA_KEY, CA_CERT, f"nodes/{EAST}/{SERVER}")}
    assert modes == {CA_KEY: 0o600, CA_CERT: 0o644, f"nodes/{EAST}/{SERVER}": 0o600}
    key = (local.home / CA_KEY).read_text().split("-----END")[0]
    copies = [p for p in local.home.rglob("*") if p.is_file() and key in p.read_bytes().decode(errors="replace")]
    assert copies == [local.home / CA_KEY]
    made = list((local.home / "nodes" / EAST / "data").rglob("*.pem"))
    assert made == [], "a backup or standby, a copy of that directory, has no key of the server"


def test_renewal_while_clients_work(local: LocalHerd, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = herdfile.read(local.home).nodes
    over, failures = threading.Event(), list[BaseException]()
    done = {"kept": 0, "new": 0}

    def kept() -> None:
        with pgherd.connect(home=local.home) as herd:
            while not over.is_set():
                herd.table("item").upsert([{"id": i, "n": done["kept"]} for i in range(40)])
                assert herd.sql("SELECT count(*) AS c FROM item") == [{"c": 40}]
                done["kept"] += 1

    def fresh() -> None:
        while not over.is_set():
            with psycopg.connect(herdfile.read(local.home).dsn(local.home, WEST)) as connection:
                assert connection.execute("SELECT count(*) FROM item").fetchone() == (40,)  # by a new link
            done["new"] += 1

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(w,)) for w in (kept, fresh)]
    for t in threads:
        t.start()
    try:
        before = [presented(n.host, n.port) for n in nodes]
        first = run(local, capsys, "certificates", "renew")
        after = [presented(n.host, n.port) for n in nodes]
        assert None not in after
        assert not set(before) & set(after)
        both = run(local, capsys, "certificates", "renew", "--ca")
        assert [c["kind"] for c in both["certificates"]] == ["ca", "former ca", "server", "server"]
        assert both["certificates"][1]["issuer"] == first["certificates"][0]["issuer"]
        assert {c["issuer"] for c in both["certificates"][2:]} == {both["certificates"][0]["issuer"]}
        last = run(local, capsys, "certificates", "renew")
        assert last["forgotten"] == 1
        assert [c["kind"] for c in last["certificates"]] == ["ca", "server", "server"]
        assert all(c["trusted"] for c in last["certificates"])
        reached = dict(done)
        while not failures and any(done[k] < reached[k] + 2 for k in done):
            over.wait(0.02)
    finally:
        over.set()
        for t in threads:
            t.join()
    assert failures == []


def test_an_expired_certificate_says_so(local: LocalHerd, capsys: pytest.CaptureFixture[str]) -> None:
    west = next(n for n in herdfile.read(local.home).nodes if n.name == WEST)
    give(local, WEST, certificates.issue(ca_of(local), west.host, datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))
    with pytest.raises(CertificateRefused) as caught, pgherd.connect(home=local.home):
        pass
    where = f"{west.host}:{west.port}"
    assert caught.value.message == f"the certificate of the server at {where} has expired, on 2026-01-02 03:04 UTC"
    assert "pgherd certificates renew" in caught.value.hint
    assert run(local, capsys, "status", status=3)["error"]["code"] == "certificate"
    east = herdfile.read(local.home).dsn(local.home, EAST)
    with psycopg.connect(east) as connection, pytest.raises(psycopg.OperationalError, match="pgherd_us-west"):
        connection.execute("SELECT count(*) FROM item")
    shown = run(local, capsys, "certificates")["certificates"]
    assert [c["days_left"] < 0 for c in shown] == [False, False, True]
    run(local, capsys, "certificates", "renew")
    with pgherd.connect(home=local.home) as herd:
        assert herd.sql("SELECT count(*) AS c FROM item") == [{"c": 40}]


def test_status_warns_before_a_certificate_ends_and_up_renews_it(
    local: LocalHerd, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(local, capsys, "status")["tls"] == {"sslmode": "verify-full", "warnings": []}
    soon = datetime.now(UTC) + timedelta(days=29)
    give(local, EAST, certificates.issue(ca_of(local), "127.0.0.1", soon))
    (warning,) = run(local, capsys, "status")["tls"]["warnings"]
    assert warning.startswith(f"the certificate of node {EAST} ends on {soon:%Y-%m-%d}")
    assert run(local, capsys, "up")["tls"]["warnings"] == []


def test_a_server_in_anothers_place_is_found_out(local: LocalHerd, capsys: pytest.CaptureFixture[str]) -> None:
    give(local, WEST, certificates.issue(certificates.new_ca(), "127.0.0.1"))
    refused = pytest.raises(CertificateRefused, match="is not signed by a CA that is trusted here")
    with refused, pgherd.connect(home=local.home):
        pass
    shown = run(local, capsys, "certificates")["certificates"]
    assert [c["trusted"] for c in shown] == [True, True, False]
    run(local, capsys, "up")  # its file is not one of ours
    with pgherd.connect(home=local.home) as herd:
        assert herd.sql("SELECT count(*) AS c FROM item") == [{"c": 40}]


@pytest.mark.parametrize(
    ("name", "command", "mode"),
    [
        ("pgpass", "status", 0o604),
        (CA_KEY, "up", 0o640),
        (CA_KEY, "certificates renew", 0o604),
        (f"nodes/{EAST}/{SERVER}", "up", 0o640),
    ],
)
def test_a_secret_that_others_can_read_is_refused(
    local: LocalHerd, capsys: pytest.CaptureFixture[str], name: str, command: str, mode: int
) -> None:
    path = local.home / name
    path.chmod(mode)
    try:
        said = run(local, capsys, *command.split(), status=3)["error"]
    finally:
        path.chmod(0o600)
    assert said["code"] == "unsafe_setting"
    assert f"{path} has mode {mode:04o}" in said["message"]
    assert said["hint"] == f"chmod 600 {path}"


def test_a_ca_that_was_changed_halfway_is_put_right(local: LocalHerd) -> None:
    lost = certificates.new_ca()
    trusted = certificates.trusted(local.home)
    text = certificates.pem_of([lost.certificate, *trusted])
    (local.home / CA_CERT).write_text(text)  # killed here, the key is nowhere
    local.up()
    with pgherd.connect(home=local.home):
        pass
    (local.home / CA_CERT).unlink()
    local.up()
    assert certificates.trusted(local.home) == [ca_of(local).certificate]
    local.renew_certificates()


def test_a_home_from_before_there_was_tls_gets_it_when_it_is_down(
    local: LocalHerd, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an older version left: servers without TLS, links that say nothing of it."""
    file = herdfile.read(local.home)
    local.down()
    replace(file, tls=None).write(local.home)
    for node in file.nodes:
        data = Path(node.data_directory or "")
        hba = "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"
        (data / settings.HBA_FILE).write_text(hba)
        (data.parent / SERVER).unlink()
    (local.home / CA_KEY).unlink()
    (local.home / CA_CERT).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalHerd, "_secured", lambda self, herd, *_: herd)
        plain = run(local, capsys, "up")
    assert plain["tls"]["sslmode"] == "prefer"
    assert "run without TLS" in plain["tls"]["warnings"][0]
    query = (
        "SELECT DISTINCT option_value FROM pg_foreign_server, pg_options_to_table(srvoptions)"
        " WHERE option_name = 'sslmode'"
    )
    with pgherd.connect(home=local.home) as herd:
        assert herd.sql(query) == []
    assert "run without TLS" in run(local, capsys, "up")["tls"]["warnings"][0], "what runs is left alone"
    with pytest.raises(BadInput, match="run without TLS"):
        local.up(tls=True)
    with pgherd.connect(home=local.home) as old:
        local.down()
        assert run(local, capsys, "up")["tls"] == {"sslmode": "verify-full", "warnings": []}
        assert old.sql("SELECT count(*) AS c FROM item") == [{"c": 40}], "a client that has seen no TLS goes on"
    with pgherd.connect(home=local.home) as herd:
        assert herd.sql(query) == [{"option_value": "verify-full"}]
        assert herd.sql("SELECT count(*) AS c FROM item", region=WEST) == [{"c": 40}]
    with pytest.raises(BadInput, match="has TLS, and keeps it"):
        local.up(tls=False)


@pytest.mark.long
def test_a_herd_without_tls_says_so_and_can_get_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from conftest import reachable

    plain = LocalHerd(reachable(tmp_path) / "plain")
    try:
        up = run(plain, capsys, "up", "--no-tls", "--regions", "us-east,us-west")
        assert up["tls"]["sslmode"] == "disable"
        assert "--no-tls" in up["tls"]["warnings"][0]
        assert not (plain.home / CA_KEY).exists()
        with psycopg.connect(herdfile.read(plain.home).dsn(plain.home)) as connection:
            assert connection.execute("SHOW ssl").fetchone() == ("off",)
        run(plain, capsys, "down")
        assert run(plain, capsys, "up")["tls"]["sslmode"] == "disable"
        run(plain, capsys, "down")
        assert run(plain, capsys, "up", "--tls")["tls"] == {"sslmode": "verify-full", "warnings": []}
    finally:
        plain.destroy()
    assert not plain.home.exists()


def test_an_open_watchers_file_is_refused(tmp_path: Path) -> None:
    from pgherd.local import machine

    (tmp_path / machine.SPEC).write_text("{}")
    (tmp_path / machine.SPEC).chmod(0o644)
    with pytest.raises(UnsafeSetting, match=r"machine\.json has mode 0644"):
        machine.read(tmp_path)


@pytest.mark.long
def test_a_server_that_joins_may_have_a_ca_of_its_own(
    local: LocalHerd, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from conftest import reachable

    stranger = LocalHerd(reachable(tmp_path) / "stranger")
    try:
        stranger.up(groups={"far": [Label.parse("far")]})
        node = herdfile.read(stranger.home).nodes[0]
        root = stranger.home / CA_CERT
        dsn = f"postgresql://herd:{stranger.password()}@{node.host}:{node.port}/herd"
        add = ("node", "add", "--region", "far", "--dsn")
        refused = run(local, capsys, *add, f"{dsn}?sslmode=verify-full&sslrootcert={local.home / CA_CERT}", status=3)
        assert refused["error"]["code"] == "certificate"
        joined = run(local, capsys, *add, f"{dsn}?sslmode=verify-full&sslrootcert={root}")
        assert {m["to"] for m in joined["moves"]} == {"far"}
        far = herdfile.read(local.home).nodes[-1]
        assert far.tls == Tls(SslMode.VERIFY_FULL, str(root))
        with pgherd.connect(home=local.home) as herd:
            for region in (EAST, "far"):
                assert herd.sql("SELECT count(*) AS c FROM item", region=region) == [{"c": 40}]
        assert "does not have the herd's CA" in run(local, capsys, "status")["tls"]["warnings"][0]
        run(local, capsys, "node", "remove", "far")
    finally:
        stranger.destroy()
