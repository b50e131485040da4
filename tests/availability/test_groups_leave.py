"""Groups with standbys leave a herd and join it while it is in use; machines go on with what else they run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import pgherd
from conftest import apply, reachable
from pgherd import herdfile, members
from pgherd.cli.main import main
from pgherd.dcs import NAMESPACE
from pgherd.errors import LocalServerError
from pgherd.local import herd as local_herd
from pgherd.local import machine
from pgherd.local.herd import LocalHerd
from pgherd.local.processes import Processes
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName

pytestmark = pytest.mark.long

SCHEMA = """
CREATE TABLE doc (id bigint PRIMARY KEY, v vector(2));
SELECT create_distributed_table('doc', 'id', shard_count => 4);
CREATE TABLE country (code text PRIMARY KEY);
SELECT create_reference_table('country');
"""
PLACES = {"one": ("us-east.a", "us-east.b"), "two": ("us-east.b", "us-west.a", "us-west.b")}
"""They share a machine; us-west.a holds a member of etcd, us-west.b nothing but a node of ``two``."""


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    local = LocalHerd(reachable(tmp_path_factory.mktemp("leave")) / "herd")
    groups = {name: [Label.parse(p) for p in places] for name, places in PLACES.items()}
    try:
        local.up(None, EngineName.FLEET, groups=groups, two_node=herdfile.TwoNode.DURABLE)
        with pgherd.connect(home=local.home) as herd:
            apply(herd, SCHEMA)
            herd.table("country").upsert([{"code": "us"}])
            herd.table("doc").insert([{"id": i, "v": [i, 1]} for i in range(200)])
        yield local.home
    finally:
        local.destroy()


def run(home: Path, capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    capsys.readouterr()
    found = main([*arguments, "--home", str(home), "--json"])
    said = capsys.readouterr()
    assert found == status, said.out + said.err
    return json.loads(said.out)


def keys_of(home: Path, group: str) -> list[str]:
    with closing(machine.read(home / "machines" / "local.us-east.a").store()) as store:
        return [e.key for e in store.under(f"{NAMESPACE}{group}/")]


def check_rows(home: Path, *groups: str) -> None:
    with pgherd.connect(home=home) as herd:
        assert [g.name for g in herd.topology.groups] == list(groups)
        for group in groups:
            assert herd.sql("SELECT count(*) FROM doc", region=group) == [{"count": 200}]
            assert herd.sql("SELECT count(*) FROM country", region=group) == [{"count": 1}]


def test_a_group_with_standbys_leaves_and_another_takes_its_place(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = [n for n in herdfile.read(home).nodes if n.group == "two"]
    watcher = machine.watcher_pid(home / "machines" / "local.us-east.b")
    assert keys_of(home, "two")
    with pgherd.connect(home=home) as old:
        done = run(home, capsys, "node", "remove", "two")
        assert done["removed"] == "two"
        assert old.table("doc").upsert([{"id": i, "v": [0, 1]} for i in range(200)]) == 200
    check_rows(home, "one")
    assert [n.group for n in herdfile.read(home).nodes] == ["one", "one"]
    assert keys_of(home, "two") == []
    for node in gone:
        assert not (home / "nodes" / node.name).exists()
        assert Processes(home / "nodes" / node.name).pids() == []
    assert not (home / "machines" / "local.us-west.b").exists()
    assert (home / "machines" / "local.us-west.a").exists()
    assert watcher == machine.watcher_pid(home / "machines" / "local.us-east.b")
    assert [n.name for n in machine.read(home / "machines" / "local.us-east.b").nodes] == ["one-b"]

    joined = run(home, capsys, "node", "add", "--region", "us-east")  # on machines whose watchers run
    assert [g["name"] for g in joined["groups"]] == ["one", "us-east"]
    assert {m["to"] for m in joined["moves"]} == {"us-east"}
    check_rows(home, "one", "us-east")
    LocalHerd(home).down()
    run(home, capsys, "up")
    check_rows(home, "one", "us-east")


def test_killed_while_a_group_is_taken_apart_up_finishes_it(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted with some of its data gone, the rest can't start; nobody tries to."""

    def die(path: Path) -> None:
        if path.name == "two-us-west":
            raise InterruptedError
        remove_tree(path)

    remove_tree = local_herd.remove_tree
    run(home, capsys, "node", "drain", "two")
    monkeypatch.setattr(local_herd, "remove_tree", die)
    with pytest.raises((InterruptedError, LocalServerError)):
        asyncio.run(members.remove(home, "two"))
    monkeypatch.setattr(local_herd, "remove_tree", remove_tree)
    assert any(n.leaving for n in herdfile.read(home).nodes)
    run(home, capsys, "up")
    assert [n.group for n in herdfile.read(home).nodes] == ["one", "one"]
    assert keys_of(home, "two") == []
    check_rows(home, "one")


def test_a_server_that_exists_joins_a_herd_with_standbys_and_it_is_said_what_it_lacks(
    home: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = LocalHerd(reachable(tmp_path_factory.mktemp("stranger")) / "server")
    try:
        stranger.up([Label.parse("far")], EngineName.FLEET)
        node = herdfile.read(stranger.home).nodes[0]
        root = f"sslmode=verify-full&sslrootcert={stranger.home}/ca.crt"
        dsn = f"postgresql://herd:{stranger.password()}@{node.host}:{node.port}/herd?{root}"
        capsys.readouterr()
        assert main(["node", "add", "--region", "far", "--dsn", dsn, "--home", str(home)]) == 0
        assert "nobody takes over when its server dies" in " ".join(capsys.readouterr().err.split())
        check_rows(home, "one", "two", "far")
        with pgherd.connect(home=home) as herd:
            assert "far" in herd.topology.homes.values()
        LocalHerd(home).down()
        run(home, capsys, "up")
        check_rows(home, "one", "two", "far")
        run(home, capsys, "node", "remove", "far")
        check_rows(home, "one", "two")
        assert stranger.running() == {"far": True}
    finally:
        stranger.destroy()
