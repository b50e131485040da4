"""What is said of TLS in files and DSNs, and what is refused before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgherd import connect, herdfile
from pgherd.cli.main import main
from pgherd.engines.candidate import parameters_of
from pgherd.errors import BadInput, UnsafeSetting
from pgherd.herdfile import refuse_plain
from pgherd.local.layout import groups_of, new_herd
from pgherd.model.codec import topology_from_json, topology_to_json
from pgherd.model.placement import Label
from pgherd.model.tls import HERD_CA, SslMode, Tls, is_loopback, of_link
from pgherd.model.topology import EngineName, Topology

HEAD = "dbname = 'd'\nuser = 'u'\n"
NODE = "[[nodes]]\nhost = '{}'\nregion = '{}'\n"
FULL = Tls(SslMode.VERIFY_FULL, HERD_CA)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGHOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("::1", True),
        ("localhost", True),
        ("/run/postgresql", True),
        ("@abstract", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("db.example", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_new_herd_verifies_and_survives_being_written_down(tmp_path: Path) -> None:
    herd = new_herd(tmp_path, EngineName.FLEET, groups_of([Label.parse("a"), Label.parse("b")]), None)
    herd.write(tmp_path)
    assert 'sslrootcert = "ca.crt"' in (tmp_path / "herd.toml").read_text()
    assert herdfile.read(tmp_path) == herd
    found = conninfo_to_dict(herd.dsn(tmp_path))
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", str(tmp_path / "ca.crt"))
    assert [n.tls for g in herd.groups() for n in g.nodes] == [FULL, FULL]
    topology = Topology(1, EngineName.FLEET, herd.groups())
    assert topology_from_json(topology_to_json(topology)) == topology
    plain = new_herd(tmp_path, EngineName.FLEET, groups_of([Label.parse("a")]), None, tls=False)
    assert conninfo_to_dict(plain.dsn(tmp_path))["sslmode"] == "disable"


def test_an_attached_herd_says_how_it_is_reached_and_single_nodes_too() -> None:
    text = HEAD + "sslmode = 'verify-full'\nsslrootcert = 'system'\n" + NODE.format("db1.example", "a")
    text += NODE.format("db2.example", "b") + "sslmode = 'require'\n"
    herd = herdfile.parse_toml(text, "x.toml")
    one, two = herd.groups()
    assert one.primary.tls == Tls(SslMode.VERIFY_FULL, "system")
    assert two.primary.tls == Tls(SslMode.REQUIRE)
    assert conninfo_to_dict(herd.dsn(Path("/h")))["host"] == "db1.example", "a URI has one way of TLS"
    assert conninfo_to_dict(herd.dsn(Path("/h"), "b"))["sslmode"] == "require"
    herd.refuse_plain()
    assert not herd.has_ca, "their certificates are others' business"


def test_a_home_from_before_there_was_tls_says_nothing() -> None:
    herd = herdfile.parse_toml(HEAD + NODE.format("127.0.0.1", "a"), "x.toml")
    assert herd.tls is None
    assert herd.groups()[0].primary.tls is None
    assert "ssl" not in herd.dsn(Path("/h"))
    herd.refuse_plain()


@pytest.mark.parametrize("mode", [None, "disable", "allow", "prefer"])
def test_another_machine_is_not_reached_without_tls(mode: str | None, tmp_path: Path) -> None:
    text = HEAD + (f"sslmode = '{mode}'\n" if mode else "") + NODE.format("10.9.8.7", "far")
    with pytest.raises(UnsafeSetting, match=r"node far is on another machine, 10\.9\.8\.7") as caught:
        herdfile.parse_toml(text, "x.toml").refuse_plain()
    assert caught.value.exit_status == 3
    assert "verify-full" in caught.value.hint
    herdfile.parse_toml(text, "x.toml").write(tmp_path)
    with pytest.raises(UnsafeSetting, match="node far"), connect(home=tmp_path):
        pass
    dsn = "postgresql://u:hush@10.9.8.7/d" + (f"?sslmode={mode}" if mode else "")
    for refused in (lambda: connect(dsn).__enter__(), lambda: parameters_of(dsn, "u", "d")):
        with pytest.raises(UnsafeSetting, match=r"10\.9\.8\.7") as caught:
            refused()
        assert "hush" not in str(caught.value.as_json())


def test_attaching_another_machine_without_tls_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.toml").write_text(HEAD + NODE.format("127.0.0.1", "here") + NODE.format("10.9.8.7", "far"))
    assert main(["attach", str(tmp_path / "in.toml"), "--home", str(tmp_path / "home"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unsafe_setting"
    assert not (tmp_path / "home").exists()


def test_libpqs_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsafeSetting):
        refuse_plain("db.example", None, "it")
    monkeypatch.setenv("PGSSLMODE", "require")
    refuse_plain("db.example", None, "it")
    assert herdfile.tls_of_environment() == Tls(SslMode.REQUIRE)
    monkeypatch.setenv("PGSSLMODE", "nonsense")
    with pytest.raises(UnsafeSetting):
        refuse_plain("db.example", None, "it")
    monkeypatch.setenv("PGHOST", "db.example")
    with pytest.raises(UnsafeSetting), connect("dbname=d"):
        pass


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sslmode = 'on'", "sslmode 'on' is not known"),
        ("sslrootcert = 'ca.crt'", "sslmode None is not known"),
        ("sslmode = true", "sslmode is True, not text"),
    ],
)
def test_nonsense_in_a_file_is_refused(line: str, message: str) -> None:
    for text in (HEAD + line + "\n" + NODE.format("h", "r"), HEAD + NODE.format("h", "r") + line + "\n"):
        with pytest.raises(BadInput, match=message):
            herdfile.parse_toml(text, "x.toml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sslmode=on", "sslmode 'on'"),
        ("sslmode=verify-full", "without sslrootcert"),
        ("sslmode=verify-full&sslrootcert=ca.crt", "sslrootcert 'ca.crt'"),
        ("sslrootcert=/ca.crt", "sslmode None"),
    ],
)
def test_a_server_that_joins_says_what_holds_for_links_too(options: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parameters_of(f"postgresql://u@127.0.0.1/d?{options}", "u", "d")


def test_a_server_without_the_herds_ca_insists_on_tls_all_the_same() -> None:
    theirs = Tls(SslMode.VERIFY_FULL, "/etc/ca.crt")
    assert of_link(FULL, FULL) == FULL
    assert of_link(FULL, theirs) == of_link(FULL, None) == Tls(SslMode.REQUIRE)
    assert of_link(theirs, FULL) == of_link(theirs, theirs) == theirs
    assert of_link(None, FULL) is None
