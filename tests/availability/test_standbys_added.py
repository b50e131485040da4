"""A herd that runs without standbys gets them: Patroni takes its servers over, rows and all."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import pgherd
from availability.replicated import Replicated, wait_until
from conftest import apply, reachable
from pgherd.cli.main import main
from pgherd.dcs import NAMESPACE
from pgherd.errors import ExitStatus
from pgherd.local import machine
from pgherd.local.herd import LocalHerd
from pgherd.local.processes import Processes
from pgherd.local.replicas import MACHINES, Replicas
from pgherd.model.placement import Label

pytestmark = pytest.mark.long

ENTRY = """
CREATE TABLESPACE here WITH (replica_placement = '{"num_replicas": %d, "placement_blocks": [
    {"cloud": "local", "region": "us-east", "zone": "%s", "min_num_replicas": %d}]}');
CREATE TABLE entry (id bigint NOT NULL, place text NOT NULL, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
CREATE TABLE entry_here PARTITION OF entry FOR VALUES IN ('here') TABLESPACE here;
"""
ROWS = [{"id": i, "place": "here"} for i in range(100)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = reachable(tmp_path) / "herd"
    local = LocalHerd(place)
    try:
        local.up(groups={"main": [Label.parse("us-east")]})
        yield place
    finally:
        local.destroy()
        shutil.rmtree(place, ignore_errors=True)


def test_writes_go_on_while_the_first_standbys_are_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes; afterwards the group is as strict as one that was made with them."""
    with pgherd.connect(home=home) as client:
        apply(client, ENTRY % (1, "*", 1))
    wait = Replicas.wait_ready

    def writing(replicas: Replicas, *arguments: Any) -> set[str]:
        watchers = [machine.watcher_pid(replicas.directory(f"local.us-east.{zone}")) for zone in "bc"]
        assert None not in watchers
        for pid in watchers:  # nobody starts the standbys meanwhile
            os.kill(pid or 0, signal.SIGSTOP)
        try:
            for zone in "bc":
                Processes(home / "nodes" / f"main-{zone}").kill()
            with pgherd.connect(home=home, patience_s=60) as other:
                other.table("entry").upsert(ROWS)
        finally:
            for pid in watchers:
                os.kill(pid or 0, signal.SIGCONT)
        return wait(replicas, *arguments)

    def settings() -> dict[str, Any]:
        with closing(machine.read(home / MACHINES / "local.us-east.a").store()) as store:
            entry = store.get(f"{NAMESPACE}main/config")
        assert entry is not None
        return dict(json.loads(entry.value))

    with monkeypatch.context() as patch:
        patch.setattr(Replicas, "wait_ready", writing)
        assert main(["up", "--replicas", "3", "--home", str(home)]) == ExitStatus.DONE
    assert settings()["synchronous_mode_strict"] is True
    replicated = Replicated(home)
    wait_until(replicated.in_step)
    with replicated.connect() as connection:
        assert connection.execute("SELECT count(*) FROM entry_here").fetchone() == (len(ROWS),)


def test_standbys_join_a_group_that_holds_rows(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--home", str(home)]
    with pgherd.connect(home=home) as client:
        apply(client, ENTRY % (1, "a", 1))
        client.table("entry").insert(ROWS)
    assert main(["up", "--replicas", "2", *where]) == ExitStatus.BAD_INPUT
    assert "--two-node" in capsys.readouterr().err
    assert main(["up", "--replicas", "3", *where]) == ExitStatus.BAD_INPUT
    assert "can't have standbys in local.us-east.b, local.us-east.c" in " ".join(capsys.readouterr().err.split())
    with pgherd.connect(home=home) as client:
        apply(client, ENTRY % (1, "*", 1))  # as it was, and open to the region's other zones
    assert main(["up", "--replicas", "3", "--json", *where]) == ExitStatus.DONE
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert [(n["name"], n["zone"]) for n in group["nodes"]] == [("main", "a"), ("main-b", "b"), ("main-c", "c")]
    replicated = Replicated(home)
    wait_until(replicated.in_step)
    old = replicated.primary()
    replicated.kill(replicated.processes(old).pids())
    assert replicated.new_primary(old).name in ("main-b", "main-c")
    with pgherd.connect(home=home, patience_s=60) as client:
        apply(client, ENTRY % (3, "*", 3))
        assert client.sql("SELECT count(*) AS n FROM entry") == [{"n": len(ROWS)}]
    wait_until(replicated.in_step)
    assert main(["up", "--replicas", "2", "--two-node", "durable", *where]) == ExitStatus.BAD_INPUT
    assert "keeps them" in capsys.readouterr().err
