"""Drills on real replicas: what is broken is put right, nothing that was acknowledged is lost, and lies are found."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgherd import herdfile
from pgherd.availability import drill as drills
from pgherd.availability.catalogue import FAULTS
from pgherd.availability.checker import Anomaly
from pgherd.availability.drill import drill
from pgherd.availability.faults import Fault, KillNode, OnWrite
from pgherd.availability.ground import Ground
from pgherd.availability.timeline import svg
from pgherd.cli.main import main
from pgherd.errors import AlreadyRunning, BadInput, DrillRefused, ExitStatus, GroupUnavailable
from pgherd.local import machine
from pgherd.local.herd import LocalHerd
from pgherd.local.patroni import REST_USER
from pgherd.local.processes import Processes, is_stopped
from pgherd.local.replicas import MACHINES, derived
from pgherd.model.placement import Label

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="pgherd-drill-"))
    place.chmod(0o711)
    local = LocalHerd(place / "home")
    try:
        local.up([Label.parse("us-east")], replicas=3)
        yield local.home
    finally:
        local.destroy()
        shutil.rmtree(place)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_whole(home: Path) -> Ground:
    """The herd, redundant, without a trace of a drill."""
    with closing(Ground(home, None)) as ground:  # one that was closed opens again when it is asked
        ground.await_redundant()
        with ground.connect() as connection:
            assert connection.execute("SELECT FROM pg_namespace WHERE nspname = 'pgherd_drill'").fetchone() is None
        return ground


@pytest.mark.long
@pytest.mark.parametrize("name", ["kill-server", "kill-host", "disk-full", "second-failure"])
def test_nothing_acknowledged_is_lost_and_the_group_comes_back(home: Path, name: str) -> None:
    report = drill(home, name, rounds=1, seed=1)
    (found,) = report.rounds
    assert found.violations == ()
    assert found.acknowledged > 100
    assert 0 < found.rto_s < 60
    document = report.as_json()
    assert {"drill", "rounds", "rto_s", "lost"} <= set(document)
    assert {"rto_s", "acknowledged", "lost", "two_primaries", "redundant_again_s"} <= set(document["rounds"][0])
    assert svg(report).count("round 1") == 1
    is_whole(home)


@pytest.mark.long
def test_a_drill_that_is_told_to_end_puts_right_what_it_broke_and_no_other_runs_meanwhile(home: Path) -> None:
    script = "from pgherd.cli.main import run; run()"
    command = [sys.executable, "-c", script, "drill", "lose-all-etcd", "--home", str(home)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    etcd = Processes(home / MACHINES)
    try:
        wait_for(lambda: any(map(is_stopped, etcd.pids())))
        with pytest.raises(AlreadyRunning, match="another drill"):
            drill(home, "kill-node", rounds=1)
        running.terminate()
        assert running.wait(60) == 130
    finally:
        running.kill()
        etcd.signal(signal.SIGCONT)
    is_whole(home)


@pytest.mark.long
def test_what_is_broken_is_put_right_when_the_drill_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drills, "measure", fails)
        with pytest.raises(KeyboardInterrupt):
            drill(home, "lose-etcd", rounds=1)
    is_whole(home)


@pytest.mark.long
def test_a_lost_row_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that somebody deletes while the drill runs are lost rows."""

    class Thief(KillNode):
        def strike(self, written: OnWrite) -> Sequence[str]:
            hit = super().strike(written)
            self.ground.await_that(lambda: written(hit[0]), 60)
            with self.ground.connect() as connection:
                connection.execute("UPDATE pgherd_drill.list SET items = items[2:]")
            return hit

    monkeypatch.setitem(FAULTS, "kill-node", Thief)
    (found,) = drill(home, "kill-node", rounds=1).rounds
    assert found.lost > 0
    assert Anomaly.LOST in {v.anomaly for v in found.violations}
    assert not found.kept


@pytest.mark.long
def test_what_can_not_be_drilled_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no drill"):
        drill(home, "burn")
    with pytest.raises(BadInput, match="no group"):
        drill(home, "kill-node", group="moon")
    with pytest.raises(DrillRefused, match="nothing would be left"):
        drill(home, "lose-region", rounds=1)
    is_whole(home)


@pytest.fixture
def attached(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same servers as somebody who didn't start them knows them: their addresses, and those of their Patroni.

    Its REST API is HTTPS, and wants a certificate of its clients.
    """
    file = herdfile.read(home)
    nodes = tuple(replace(n, data_directory=None) for n in file.nodes)
    outside = tmp_path / "attached"
    outside.mkdir()
    known_by = machine.read(home / MACHINES / nodes[0].machine).identity
    replace(file, nodes=nodes, etcd=(), postgres_version=None, rest=known_by).write(outside)
    monkeypatch.setenv("PGHERD_PATRONI_LOGIN", f"{REST_USER}:{derived(LocalHerd(home).password(), 'rest')}")
    return outside


@pytest.mark.long
def test_attached_servers_are_drilled_only_where_that_was_said(
    attached: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Ground(home, None)) as ground:
        ground.await_redundant()
        before = ground.primary().name
        where = ["--home", str(attached), "--rounds", "1"]
        assert main(["drill", "switchover", *where]) == ExitStatus.REFUSED
        assert "--yes-break-production" in capsys.readouterr().err
        assert main(["drill", "kill-server", "--yes-break-production", *where]) == ExitStatus.REFUSED
        assert "can't reach" in capsys.readouterr().err
        assert ground.primary().name == before
        assert main(["drill", "switchover", "--yes-break-production", "--json", *where]) == ExitStatus.DONE
        (found,) = json.loads(capsys.readouterr().out)["rounds"]
        assert (found["lost"], found["two_primaries"]) == (0, 0)
        assert ground.primary().name != before
    monkeypatch.delenv("PGHERD_PATRONI_LOGIN")
    assert main(["switchover", "us-east", "--home", str(attached)]) == ExitStatus.FAILED
    assert "PGHERD_PATRONI_LOGIN" in capsys.readouterr().err
    file = herdfile.read(attached)
    assert file.rest is not None
    for rest, said in (
        (None, "rest_cacert"),
        (replace(file.rest, certificate=None), "rest_certificate"),
        (replace(file.rest, trust=None), "is not trusted"),
    ):
        replace(file, rest=rest).write(attached)
        assert main(["switchover", "us-east", "--home", str(attached)]) == ExitStatus.FAILED
        assert said in capsys.readouterr().err.replace("\n", " ")
    replace(file, nodes=tuple(replace(n, rest_port=None) for n in file.nodes)).write(attached)
    assert main(["switchover", "us-east", "--home", str(attached)]) == ExitStatus.BAD_INPUT
    assert "rest_port" in capsys.readouterr().err
    is_whole(home)


def test_a_group_of_one_node_is_not_broken(single_home: Path) -> None:
    with pytest.raises(DrillRefused, match="one node"):
        drill(single_home, "kill-server")


@pytest.mark.long
def test_up_mends_what_a_killed_drill_left(home: Path) -> None:
    ground = is_whole(home)
    fault: Fault = FAULTS["freeze"](ground, drills.random.Random(1))
    ground.replicas.thaw()
    primary = ground.primary()
    (watcher,) = [ground.watcher(primary.machine)]
    assert watcher is not None
    full = FAULTS["disk-full"](ground, drills.random.Random(1))
    full.strike(lambda _: False)
    fault.strike(lambda _: False)
    LocalHerd(home).up()
    is_whole(home)
    assert Processes(home / "nodes" / primary.name).pids()


@pytest.mark.long
def test_a_herd_that_is_down_is_not_drilled(home: Path) -> None:
    LocalHerd(home).down()
    try:
        with pytest.raises(GroupUnavailable):
            drill(home, "kill-node")
    finally:
        LocalHerd(home).up()
