"""A shard is split while it is read and written, whoever dies: every row is there, and once, and nothing is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgherd
from conftest import apply, own_database, sampled
from movers import (
    BUSY,
    FIXED,
    GROUPS,
    KILLED,
    Load,
    ask,
    check_settled,
    client_writer,
    plain,
    plain_writer,
    reader,
    three_servers,
)
from pgherd.engines.servers import executor
from pgherd.engines.servers.two_phase import TwoPhaseTransaction
from pgherd.errors import ChangeRefused, GroupUnavailable, HerdBusy, UnknownName
from pgherd.local.herd import LocalHerd
from pgherd.model.names import Name
from pgherd.planning.plan import Plan, Step
from pgherd.planning.split import splits_of
from pgherd.sync import Herd
from twins import child, eventually

LEFT = """
SELECT relname::text FROM pg_class WHERE relnamespace = 'pgherd_aside'::regnamespace
UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'pgherd_aside'::regnamespace
UNION ALL SELECT tgname::text FROM pg_trigger WHERE tgname LIKE 'pgherd_split%'
UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND NOT relispartition AND relname ~ '_[0-9]+_[0-9]+$'
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHerd]:
    with three_servers(tmp_path_factory.mktemp("split")) as running:
        yield running


@pytest.fixture
def home(local: LocalHerd, tmp_path: Path) -> Iterator[Path]:
    yield from own_database(local.home, tmp_path)


def split_of(herd: Herd, name: str) -> Plan:
    return herd._inner.engine.plan_splits(splits_of(herd.topology, name, {}))


def check_split(home: Path) -> None:
    check_settled(home)
    for group in GROUPS:
        assert ask(home, group, LEFT) == [], group


@pytest.mark.long
def test_nobody_notices_a_split(home: Path) -> None:
    """Every acknowledged write is there once, no reader misses a row at any moment, and nobody gets an error."""
    written: dict[int, int] = {}
    load = Load()
    with ExitStack() as stack:
        herd = stack.enter_context(pgherd.connect(home=home))
        apply(herd, BUSY)
        herd.table("doc").insert([{"id": i, "n": 0, "v": [i % 7] * 8} for i in range(FIXED)])
        for k in range(2):
            client = stack.enter_context(pgherd.connect(home=home))
            load.start(client_writer(client, 100_000 * (k + 1), written))
        for k, group in enumerate(GROUPS):
            load.start(plain_writer(stack.enter_context(plain(home, group)), 1_000_000 * (k + 1), written))
            load.start(plain_changer(stack.enter_context(plain(home, group)), 5_000_000 + 100_000 * k, written))
        seeing = stack.enter_context(pgherd.connect(home=home))
        load.start(reader(seeing))
        try:
            for name in ("doc_0", "doc", "doc_12_9"):
                load.goes_on()
                herd.execute(split_of(herd, name))
                generation = herd.topology.generation
                eventually(lambda g=generation: load.errors or seeing.topology.generation == g, "readers look again")
            load.goes_on()
        finally:
            load.stop()
        assert load.errors == []
        assert len(herd.topology.shards(herd.topology.table("doc"))) == 9
        for group in GROUPS:
            rows = herd.sql("SELECT id, n FROM doc WHERE id >= %s", [FIXED], region=group)
            assert len(rows) == len(written)
            assert {r["id"]: r["n"] for r in rows} == written
    check_split(home)


def plain_changer(connection: psycopg.Connection[Any], first: int, written: dict[int, int]) -> Any:
    """Inserts, updates and deletes through any node."""

    def work(i: int) -> None:
        connection.execute("INSERT INTO doc VALUES (%s, 0, '[1,1,1,1,1,1,1,1]')", [first + i])
        connection.execute("UPDATE doc SET n = %s WHERE id = %s", [i, first + i])
        written[first + i] = i
        if i % 3 == 2:
            connection.execute("DELETE FROM doc WHERE id = %s", [first + i - 1])
            del written[first + i - 1]

    return work


def test_a_split_waits_for_no_long_transaction(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up before others queue up behind it, and works once the transaction is over."""
    monkeypatch.setattr(executor, "SWAP_S", 0.05)
    monkeypatch.setattr(executor, "SWAP_ATTEMPTS", 3)
    with pgherd.connect(home=home) as herd, plain(home, "c") as sleeper:
        apply(herd, BUSY)
        herd.table("doc").insert([{"id": i, "n": 0, "v": [i] * 8} for i in range(20)])
        with sleeper.transaction():
            sleeper.execute("SELECT count(*) FROM doc")
            with pytest.raises(HerdBusy, match="another session holds a lock that hold_readers"):
                herd.execute(split_of(herd, "doc_0"))
            herd.table("doc").insert({"id": 50, "n": 0, "v": [1] * 8})
        herd.execute(split_of(herd, "doc_0"))  # which clears up what the reader kept the first one from clearing
        assert herd.sql("SELECT count(*) FROM doc") == [{"count": 21}]
    check_split(home)


@pytest.mark.parametrize("truncated", [False, True])
def test_whatever_is_written_while_it_is_copied_is_there(home: Path, truncated: bool) -> None:
    """Between any two steps: keys that change, rows that come, go and come back, all rows at once."""
    rows: list[Any] = []
    with pgherd.connect(home=home) as herd, plain(home, "b") as other, plain(home, "a") as at_home:
        apply(herd, BUSY)
        herd.table("doc").insert([{"id": i, "n": 0, "v": [i] * 8} for i in range(200)])

        def change(number: int, total: int, step: Step) -> None:
            if step.kind not in ("copy_rows", "build_part", "analyze", "catch_up") or step.blocks != "nobody":
                return
            if step.kind == "build_part" and truncated:
                at_home.execute("TRUNCATE doc_0")
            new = "SELECT %s + i, 7, '[1,2,3,4,5,6,7,8]' FROM generate_series(1, 20) i"
            other.execute(f"INSERT INTO doc {new}", [1000 + 20 * number])
            other.execute("UPDATE doc SET n = n + 1 WHERE id IN (SELECT id FROM doc_0 ORDER BY id LIMIT 5)")
            other.execute("DELETE FROM doc WHERE id = (SELECT max(id) FROM doc_0 WHERE id < %s)", [1000 + 20 * number])
            at_home.execute("UPDATE doc_0 SET n = n + 10 WHERE id = (SELECT min(id) FROM doc_0)")
            at_home.execute("UPDATE doc_0 SET id = id WHERE id = (SELECT max(id) FROM doc_0)")
            gone = "DELETE FROM doc_0 WHERE id = (SELECT max(id) FROM doc_0) RETURNING *"
            at_home.execute(f"WITH gone AS ({gone}) INSERT INTO doc SELECT id + 10000, n, v FROM gone")
            rows[:] = sorted(ask(home, "c", "SELECT id, n FROM doc"))

        herd.execute(split_of(herd, "doc_0"), change)
        assert len(rows) > 100
        assert sorted(ask(home, "c", "SELECT id, n FROM doc")) == rows
    check_split(home)


def test_who_comes_between_two_commits_sees_the_last_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a group that has committed, to a home that has not yet: it waits there with the snapshot it has by then."""
    decide = TwoPhaseTransaction._decide
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    counts: list[int] = []
    with pgherd.connect(home=home) as herd, plain(home, "a") as writer, plain(home, "b") as at_home:
        apply(herd, BUSY)
        assert herd.topology.homes["public.doc_1"] == "b"
        router = herd._inner.router(herd.topology.table("doc"))
        keys = [i for i in range(100) if router.route({"id": i}).name == "doc_1"][:8]

        def insert(number: int, total: int, step: Step) -> None:
            if step.kind == "hold_writers":
                at_home.execute("INSERT INTO doc_1 SELECT i, 0 FROM unnest(%s::bigint[]) i", [keys])

        def update() -> None:
            counts.append(writer.execute("UPDATE doc SET n = 1 WHERE id = ANY (%s)", [keys]).rowcount)

        async def decided(self: TwoPhaseTransaction, decider: str) -> None:
            await decide(self, decider)
            if decider == "a" and not late.is_alive() and not counts:
                late.start()
                await asyncio.to_thread(eventually, lambda: ask(home, "b", waiting)[0][0] > 0, "it waits at home")

        late = threading.Thread(target=update)
        monkeypatch.setattr(TwoPhaseTransaction, "_decide", decided)
        herd.execute(split_of(herd, "doc_1"), insert)
        late.join(timeout=60)
        assert counts == [len(keys)]
        assert ask(home, "c", "SELECT count(*) FROM doc WHERE n = 1") == [(len(keys),)]
    check_split(home)


def test_searches_find_the_same_before_and_after(home: Path) -> None:
    """Through the client, in SQL from any node, and by a client that has not heard of it."""
    with pgherd.connect(home=home) as herd, pgherd.connect(home=home) as late:
        apply(herd, BUSY)
        herd.table("doc").insert(
            [{"id": i, "n": i % 5, "v": [i % 7, i % 11, i % 13, 1, 2, 3, 4, i % 17]} for i in range(900)]
        )
        herd.table("doc").tune(sample=20)
        late.plan(pgherd.dialect.parse(BUSY))
        question = [3, 4, 5, 1, 2, 3, 4, 6]

        def found(herd: Herd) -> list[Any]:
            hits = herd.table("doc").search(question, k=30, exact=True, columns=["id", "n"])
            some = herd.table("doc").search(question, k=10, where="n = 3", exact=True, columns=["id"])
            sql = [
                herd.sql("SELECT distance FROM pgherd.search_doc('[3,4,5,1,2,3,4,6]', 30)", region=g) for g in GROUPS
            ]
            return [
                [h.distance for h in hits],
                sorted(h.row["id"] for h in hits if h.distance < hits[-1].distance),
                [h.distance for h in some],
                sql,
            ]

        before = found(herd)
        herd.execute(split_of(herd, "doc"))
        assert late.topology.generation < herd.topology.generation
        assert found(late) == before
        assert found(herd) == before
        assert late.table("doc").get(17) == herd.table("doc").get(17)
        curves = [ask(home, g, "SELECT relation FROM pgherd.calibration") for g in GROUPS]
        assert sorted(r for rows in curves for (r,) in rows) == sorted(herd.topology.homes)
        plan = herd.plan(pgherd.dialect.parse(BUSY))
        assert plan.phases == ()


PATIENTS = """
CREATE TABLE patient (id bigint PRIMARY KEY, n int);
SELECT create_distributed_table('patient', 'id', shard_count => 2);
CREATE TABLE visit (id bigint REFERENCES patient (id) ON DELETE CASCADE, at int, PRIMARY KEY (id, at));
SELECT create_distributed_table('visit', 'id', shard_count => 2);
"""
STEPS = 46


@pytest.fixture(scope="module")
def tied(local: LocalHerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tables that a foreign key ties; each test splits a shard more."""
    for home in own_database(local.home, tmp_path_factory.mktemp("tied")):
        with pgherd.connect(home=home) as herd:
            apply(herd, PATIENTS)
            herd.table("patient").insert([{"id": i, "n": i} for i in range(200)])
            herd.table("visit").insert([{"id": i % 200, "at": i} for i in range(400)])
        yield home


def check_tied(home: Path) -> None:
    check_split(home)
    for group in GROUPS:
        assert ask(home, group, "SELECT count(*), sum(id) FROM patient") == [(200, 19_900)]
        assert ask(home, group, "SELECT count(*), sum(id), sum(at) FROM visit") == [(400, 39_800, 79_800)]
    with plain(home, "c") as connection, connection.transaction(force_rollback=True):
        with pytest.raises(psycopg.errors.ForeignKeyViolation), connection.transaction():
            connection.execute("INSERT INTO visit SELECT i, 0 FROM generate_series(1000, 1010) i")
        connection.execute("DELETE FROM patient WHERE id < 100")
        assert connection.execute("SELECT count(*) FROM visit").fetchone() == (200,)


def coarsest(herd: Herd) -> str:
    shards = herd.topology.shards(herd.topology.table("visit"))
    return str(min(shards, key=lambda s: s.path[-1].bound.modulus).relation)  # type: ignore[union-attr]


@pytest.mark.parametrize("where", sampled(STEPS, "prepared", "decided"))
def test_killed_anywhere_the_next_start_clears_up(tied: Path, where: object) -> None:
    """Invariant 3: the herd as it was, or with the halves, on all nodes."""
    with pgherd.connect(home=tied) as herd:
        shard = coarsest(herd)
        count = len(herd.topology.homes)
        assert len(split_of(herd, shard).steps) == STEPS
    process = child(KILLED, tied, where, shard)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 9, said.decode()
    with pgherd.connect(home=tied) as herd:
        check_tied(tied)
        done = where in ("decided", STEPS - 1, STEPS)
        assert len(herd.topology.homes) == (count + 2 if done else count)


def test_a_home_that_dies_during_a_split_undoes_it(tied: Path, local: LocalHerd) -> None:
    for kind in ("copy_rows", "swap_in"):
        with pgherd.connect(home=tied) as herd:
            shard = coarsest(herd)
            dead = herd.topology.homes[Name.parse(shard).sql]

            def strike(number: int, total: int, step: Step, kind: str = kind, dead: str = dead) -> None:
                if step.kind == kind and local.running()[dead]:
                    local.postmaster(dead).kill()

            try:
                with pytest.raises(GroupUnavailable, match=f"group {dead}"):
                    herd.execute(split_of(herd, shard), strike)
            finally:
                local.up()
        with pgherd.connect(home=tied) as herd:
            assert coarsest(herd) == shard
            check_tied(tied)
            herd.execute(split_of(herd, shard))
        check_tied(tied)


def test_attaching_a_half_reads_none_of_its_rows(home: Path) -> None:
    """PostgreSQL takes the check for the partition's constraint, below a list partition too."""
    text = """
    CREATE TABLE doc (id bigint, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE doc_eu PARTITION OF doc FOR VALUES IN ('eu', 'it''s') PARTITION BY HASH (id, region);
    CREATE TABLE "Doc x" (a varchar(9), b text, id int, PRIMARY KEY (id, a, b)) PARTITION BY HASH (a, b, id);
    """
    with pgherd.connect(home=home) as herd:
        apply(herd, text)
        rows = [{"id": i, "region": r} for i in range(50) for r in ("eu", "it's")]
        herd.table("doc").insert(rows)
        herd.table('"Doc x"').insert([{"id": i, "a": str(i), "b": "b"} for i in range(50)])
        for name in ("doc_eu_0", '"Doc x_0"'):
            plan = split_of(herd, name)
            said: list[str] = []

            def look(number: int, total: int, step: Step, plan: Plan = plan, said: list[str] = said) -> None:
                if step.kind != "hold_writers":
                    return
                swaps = [s for s in plan.steps if s.kind in ("swap_out", "swap_in")]
                with plain(home, swaps[0].groups[0]) as connection, connection.transaction(force_rollback=True):
                    connection.execute("SET client_min_messages = debug1")
                    connection.add_notice_handler(lambda d: said.append(d.message_primary or ""))
                    for swap in swaps:
                        connection.execute(swap.sql)  # type: ignore[call-overload]

            herd.execute(plan, look)
            assert sum("is implied by existing constraints" in s for s in said) == 2, said
        assert herd.sql("SELECT count(*) FROM doc") == [{"count": 100}]
    check_split(home)


def test_a_table_without_a_key_is_refused(home: Path) -> None:
    with pgherd.connect(home=home) as herd:
        apply(herd, "CREATE TABLE log (id bigint); SELECT create_distributed_table('log', 'id', shard_count => 2);")
        with pytest.raises(ChangeRefused, match="no primary key"):
            split_of(herd, "log_0")
        with pytest.raises(UnknownName, match="log_7"):
            split_of(herd, "log_7")
