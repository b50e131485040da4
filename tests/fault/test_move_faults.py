"""What can go wrong while shards move: servers that die with a writer at work, full disks, Ctrl-C, two rebalances."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pgherd
from conftest import apply, own_database, reachable
from movers import GROUPS, ask, check_settled, three_servers
from pgherd import herdfile
from pgherd.engines.conduct import Conduct, Progress
from pgherd.errors import HerdBusy, HerdError, ServerRefused
from pgherd.local.herd import LocalHerd
from pgherd.local.user import server_user
from pgherd.model.names import Name
from pgherd.planning.plan import Plan, Step
from pgherd.planning.rebalance import Move
from pgherd.sync import Herd
from twins import eventually

DOC = """
CREATE TABLE doc (id bigint PRIMARY KEY, n int, v vector(8));
SELECT create_distributed_table('doc', 'id', shard_count => 2);
CREATE INDEX ON doc USING hnsw (v vector_l2_ops);
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHerd]:
    with three_servers(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture
def home(local: LocalHerd, tmp_path: Path) -> Iterator[Path]:
    yield from own_database(local.home, tmp_path)


@pytest.fixture(scope="module")
def written(local: LocalHerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A table that each test moves on."""
    for home in own_database(local.home, tmp_path_factory.mktemp("written")):
        with pgherd.connect(home=home) as herd:
            apply(herd, DOC)
            herd.table("doc").insert([{"id": i, "n": 0, "v": [i % 7] * 8} for i in range(2000)])
        yield home


def plan_of(herd: Herd, target: str, *shards: str) -> Plan:
    moves = []
    for shard in shards:
        name = Name.parse(shard)
        moves.append(Move((name,), herd.topology.homes[name.sql], herd.topology.group(target).name, 1))
    return herd._inner.engine.plan_moves(tuple(moves))


class Writer:
    """Adds rows, one after the other, whatever happens; ``acknowledged`` are those that nobody may lose."""

    def __init__(self, home: Path, first: int) -> None:
        self.acknowledged: list[int] = []
        self.tried = first
        self._home, self._over = home, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with pgherd.connect(home=self._home) as herd:
            while not self._over.is_set():
                self.tried += 1
                try:
                    herd.table("doc").upsert({"id": self.tried, "n": 1, "v": [1] * 8})
                except HerdError:
                    self._over.wait(0.05)  # a server is down
                else:
                    self.acknowledged.append(self.tried)

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()


STEPS = ("publish", "copy_rows", "build_part", "subscribe", "catch_up", "hold_writers", "swap_in", "sync_shards")


@pytest.mark.parametrize("victim", ["source", "target"])
@pytest.mark.parametrize(
    "kind", [pytest.param(s, marks=pytest.mark.long) if s not in ("copy_rows", "swap_in") else s for s in STEPS]
)
def test_a_server_that_dies_while_a_writer_runs_loses_nothing(
    written: Path, local: LocalHerd, victim: str, kind: str
) -> None:
    """Acknowledged rows are there once afterwards, whether the move came to its end or was undone."""
    with pgherd.connect(home=written) as herd:
        source = herd.topology.homes["public.doc_0"]
        target = GROUPS[(GROUPS.index(source) + 1) % 3]
        dead = source if victim == "source" else target
        (before,) = herd.sql("SELECT max(id) AS last FROM doc")
        writer = Writer(written, max(10_000, before["last"]))

        def strike(number: int, total: int, step: Step) -> None:
            if step.kind == kind and local.running()[dead]:
                local.postmaster(dead).kill()

        try:
            eventually(lambda: writer.acknowledged, "the writer writes")
            with pytest.raises(HerdError):
                herd.execute(plan_of(herd, target, "doc_0"), strike)
        finally:
            local.up()
            writer.stop()
    with pgherd.connect(home=written) as herd:
        check_settled(written)
        assert herd.topology.homes["public.doc_0"] == source
        for group in GROUPS:
            found = {r["id"]: r["times"] for r in herd.sql("SELECT id, count(*) AS times FROM doc GROUP BY 1")}
            assert set(found.values()) == {1}, group
            assert found.keys() >= {*range(2000), *writer.acknowledged}, group
        herd.execute(plan_of(herd, target, "doc_0"))
    check_settled(written)


# rows of any kind

KINDS = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE TABLE plain (id bigint, m mood, d small, tags text[], made timestamptz, j jsonb, h halfvec(3),
    twice bigint GENERATED ALWAYS AS (id * 2) STORED);
SELECT create_distributed_table('plain', 'id', shard_count => 1);
CREATE TABLE odd (id bigint PRIMARY KEY, moods mood[], who regclass, v vector(3)[]);
SELECT create_distributed_table('odd', 'id', shard_count => 1);
"""


def test_rows_arrive_as_they_were_whatever_their_types(home: Path) -> None:
    """Enums' and extensions' numbers differ between servers, so some tables can't be copied in the binary format."""
    with pgherd.connect(home=home) as herd:
        for group in GROUPS[1:]:  # make the servers' numbers differ
            herd.sql("CREATE TYPE public.other AS ENUM ('x')", region=group)
        apply(herd, KINDS)
        herd.sql(
            "INSERT INTO plain SELECT i, 'glad', i % 9, ARRAY['a', NULL, i::text], now(), '{\"a\": 1}', '[1,2,3]'"
            " FROM generate_series(1, 100) i"
        )
        herd.sql(
            "INSERT INTO odd VALUES (1, '{sad,glad}', 'pg_class', ARRAY['[1,2,3]'::vector]), (2, NULL, NULL, NULL)"
        )
        rows = {t: herd.sql(f"SELECT x::text FROM {t} x ORDER BY 1") for t in ("plain", "odd")}
        for shard, binary in (("plain_0", True), ("odd_0", False)):
            source = herd.topology.homes[f"public.{shard}"]
            assert ask(home, source, f"SELECT is_binary FROM pgherd.copy_facts('{shard}')") == [(binary,)]
            herd.execute(plan_of(herd, GROUPS[(GROUPS.index(source) + 1) % 3], shard))
        assert {t: herd.sql(f"SELECT x::text FROM {t} x ORDER BY 1") for t in ("plain", "odd")} == rows
        herd.sql("UPDATE plain SET d = 50 WHERE id = 7")  # there is no key to find it by
        source = herd.topology.homes["public.plain_0"]
        herd.execute(plan_of(herd, GROUPS[(GROUPS.index(source) + 1) % 3], "plain_0"))
        assert herd.sql("SELECT d FROM plain WHERE id = 7") == [{"d": 50}]
    check_settled(home)


def test_moves_say_what_they_took_and_run_two_at_a_time(home: Path) -> None:
    with pgherd.connect(home=home) as herd:
        apply(herd, DOC.replace("=> 2", "=> 3"))
        herd.table("doc").insert([{"id": i, "n": i, "v": [i % 9] * 8} for i in range(3000)])
        herd.table("doc").tune(sample=20)
        calibrated = ask(home, "a", "SELECT relation, document -> 'curve' FROM pgherd.calibration")
        plan = plan_of(herd, "c", "doc_0", "doc_1")
        told: list[tuple[str, str]] = []
        heard: list[Progress] = []
        conduct = Conduct(jobs=2, on_progress=heard.append)
        herd.execute(plan, lambda number, total, step: told.append((step.kind, step.target)), conduct)
        assert told.index(("make_table", "doc_1")) < told.index(("hold_writers", "doc_0"))  # ahead of its turn
        assert [m.move for m in conduct.moved] == [p.move for p in plan.phases]
        for moved in conduct.moved:
            (counted,) = herd.sql(f"SELECT count(*) FROM {moved.move.shards[0].sql}")
            assert moved.rows == counted["count"]
            assert moved.bytes > 40 * moved.rows
            assert moved.writers_waited_ms > 0
        assert {p.stage for p in heard} >= {"copying", "indexing"}
        assert max(p.rows for p in heard) == max(m.rows for m in conduct.moved)
        # what was measured went along, and is as fresh as it was
        assert ask(home, "a", "SELECT relation FROM pgherd.calibration") == []
        assert calibrated[0] in ask(home, "c", "SELECT relation, document -> 'curve' FROM pgherd.calibration")
        moved_along = ask(home, "c", "SELECT document ->> 'definition' FROM pgherd.calibration")
        defined = ask(home, "c", "SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%hnsw%' AND tablename <> 'doc'")
        assert set(moved_along) == set(defined)


def test_a_rate_is_kept(home: Path) -> None:
    """Not timed but counted: with next to no tokens, hardly more than the first piece passes before it is stopped."""
    with pgherd.connect(home=home) as herd:
        apply(herd, "CREATE TABLE wide (id bigint PRIMARY KEY, body text);"
                    "SELECT create_distributed_table('wide', 'id', shard_count => 1)")  # fmt: skip
        herd.sql("INSERT INTO wide SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i")
        source = herd.topology.homes["public.wide_0"]
        plan = plan_of(herd, GROUPS[(GROUPS.index(source) + 1) % 3], "wide_0")
        sizes: list[int] = []

        class Enough(Exception):
            pass

        def heard(progress: Progress) -> None:
            sizes.append(progress.bytes)
            if len(sizes) > 2:
                raise Enough

        began = ask(home, "a", "SELECT clock_timestamp()")[0][0]
        with pytest.raises(Enough):
            herd.execute(plan, None, Conduct(max_rate=500_000, on_progress=heard))
        seconds = (ask(home, "a", "SELECT clock_timestamp()")[0][0] - began).total_seconds()
        assert 0 < sizes[-1] <= 500_000 * seconds + 300_000
        assert herd.topology.homes["public.wide_0"] == source
    check_settled(home)


# a full disk


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 16 MB that the servers may write to."""
    place = reachable(tmp_path_factory.mktemp("small")) / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        server_user().give(place)
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_undoes_the_move_and_names_the_target(home: Path, small_disk: Path) -> None:
    dbname = herdfile.read(home).dbname
    with pgherd.connect(home=home) as herd:
        apply(herd, DOC.replace("vector(8)", "vector(256)").replace("CREATE INDEX", "-- CREATE INDEX"))
        source = herd.topology.homes["public.doc_0"]
        target = GROUPS[(GROUPS.index(source) + 1) % 3]
        rng = np.random.default_rng(1)
        for first in range(0, 40_000, 10_000):
            vectors = rng.standard_normal((10_000, 256)).astype(np.float32)
            herd.table("doc").insert([{"id": first + i, "n": i, "v": v} for i, v in enumerate(vectors)])
    ask(home, target, f"CREATE TABLESPACE little LOCATION '{small_disk}'")
    try:
        ask(home, target, f"ALTER DATABASE {dbname} SET default_tablespace = little")
        with pgherd.connect(home=home) as herd:
            with pytest.raises(ServerRefused, match=f"group {target} has no room left for doc_0") as refused:
                herd.execute(plan_of(herd, target, "doc_0"))
            assert "source is as it was" in refused.value.hint
            assert herd.topology.homes["public.doc_0"] == source
            check_settled(home)
            assert herd.sql("SELECT count(*) FROM doc") == [{"count": 40_000}]
        ask(home, target, f"ALTER DATABASE {dbname} RESET default_tablespace")
        with pgherd.connect(home=home) as herd:
            herd.execute(plan_of(herd, target, "doc_0"))
            assert herd.sql("SELECT count(*) FROM doc") == [{"count": 40_000}]
    finally:
        ask(home, target, f"ALTER DATABASE {dbname} RESET default_tablespace")
        ask(home, target, "DROP TABLESPACE little")


# stopped, and run twice


def test_ctrl_c_undoes_what_is_under_way_and_a_second_change_is_refused_at_once(home: Path) -> None:
    with pgherd.connect(home=home) as herd:
        apply(herd, DOC)
        herd.sql("INSERT INTO doc SELECT i, i, ARRAY[i,1,1,1,1,1,1,1]::vector FROM generate_series(1, 20000) i")
        command = [sys.executable, "-m", "pgherd", "node", "drain", "a", "--max-rate", "20kB", "--home", str(home)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        try:
            copying = "SELECT FROM pg_stat_progress_copy WHERE datname = current_database()"
            eventually(lambda: any(ask(home, g, copying) for g in ("b", "c")), "rows are being copied", 120)
            with pytest.raises(HerdBusy, match=rf"pgherd moves pid {running.pid} on .*, since \d{{4}}-\d\d-\d\d"):
                herd.execute(plan_of(herd, "c", "doc_0"))
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
        assert running.returncode == 130, said
        assert b"stopped after 0 of 1 moves" in said
        check_settled(home)
        again = subprocess.run([*command[:6], *command[8:], "--json"], env=environment, capture_output=True, check=True)
        document = json.loads(again.stdout)
        assert [m["shards"] for m in document["moves"]] == [["doc_0"]]
        assert document["moves"][0]["writers_waited_ms"] > 0
        assert herd.sql("SELECT count(*) FROM doc") == [{"count": 20_000}]
    check_settled(home)
