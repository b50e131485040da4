from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgherd import herdfile
from pgherd.errors import BadInput, NoSuchHerd, UnknownName, WrongVersion
from pgherd.exchange import Identity
from pgherd.herdfile import HerdFile, HerdNode
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName, Role


def herd_in(home: Path) -> HerdFile:
    nodes = (
        HerdNode(
            "us-east", "us-east", "127.0.0.1", 5433, Label("local", "us-east", "a"), str(home / "nodes/us-east/data")
        ),
        HerdNode("eu", "eu", "127.0.0.1", 5434, Label("aws", "eu", "b"), "/elsewhere/data"),
    )
    return HerdFile(EngineName.FLEET, "herd", "pgherd", str(home / "pgpass"), nodes, postgres_version="18.1")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    herd = herd_in(tmp_path)
    herd.write(tmp_path)
    assert herdfile.read(tmp_path) == herd
    assert stat.S_IMODE((tmp_path / "herd.toml").stat().st_mode) == 0o644
    attached = replace(
        herd, passfile=None, postgres_version=None, nodes=tuple(replace(n, data_directory=None) for n in herd.nodes)
    )
    attached.write(tmp_path)
    assert herdfile.read(tmp_path) == attached
    assert [p.name for p in tmp_path.iterdir()] == ["herd.toml"], "no temporary file stays"


def test_how_patronis_rest_api_is_reached_is_kept(tmp_path: Path) -> None:
    text = """
dbname = "d"
user = "u"
rest_cacert = "system"
[[nodes]]
host = "h"
region = "r"
[[nodes]]
host = "i"
region = "r"
rest_cacert = "ca.crt"
rest_certificate = "/etc/own.pem"
"""
    file = herdfile.parse_toml(text, str(tmp_path / "x.toml"))
    assert file.rest == Identity(None, None)
    assert [n.rest for n in file.nodes] == [None, Identity("/etc/own.pem", str(tmp_path / "ca.crt"))]
    file.write(tmp_path)
    assert herdfile.read(tmp_path) == file


def test_a_home_can_be_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    herd_in(old).write(old)
    old.rename(new)
    assert herdfile.read(new) == herd_in(new)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    herd = herd_in(tmp_path)
    herd.write(tmp_path)
    with pytest.raises(UnicodeEncodeError):
        replace(herd, dbname="half of a pair \ud800").write(tmp_path)
    assert herdfile.read(tmp_path) == herd
    assert [p.name for p in tmp_path.iterdir()] == ["herd.toml"]


def test_no_file_is_no_herd(tmp_path: Path) -> None:
    with pytest.raises(NoSuchHerd, match="no herd in"):
        herdfile.read(tmp_path)
    with pytest.raises(NoSuchHerd):
        herdfile.read(tmp_path / "absent")


def test_another_format_is_refused_even_if_its_keys_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "herd.toml").write_text("format = 2\nclusters = []\n")
    with pytest.raises(WrongVersion, match="format 2"):
        herdfile.read(tmp_path)


def test_dsn_names_all_nodes_or_a_regions(tmp_path: Path) -> None:
    herd = herd_in(tmp_path)
    found = conninfo_to_dict(herd.dsn(tmp_path))
    assert (found["host"], found["port"]) == ("127.0.0.1,127.0.0.1", "5433,5434")
    assert (found["user"], found["dbname"], found["passfile"]) == ("pgherd", "herd", str(tmp_path / "pgpass"))
    assert conninfo_to_dict(herd.dsn(tmp_path, "eu"))["port"] == "5434"
    assert herd.dsn(Path("/h"), "eu", passfile=False) == "postgresql://pgherd@127.0.0.1:5434/herd"
    with pytest.raises(UnknownName, match="'mars'") as caught:
        herd.dsn(tmp_path, "mars")
    assert caught.value.hint == "regions: us-east, eu"


def test_dsn_survives_odd_characters() -> None:
    home = Path("/a b/100%&?#")
    node = HerdNode("n", "n", "::1", 5432, Label("local", "r", "a"))
    socket = replace(node, name="s", host="/run/pg", port=5433)
    herd = HerdFile(EngineName.FLEET, "d/b?x", "me@home:1", str(home / "pg pass"), (node, socket))
    found = conninfo_to_dict(herd.dsn(home))
    assert found == {
        "user": "me@home:1",
        "dbname": "d/b?x",
        "host": "::1,/run/pg",
        "port": "5432,5433",
        "passfile": "/a b/100%&?#/pg pass",
        "target_session_attrs": "read-write",
        "connect_timeout": "2",
    }


def test_groups_are_numbered_in_order_and_led_by_their_first_node() -> None:
    text = "dbname = 'app'\nuser = 'app'\n" + "".join(
        f"[[nodes]]\nhost = '{host}'\nregion = '{region}'\ngroup = '{group}'\n"
        for host, region, group in (("h1", "east", "g2"), ("h2", "west", "g1"), ("h3", "east", "g2"))
    )
    g2, g1 = herdfile.parse_toml(text, "x.toml").groups()
    assert (g2.name, g2.number, g1.name, g1.number) == ("g2", 1, "g1", 2)
    assert [(n.name, n.host, n.role) for n in g2.nodes] == [("g2", "h1", Role.PRIMARY), ("g2-2", "h3", Role.STANDBY)]
    assert g1.primary.name == "g1"


def test_attach_file_defaults(tmp_path: Path) -> None:
    text = """
    dbname = "app"
    user = "app"
    passfile = "secrets/pgpass"
    [[nodes]]
    host = "db1.example"
    region = "us-east"
    [[nodes]]
    host = "db2.example"
    port = 6432
    region = "us-east"
    cloud = "aws"
    zone = "b"
    [[nodes]]
    host = "db3.example"
    region = "eu"
    name = "paris"
    """
    herd = herdfile.parse_toml(text, str(tmp_path / "attach.toml"))
    assert (herd.engine, herd.passfile, herd.postgres_version) == (
        EngineName.FLEET,
        str(tmp_path / "secrets/pgpass"),
        None,
    )
    assert herd.nodes == (
        HerdNode("us-east", "us-east", "db1.example", 5432, Label("local", "us-east", "a")),
        HerdNode("us-east-2", "us-east-2", "db2.example", 6432, Label("aws", "us-east", "b")),
        HerdNode("paris", "eu", "db3.example", 5432, Label("local", "eu", "a")),
    )


def test_names_are_never_given_twice() -> None:
    assert herdfile.names_for(["a", "a", "a-2", "a"]) == ["a", "a-3", "a-2", "a-4"]
    assert herdfile.names_for(["a", "b"], taken=["a"]) == ["a-2", "b"]


GOOD_NODE = "[[nodes]]\nhost = 'h'\nregion = 'r'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dbname = ", "x.toml: not valid TOML"),
        ("user = 'u'\n" + GOOD_NODE, "x.toml: dbname is missing"),
        ("dbname = 'd'\nuser = 7\n" + GOOD_NODE, "x.toml: user is 7, not text"),
        ("dbname = 'd'\nuser = 'u'\n", "x.toml: nodes is missing"),
        ("dbname = 'd'\nuser = 'u'\nnodes = []\n", "x.toml: nodes is empty"),
        ("dbname = 'd'\nuser = 'u'\nnodes = ['h']\n", r"x.toml: nodes\[1\] is not a table"),
        ("dbname = 'd'\nuser = 'u'\n[[nodes]]\nhost = 'h'\n", r"x.toml: nodes\[1\].region is missing"),
        ("dbname = 'd'\nuser = 'u'\n" + GOOD_NODE + "port = 65536\n", r"nodes\[1\].port is 65536"),
        ("dbname = 'd'\nuser = 'u'\n" + GOOD_NODE + "port = true\n", r"nodes\[1\].port is True, not a whole number"),
        ("dbname = 'd'\nuser = 'u'\n" + GOOD_NODE + "zone = '*'\n", r"nodes\[1\].zone '\*' is not a place"),
        ("dbname = 'd'\nuser = 'u'\n" + GOOD_NODE + "prot = 1\n", r"nodes\[1\].prot is not known"),
        ("dbname = 'd'\nuser = 'u'\nrest_certificate = 'x'\n" + GOOD_NODE, "x.toml: rest_cacert is missing"),
        ("dbname = 'd'\nuser = 'u'\n" + GOOD_NODE + "data_directory = '/d'\n", "data_directory is not for attached"),
        ("dbname = 'd'\nuser = 'u'\n" + GOOD_NODE * 2, "two nodes have the host and port 'h:5432'"),
        ("dbname = 'd'\nuser = 'u'\nengine = 'oxen'\n" + GOOD_NODE, "engine 'oxen' is not known"),
        (
            "dbname = 'd'\nuser = 'u'\nengine = 'single'\n" + GOOD_NODE + GOOD_NODE.replace("'h'", "'i'"),
            "engine single has one node, not 2",
        ),
    ],
)
def test_a_malformed_file_is_refused_by_key(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        herdfile.parse_toml(text, "x.toml")
    assert caught.value.hint


def test_a_password_in_the_file_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="password does not belong here") as caught:
        herdfile.parse_toml("dbname = 'd'\nuser = 'u'\npassword = 'hunter2'\n" + GOOD_NODE, "x.toml")
    assert "hunter2" not in str(caught.value.as_json())


def test_default_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGHERD_HOME", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert herdfile.default_home() == tmp_path / ".pgherd"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert herdfile.default_home() == Path("/var/lib/pgherd")
    monkeypatch.setenv("PGHERD_HOME", "~/mine")
    assert herdfile.default_home() == tmp_path / "mine"


def test_endpoints_of_regions_are_kept(tmp_path: Path) -> None:
    endpoints = {
        "eu": herdfile.Endpoint("https://models.eu.example/v1", "m"),
        "us-east": herdfile.Endpoint("http://::1"),
    }
    llms = {"us-east": herdfile.Endpoint("https://chat.example/v1", "big")}
    replace(herd_in(tmp_path), embedding=endpoints, llm=llms).write(tmp_path)
    assert herdfile.read(tmp_path).embedding == endpoints
    assert herdfile.read(tmp_path).llm == llms
    assert "[regions.us-east.llm]" in (tmp_path / "herd.toml").read_text()
    assert "[regions.eu.embedding]" in (tmp_path / "herd.toml").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[regions.mars.embedding]\nurl = 'https://x'", "no node is in that region"),
        ("[regions]\neu = 1", "regions.eu is not a table"),
        ("[regions.eu]\nchat = 1", "regions.eu.chat is not known"),
        ("[regions.eu]\nllm = 1", "regions.eu.llm is 1, not a table"),
        ("[regions.eu.llm]\nmodel = 'm'", "regions.eu.llm.url is missing"),
        ("[regions.eu.llm]\nurl = 'https://x'", "regions.eu.llm.model is missing"),
        ("[regions.eu.llm]\nurl = 'https://x'\nmodel = 'm'\nkey = 'k'", "regions.eu.llm.key is not known"),
        ("[regions.eu.embedding]\nmodel = 'm'", "regions.eu.embedding.url is missing"),
        ("[regions.eu.embedding]\nurl = 1", "regions.eu.embedding.url is 1, not text"),
        ("[regions.eu.embedding]\nurl = 'https://x'\nkey = 'k'", "regions.eu.embedding.key is not known"),
    ],
)
def test_endpoints_that_make_no_sense(tmp_path: Path, text: str, said: str) -> None:
    herd_in(tmp_path).write(tmp_path)
    with (tmp_path / "herd.toml").open("a") as f:
        f.write(text)
    with pytest.raises(BadInput, match=said.replace(".", r"\.")):
        herdfile.read(tmp_path)
