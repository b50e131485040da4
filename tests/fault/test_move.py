"""A shard moves while it is read and written, whoever dies: every row is somewhere, and once, and nothing is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgherd
from conftest import apply, own_database, reachable, sampled
from pgherd import herdfile
from pgherd.engines.servers import executor
from pgherd.errors import GroupUnavailable, HerdBusy
from pgherd.local.herd import LocalHerd
from pgherd.model.codec import topology_to_json
from pgherd.model.names import Name
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from pgherd.planning.plan import Plan, Step
from pgherd.planning.rebalance import Move
from pgherd.planning.split import splits_of
from pgherd.sync import Herd
from twins import child, eventually

GROUPS = ("a", "b", "c")
LEFTOVERS = """
SELECT 'subscription', subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid
    WHERE datname = current_database()
UNION ALL SELECT 'slot', slot_name FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'publication', pubname FROM pg_publication
UNION ALL SELECT 'moving', shard FROM pgherd.moving
UNION ALL SELECT 'prepared', gid FROM pg_prepared_xacts WHERE database = current_database()
UNION ALL SELECT 'aside', relname FROM pg_class WHERE relnamespace = 'pgherd_aside'::regnamespace
UNION ALL SELECT 'check', conrelid::regclass::text FROM pg_constraint WHERE conname = 'pgherd_move'
UNION ALL SELECT 'identity', relname FROM pg_class WHERE relreplident = 'f' AND relnamespace = 'public'::regnamespace
    AND EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
"""
KINDS = """
SELECT relname, relkind, relispartition, pg_get_expr(relpartbound, oid) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'f') AND relispartition ORDER BY 1
"""

KILLED = """
import os, pathlib, signal, sys
import pgherd
from pgherd.engines.servers.two_phase import TwoPhaseTransaction
from pgherd.model.names import Name
from pgherd.planning.rebalance import Move

home, where, source, target = pathlib.Path(sys.argv[1]), *sys.argv[2:5]
shards = tuple(Name.parse(n) for n in sys.argv[5:])

def on_step(number, total, step):
    if where == str(number):
        os._exit(9)

decide = TwoPhaseTransaction._decide

async def dying(self, decider):
    if where == "prepared":
        os._exit(9)
    await decide(self, decider)
    if where == "decided":
        os._exit(9)

with pgherd.connect(home=home) as herd:
    TwoPhaseTransaction._decide = dying
    herd.execute(herd._inner.engine.plan_moves((Move(shards, source, target, 1),)), on_step)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHerd]:
    """Three servers of this module's own, since it kills some."""
    running = LocalHerd(reachable(tmp_path_factory.mktemp("move")) / "herd")
    try:
        running.up([Label.parse(g) for g in GROUPS], EngineName.FLEET)
        yield running
    finally:
        running.destroy()


@pytest.fixture
def home(local: LocalHerd, tmp_path: Path) -> Iterator[Path]:
    yield from own_database(local.home, tmp_path)


def move_of(herd: Herd, target: str, *shards: str) -> Plan:
    names = tuple(Name.parse(s) for s in shards)
    source = herd.topology.homes[names[0].sql]
    return herd._inner.engine.plan_moves((Move(names, source, herd.topology.group(target).name, 1),))


def plain(home: Path, group: str) -> psycopg.Connection[Any]:
    return psycopg.connect(herdfile.read(home).dsn(home, group), autocommit=True)


def ask(home: Path, group: str, query: str) -> list[Any]:
    with plain(home, group) as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]


def check_settled(home: Path) -> None:
    """Nothing is left of any move, and each shard is a table in its home only, and a foreign partition elsewhere."""
    with pgherd.connect(home=home) as herd:
        topology = herd.topology
    homes = {s.relation.name: s.home for t in topology.schema.tables for s in topology.shards(t) if s.path}
    for group in GROUPS:
        assert ask(home, group, LEFTOVERS) == [], group
        found = {name: kind for name, kind, _, _ in ask(home, group, KINDS)}
        assert found == {name: "r" if at == group else "f" for name, at in homes.items()}, group
        assert ask(home, group, "SELECT max(generation) FROM pgherd.topology") == [(topology.generation,)]


# under load

BUSY = """
CREATE TABLE doc (id bigint PRIMARY KEY, n int, v vector(8));
SELECT create_distributed_table('doc', 'id', shard_count => 3);
CREATE INDEX ON doc USING hnsw (v vector_l2_ops);
"""
FIXED = 3000


class Load:
    """Threads that do something again and again until it is over; ``errors`` is what they ran into."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.errors: list[str] = []
        self.rounds: list[int] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[int], None]) -> None:
        which = len(self.rounds)
        self.rounds.append(0)

        def run() -> None:
            while not self.over.is_set():
                try:
                    work(self.rounds[which])
                except Exception as error:
                    self.errors.append(f"{which}: {error!r}")
                    return
                self.rounds[which] += 1

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def goes_on(self) -> None:
        """Wait until everybody has done a few rounds more."""
        goal = [r + 5 for r in self.rounds]
        eventually(lambda: self.errors or all(r >= g for r, g in zip(self.rounds, goal, strict=True)), "work goes on")

    def stop(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(timeout=60)
        assert not any(t.is_alive() for t in self._threads)


def client_writer(herd: Herd, first: int, written: dict[int, int]) -> Callable[[int], None]:
    table = herd.table("doc")

    def work(i: int) -> None:
        key = first + i
        table.upsert([{"id": key, "n": i, "v": [1] * 8}, {"id": key + 50_000, "n": i, "v": [2] * 8}])
        written[key] = written[key + 50_000] = i
        if i % 5 == 4:
            assert table.update({"id": key - 3}, {"n": -1}) == 1
            written[key - 3] = -1
        if i % 7 == 6:
            assert table.delete({"id": key - 5}) == 1
            del written[key - 5]

    return work


def plain_writer(connection: psycopg.Connection[Any], first: int, written: dict[int, int]) -> Callable[[int], None]:
    def work(i: int) -> None:
        connection.execute("INSERT INTO doc VALUES (%s, %s, '[1,1,1,1,1,1,1,1]')", [first + i, i])
        written[first + i] = i

    return work


def reader(herd: Herd) -> Callable[[int], None]:
    table = herd.table("doc")

    def work(i: int) -> None:
        group = GROUPS[i % len(GROUPS)]
        (counted,) = herd.sql("SELECT count(*), sum(id) FROM doc WHERE id < %s", [FIXED], region=group)
        assert counted == {"count": FIXED, "sum": FIXED * (FIXED - 1) // 2}, (group, counted)
        hits = table.search([7] * 8, k=80, where="id < 60", exact=True, columns=["id"])
        assert sorted(h.row["id"] for h in hits) == list(range(60))
        assert table.get(i % FIXED) is not None

    return work


def test_nobody_notices_a_move(home: Path) -> None:
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
        for k, group in enumerate(GROUPS):  # by way of source, target and bystander
            load.start(plain_writer(stack.enter_context(plain(home, group)), 1_000_000 * (k + 1), written))
        seeing = stack.enter_context(pgherd.connect(home=home))
        load.start(reader(seeing))
        try:
            assert herd.topology.homes["public.doc_0"] == "a"
            for target in ("b", "c", "a"):
                load.goes_on()
                herd.execute(move_of(herd, target, "doc_0"))
                assert herd.topology.homes["public.doc_0"] == target
                generation = herd.topology.generation
                eventually(lambda g=generation: load.errors or seeing.topology.generation == g, "readers look again")
            load.goes_on()
        finally:
            load.stop()
        assert load.errors == []
        for group in GROUPS:
            rows = herd.sql("SELECT id, n FROM doc WHERE id >= %s", [FIXED], region=group)
            assert len(rows) == len(written)
            assert {r["id"]: r["n"] for r in rows} == written
    check_settled(home)


def test_a_move_waits_for_no_long_transaction(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up before others queue up behind it, leaves nothing, and works once the transaction is over."""
    monkeypatch.setattr(executor, "SWAP_S", 0.05)
    monkeypatch.setattr(executor, "SWAP_PAUSE_S", 0.05)
    monkeypatch.setattr(executor, "SWAP_ATTEMPTS", 3)
    with pgherd.connect(home=home) as herd, plain(home, "a") as sleeper:
        apply(herd, BUSY)
        herd.table("doc").insert([{"id": i, "n": 0, "v": [i] * 8} for i in range(20)])
        with sleeper.transaction():
            sleeper.execute("SELECT count(*) FROM doc")
            with pytest.raises(HerdBusy, match="another session holds a lock that hold_readers"):
                herd.execute(move_of(herd, "b", "doc_0"))
            herd.table("doc").insert({"id": 50, "n": 0, "v": [1] * 8})
            check_settled(home)
        herd.execute(move_of(herd, "b", "doc_0"))
        assert herd.sql("SELECT count(*) FROM doc") == [{"count": 21}]
    check_settled(home)


# whatever a table has

RICH = """
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.marked := NEW.marked + 1; RETURN NEW; END $$;
CREATE TABLE kind (id int PRIMARY KEY);
SELECT create_reference_table('kind');
CREATE TABLE "Doc ""1"".x" (
    id bigint GENERATED BY DEFAULT AS IDENTITY, region text NOT NULL, n int CHECK (n >= 0),
    twice int GENERATED ALWAYS AS (n * 2) STORED, kind int REFERENCES kind (id), marked int NOT NULL DEFAULT 0,
    v vector(2), PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE "Doc eu" PARTITION OF "Doc ""1"".x" FOR VALUES IN ('eu', 'it''s');
CREATE TABLE "Doc us" PARTITION OF "Doc ""1"".x" FOR VALUES IN ('us') PARTITION BY HASH (id);
CREATE TABLE "Doc rest" PARTITION OF "Doc ""1"".x" DEFAULT;
CREATE INDEX doc_near ON "Doc ""1"".x" USING hnsw (v vector_l2_ops);
CREATE UNIQUE INDEX doc_once ON "Doc ""1"".x" (region, id, n);
CREATE TRIGGER mark BEFORE INSERT ON "Doc ""1"".x" FOR EACH ROW EXECUTE FUNCTION mark();
ALTER TABLE "Doc ""1"".x" ENABLE ROW LEVEL SECURITY;
CREATE ROLE move_reader LOGIN PASSWORD 'r';
CREATE POLICY odd ON "Doc ""1"".x" USING (n % 2 = 1) WITH CHECK (n < 1000);
GRANT SELECT, INSERT ON "Doc ""1"".x" TO move_reader;
GRANT SELECT ON kind TO move_reader;
CREATE TABLE log (id bigint, note text);
SELECT create_distributed_table('log', 'id', shard_count => 2);
"""
DOC = '"Doc ""1"".x"'


def all_rows(home: Path, table: str) -> list[Any]:
    found = [sorted(ask(home, g, f"SELECT t::text FROM {table} t")) for g in GROUPS]
    assert found[0] == found[1] == found[2]
    return found[0]


def test_whatever_a_shard_has_goes_with_it(home: Path) -> None:
    with pgherd.connect(home=home) as herd:
        apply(herd, RICH)
        try:
            herd.sql("INSERT INTO kind VALUES (1), (2)")
            herd.sql(
                f"INSERT INTO {DOC} (region, n, kind, v) SELECT r, i, 1 + i %% 2, ARRAY[i, 1]::vector"
                " FROM generate_series(1, 20) i, unnest(%s::text[]) r",
                [["eu", "us", "it's", "else"]],
            )
            herd.sql("INSERT INTO log SELECT i % 10, 'twice' FROM generate_series(1, 40) i")
            rows, logged = all_rows(home, DOC), all_rows(home, "log")
            moving = ['"Doc eu"', '"Doc rest"', '"Doc us_0"', "log_0", "log_1"]
            before = dict(herd.topology.homes)
            for turn in (1, 2, 0):  # round the circle, and home again
                for shard in moving:
                    at = GROUPS.index(before[Name.parse(shard).sql])
                    target = GROUPS[(at + turn) % 3]
                    herd.execute(move_of(herd, target, shard))
                assert all_rows(home, DOC) == rows
                assert all_rows(home, "log") == logged
                check_settled(home)
                check_rich(herd, home)
            assert herd.topology.homes == before
        finally:
            for group in GROUPS:
                herd.sql("DROP OWNED BY move_reader", region=group)
                herd.sql("DROP ROLE move_reader", region=group)


def check_rich(herd: Herd, home: Path) -> None:
    """Indexes, checks, keys, generated and identity columns, triggers, policies and grants, from every node."""
    at = herd.topology.homes[Name.parse('"Doc eu"').sql]
    with plain(home, at) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = str(
            connection.execute(
                f"EXPLAIN SELECT id FROM {DOC} WHERE region = 'eu' ORDER BY v <-> '[3,1]' LIMIT 1"
            ).fetchall()
        )
        assert "Index Scan using" in plan
        assert "Seq Scan" not in plan
        attached = connection.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'doc_near'::regclass AND inhrelid IN"
            " (SELECT indexrelid FROM pg_index WHERE indrelid = '\"Doc eu\"'::regclass)"
        )
        assert attached.fetchone() == (1,)
    for group in GROUPS:
        with plain(home, group) as connection, connection.transaction(force_rollback=True):
            new = connection.execute(
                f"INSERT INTO {DOC} (region, n, kind, v) VALUES ('eu', 7, 1, '[0,0]') RETURNING id, twice, marked"
            ).fetchone()
            assert new is not None
            assert new[1:] == (14, 1), (group, new)
            for wrong, error in (
                (f"INSERT INTO {DOC} (region, n) VALUES ('eu', -1)", psycopg.errors.CheckViolation),
                (f"INSERT INTO {DOC} (region, kind) VALUES ('eu', 99)", psycopg.errors.ForeignKeyViolation),
                (f"INSERT INTO {DOC} (region, id) VALUES ('eu', {new[0]})", psycopg.errors.UniqueViolation),
                (f"INSERT INTO {DOC} (region, id) VALUES ('eu', NULL)", psycopg.errors.NotNullViolation),
            ):
                with pytest.raises(error), connection.transaction():
                    connection.execute(wrong)  # type: ignore[call-overload]
        node = next(n for n in herdfile.read(home).nodes if n.group == group)
        dsn = f"host={node.host} port={node.port} dbname={herdfile.read(home).dbname} user=move_reader password=r"
        with psycopg.connect(dsn, autocommit=True) as me:
            assert me.execute(f"SELECT count(*), min(n % 2) FROM {DOC}").fetchone() == (40, 1), group
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                me.execute(f"INSERT INTO {DOC} (region, n) VALUES ('eu', 1001)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                me.execute(f"DELETE FROM {DOC}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                me.execute("SELECT * FROM log")


# killed

TIED = """
CREATE TABLE patient (id bigint PRIMARY KEY, n int);
SELECT create_distributed_table('patient', 'id', shard_count => 2);
CREATE TABLE visit (id bigint REFERENCES patient (id) ON DELETE CASCADE, at int);
SELECT create_distributed_table('visit', 'id', shard_count => 2);
"""
STEPS = 36


@pytest.fixture(scope="module")
def tied(local: LocalHerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tables that a foreign key ties, one without a primary key; each test moves them on."""
    for home in own_database(local.home, tmp_path_factory.mktemp("tied")):
        with pgherd.connect(home=home) as herd:
            apply(herd, TIED)
            herd.table("patient").insert([{"id": i, "n": i} for i in range(200)])
            herd.table("visit").insert([{"id": i % 200, "at": i} for i in range(400)])
        yield home


def check_tied(home: Path) -> None:
    check_settled(home)
    for group in GROUPS:
        assert ask(home, group, "SELECT count(*), sum(id) FROM patient") == [(200, 19_900)]
        assert ask(home, group, "SELECT count(*), sum(id), sum(at) FROM visit") == [(400, 39_800, 79_800)]
    with plain(home, "c") as connection, connection.transaction(force_rollback=True):
        with pytest.raises(psycopg.errors.ForeignKeyViolation), connection.transaction():
            connection.execute("INSERT INTO visit SELECT i, 0 FROM generate_series(1000, 1010) i")
        connection.execute("DELETE FROM patient WHERE id < 100")
        assert connection.execute("SELECT count(*) FROM visit").fetchone() == (200,)


@pytest.mark.parametrize("where", sampled(STEPS, "prepared", "decided"))
def test_killed_anywhere_the_next_start_clears_up(tied: Path, where: object) -> None:
    """Invariant 4."""
    with pgherd.connect(home=tied) as herd:
        source = herd.topology.homes["public.patient_0"]
        target = GROUPS[(GROUPS.index(source) + 1) % 3]
        assert len(move_of(herd, target, "patient_0", "visit_0").steps) == STEPS
    process = child(KILLED, tied, where, source, target, "patient_0", "visit_0")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 9, said.decode()
    with pgherd.connect(home=tied) as herd:
        check_tied(tied)
        if herd.topology.homes["public.patient_0"] == source:
            herd.execute(move_of(herd, target, "patient_0", "visit_0"))
            check_tied(tied)
        assert herd.topology.homes["public.patient_0"] == herd.topology.homes["public.visit_0"] == target


@pytest.mark.parametrize("victim", ["source", "target"])
@pytest.mark.parametrize("kind", ["copy_rows", "swap_in"])
def test_a_server_that_dies_during_a_move_undoes_it(tied: Path, local: LocalHerd, victim: str, kind: str) -> None:
    with pgherd.connect(home=tied) as herd:
        source = herd.topology.homes["public.patient_0"]
        target = GROUPS[(GROUPS.index(source) + 1) % 3]
        dead = source if victim == "source" else target

        def strike(number: int, total: int, step: Step) -> None:
            if step.kind == kind and step.target.endswith("patient_0") and local.running()[dead]:
                local.postmaster(dead).kill()

        ports = herdfile.read(local.home).nodes
        try:
            with pytest.raises(GroupUnavailable, match=f"group {dead}"):
                herd.execute(move_of(herd, target, "patient_0", "visit_0"), strike)
        finally:
            assert local.up().nodes == ports
    with pgherd.connect(home=tied) as herd:
        assert herd.topology.homes["public.patient_0"] == source
        check_tied(tied)
        herd.execute(move_of(herd, target, "patient_0", "visit_0"))
    check_tied(tied)


def test_a_client_that_missed_two_moves_writes_where_the_shard_is(home: Path) -> None:
    """It takes a table that is being filled for the shard that was there once."""
    with pgherd.connect(home=home) as herd, pgherd.connect(home=home) as late:
        apply(herd, BUSY)
        late.plan(pgherd.dialect.parse(BUSY))  # reads the topology
        assert late.topology.homes["public.doc_0"] == "a"
        herd.execute(move_of(herd, "b", "doc_0"))

        def write(number: int, total: int, step: Step) -> None:
            if step.kind == "catch_up" and not done:
                done.append(step)
                worker = threading.Thread(
                    target=lambda: done.append(
                        late.table("doc").upsert([{"id": i, "n": i, "v": [1] * 8} for i in range(20)])
                    )
                )
                worker.start()
                worker.join(timeout=60)

        done: list[Any] = []
        herd.execute(move_of(herd, "a", "doc_0"), write)
        assert done[1:] == [20]
        assert late.topology.homes["public.doc_0"] == "b"
        assert herd.sql("SELECT count(*) FROM doc") == [{"count": 20}]
    check_settled(home)


def test_attaching_a_moved_shard_reads_none_of_its_rows(home: Path) -> None:
    """PostgreSQL takes the check for the partition's constraint, whatever types the key is of; no move is undone."""
    text = """
    CREATE TABLE doc (id bigint, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE doc_eu PARTITION OF doc FOR VALUES IN ('eu', 'it''s') PARTITION BY HASH (id, region);
    CREATE TABLE doc_us PARTITION OF doc FOR VALUES IN ('us');
    CREATE TABLE doc_rest PARTITION OF doc DEFAULT;
    CREATE TABLE "Doc x" (a varchar(9), b text, c char(3), d date, e numeric, f uuid, PRIMARY KEY (a, b, c, d, e, f))
        PARTITION BY HASH (b, a, c, d, e, f);
    """
    with pgherd.connect(home=home) as herd:
        apply(herd, text)
        herd.table("doc").insert([{"id": i, "region": r} for i in range(50) for r in ("eu", "it's", "us", "else")])
        herd.sql(
            "INSERT INTO \"Doc x\" SELECT i::text, 'b', i % 7, now(), i, gen_random_uuid()"
            " FROM generate_series(1, 60) i"
        )
        for name in ("doc_eu_0", "doc_us", "doc_rest", '"Doc x_1"'):
            home_of = herd.topology.homes[Name.parse(name).sql]
            target = next(g for g in GROUPS if g != home_of)
            plan = move_of(herd, target, name)
            said: list[str] = []

            def look(
                number: int, total: int, step: Step, plan: Plan = plan, said: list[str] = said, at: str = target
            ) -> None:
                if step.kind != "hold_writers" or said:
                    return
                (swap,) = [s for s in plan.steps if s.kind == "swap_in"]
                with plain(home, at) as connection, connection.transaction(force_rollback=True):
                    connection.execute("SET client_min_messages = debug1")
                    connection.add_notice_handler(lambda d: said.append(d.message_primary or ""))
                    connection.execute(swap.sql)  # type: ignore[call-overload]

            herd.execute(plan, look)
            assert (
                f'partition constraint for table "{Name.parse(name).name}" is implied by existing constraints' in said
            )
        assert herd.sql("SELECT count(*) FROM doc") == [{"count": 200}]
        assert herd.sql('SELECT count(*) FROM "Doc x"') == [{"count": 60}]
    check_settled(home)


SPY = """
CREATE TABLE seen (target text, memory bigint);
CREATE FUNCTION spy() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.seen SELECT object_identity, pg_size_bytes(current_setting('maintenance_work_mem'))
    FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE INDEX';
END $$;
CREATE EVENT TRIGGER spy ON ddl_command_end EXECUTE FUNCTION spy();
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET maintenance_work_mem = %L', current_database(), '1MB'); END $$;
"""


def test_an_index_on_its_way_gets_the_memory_of_its_graph(home: Path) -> None:
    """As one does that is built where it stays; seen in the statement that builds, of a move and of a split."""
    with pgherd.connect(home=home) as herd:
        apply(herd, BUSY.replace("vector(8)", "vector(64)"))
        vector = "(SELECT array_agg(random()) FROM generate_series(1, 64) WHERE i > 0)::vector"
        herd.sql(f"INSERT INTO doc (id, n, v) SELECT i, 0, {vector} FROM generate_series(1, 6000) i")
        shard = next(n for n, at in herd.topology.homes.items() if at == "a")
        stays = next(n for n, at in herd.topology.homes.items() if at == "b")
    with plain(home, "b") as connection:
        connection.execute(SPY)  # type: ignore[call-overload]
    with pgherd.connect(home=home) as herd:
        herd.execute(move_of(herd, "b", Name.parse(shard).sql))
        herd.execute(herd._inner.engine.plan_splits(splits_of(herd.topology, stays, {})))
    seen = ask(home, "b", "SELECT target, memory FROM seen WHERE target LIKE '%v\\_idx'")
    assert len(seen) == 3, ask(home, "b", "SELECT * FROM seen")
    assert all(memory > 1 << 20 for _, memory in seen), seen


def test_search_in_sql_follows_a_move_as_it_is(home: Path) -> None:
    """A move sends no search function to anybody: they look up where shards are."""
    with pgherd.connect(home=home) as herd:
        apply(herd, BUSY)
        herd.table("doc").insert([{"id": i, "n": 0, "v": [i % 7] * 8} for i in range(100)])
        for target in ("b", "c"):
            plan = move_of(herd, target, "doc_0")
            assert "search" not in "".join(s.sql for s in plan.steps)
            herd.execute(plan)
            wanted = sorted(herd.topology.homes.items())
            for group in GROUPS:
                assert sorted(ask(home, group, "SELECT relation, group_name FROM pgherd.home")) == wanted
                found = ask(home, group, "SELECT shard, home FROM pgherd.search_doc('[1,1,1,1,1,1,1,1]', 100)")
                assert len(found) == 100
                ((document,),) = ask(
                    home, group, "SELECT document FROM pgherd.topology ORDER BY generation DESC LIMIT 1"
                )
                assert document == topology_to_json(herd.topology)
                assert {(f"public.{shard}", at) for shard, at in found} == set(wanted)
