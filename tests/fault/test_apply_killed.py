"""A schema change that dies anywhere: the herd is at one generation or the next, and the same command finishes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pgherd
from conftest import sampled
from pgherd import dialect
from pgherd.engines.servers import executor
from pgherd.errors import GroupUnavailable, HerdBusy, HerdError, ServerRefused, StalePlan
from pgherd.local.herd import LocalHerd
from pgherd.model.schema import Schema
from pgherd.planning.plan import Step
from pgherd.sync import Herd
from twins import EAST, WEST, Twins, child, eventually, own_database, two_servers

BEFORE = (
    "CREATE TABLE doc (id bigint PRIMARY KEY, n int); SELECT create_distributed_table('doc', 'id', shard_count => 2);"
)
AFTER = (
    BEFORE.replace("n int", "n int, m mood DEFAULT 'b'").replace(
        "CREATE TABLE", "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE", 1
    )
    + "CREATE TABLE kind (id int PRIMARY KEY); SELECT create_reference_table('kind'); CREATE INDEX doc_n ON doc (n);"
)
STEPS = 9

APPLY = """
import os, pathlib, signal, sys
import pgherd
from pgherd import dialect
from pgherd.engines.servers.two_phase import TwoPhaseTransaction

home, text, where = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
commits = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def on_step(number, total, step):
    if where == str(number):
        os._exit(9)

decide = TwoPhaseTransaction._decide

async def dying(self, decider):
    global commits
    commits += 1
    if where == f"prepared {commits}":
        die()
    await decide(self, decider)
    if where == f"decided {commits}":
        die()

TwoPhaseTransaction._decide = dying
with pgherd.connect(home=home) as herd:
    herd.execute(herd.plan(dialect.parse(text)), on_step)
"""

CATALOG = """
SELECT c.relname, replace(c.relkind::text, 'f', 'r'), a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'f', 'p')
ORDER BY 1, a.attnum
"""
INDEXES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'I'
UNION ALL SELECT enumlabel FROM pg_enum ORDER BY 1
"""
INVALID = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid AND indrelid::regclass::text !~ '^pg_'"
GENERATIONS = "SELECT generation, md5(document::text) FROM pgherd.topology ORDER BY 1"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalHerd]:
    with two_servers() as running:
        yield running


@pytest.fixture
def twins(local: LocalHerd, tmp_path: Path) -> Iterator[Twins]:
    with own_database(local, tmp_path) as found:
        yield found


def herd_at(twins: Twins, text: str) -> int:
    """Apply a file; the generation."""
    with pgherd.connect(home=twins.home) as herd:
        herd.execute(herd.plan(dialect.parse(text)))
        return herd.topology.generation


def state(twins: Twins) -> tuple[list[Any], ...]:
    """What both servers agree to hold."""
    twins.same(GENERATIONS)
    assert twins.ask(EAST, INVALID) == twins.ask(WEST, INVALID) == []
    return twins.same(CATALOG), twins.same(INDEXES), twins.same("SELECT max(generation) FROM pgherd.topology")


@pytest.fixture(scope="module")
def wanted(local: LocalHerd, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], ...]:
    """The state that an undisturbed apply reaches."""
    with own_database(local, tmp_path_factory.mktemp("wanted")) as twins:
        herd_at(twins, BEFORE)
        with pgherd.connect(home=twins.home) as herd:
            plan = herd.plan(dialect.parse(AFTER))
            assert len(plan.steps) == STEPS
            assert [bool(p.builds) for p in plan.phases] == [False, True]
            herd.execute(plan)
        return state(twins)


def kill(twins: Twins, text: str, where: object) -> None:
    process = child(APPLY, twins.home, text, where)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (9, -9), f"{where}: {said.decode()}"


@pytest.mark.parametrize("where", sampled(STEPS, "prepared 1", "decided 1", "prepared 2", "decided 2", every=3))
def test_killed_anywhere_the_same_command_finishes(twins: Twins, wanted: tuple[list[Any], ...], where: object) -> None:
    """Invariant 4."""
    herd_at(twins, BEFORE)
    kill(twins, AFTER, where)
    herd_at(twins, AFTER)
    assert state(twins) == wanted


@pytest.mark.parametrize("where", ["prepared 1", "decided 1"])
def test_killed_while_servers_become_a_herd(twins: Twins, where: str) -> None:
    kill(twins, BEFORE, where)
    herd_at(twins, BEFORE)
    state(twins)
    assert twins.same("SELECT count(*) FROM doc") == [(0,)]


@pytest.mark.parametrize("victim", [EAST, WEST])
def test_a_server_that_dies_during_apply_leaves_nothing_half_done(
    twins: Twins, wanted: tuple[list[Any], ...], victim: str
) -> None:
    herd_at(twins, BEFORE)
    before = state(twins)

    def strike(number: int, total: int, step: Step) -> None:
        if step.kind == "create_table":
            twins.local.postmaster(victim).kill()

    with pgherd.connect(home=twins.home) as herd:
        plan = herd.plan(dialect.parse(AFTER))
        with pytest.raises(GroupUnavailable, match=f"group {victim} does not answer"):
            herd.execute(plan, strike)
        with pytest.raises(GroupUnavailable, match=f"group {victim} does not answer"):
            herd.execute(plan)
        twins.up()
        assert state(twins) == before
        herd.execute(herd.plan(dialect.parse(AFTER)))
    assert state(twins) == wanted


def test_a_herd_opens_and_answers_while_a_server_is_down(twins: Twins) -> None:
    herd_at(twins, BEFORE)
    with pgherd.connect(home=twins.home) as herd:
        herd.table("doc").insert([{"id": i, "n": i} for i in range(20)])
        here = [i for i in range(20) if herd.sql("SELECT 1 FROM doc_0 WHERE id = %s", [i])]
        assert herd.topology.homes["public.doc_0"] == EAST
    twins.local.postmaster(WEST).kill()
    with pgherd.connect(home=twins.home) as herd:
        assert herd.table("doc").get(here[0]) == {"id": here[0], "n": here[0]}
        with pytest.raises(GroupUnavailable, match=f"group {WEST} does not answer"):
            herd.sql("SELECT count(*) FROM doc")


def test_an_index_whose_build_failed_is_built_anew(twins: Twins) -> None:
    herd_at(twins, BEFORE)
    with pgherd.connect(home=twins.home) as herd:
        herd.sql("INSERT INTO doc SELECT i, i FROM generate_series(1, 20) i")
        text = BEFORE + "CREATE UNIQUE INDEX doc_once ON doc (id, (1 / (n - 7)));"
        with pytest.raises(ServerRefused, match="division by zero"):
            herd.execute(herd.plan(dialect.parse(text)))
        left = [row for g in (EAST, WEST) for row in twins.ask(g, INVALID)]
        assert len(left) == 1
        herd.sql("DELETE FROM doc WHERE n = 7")
        herd.execute(herd.plan(dialect.parse(text)))
        assert herd.plan(dialect.parse(text)).phases == ()
    state(twins)


def test_a_plan_for_another_generation_is_refused(twins: Twins) -> None:
    """Invariant 6."""
    herd_at(twins, BEFORE)
    with pgherd.connect(home=twins.home) as herd:
        plan = herd.plan(dialect.parse(AFTER))
        herd_at(twins, BEFORE + "CREATE TABLE other (id int PRIMARY KEY);")
        before = state(twins)
        with pytest.raises(StalePlan, match="made for generation 2, the herd is at 3") as e:
            herd.execute(plan)
        assert e.value.retryable
        assert state(twins) == before


def test_a_plan_whose_later_phase_is_stale_is_refused(twins: Twins) -> None:
    herd_at(twins, BEFORE)
    with pgherd.connect(home=twins.home) as herd:
        plan = herd.plan(dialect.parse(AFTER))
        herd.execute(plan)
        with pytest.raises(StalePlan):
            herd.execute(plan)


def test_of_two_applies_at_once_one_waits_or_is_refused(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    herd_at(twins, BEFORE)
    outcomes: list[str] = []
    texts = [BEFORE + f"CREATE TABLE t{i} (id int PRIMARY KEY);" for i in range(2)]
    ready = threading.Barrier(2)

    def run(text: str) -> None:
        with pgherd.connect(home=twins.home) as herd:
            plan = herd.plan(dialect.parse(text))
            ready.wait(timeout=30)
            try:
                herd.execute(plan)
                outcomes.append("done")
            except HerdError as error:
                outcomes.append(error.code)

    threads = [threading.Thread(target=run, args=[t]) for t in texts]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=60)
    assert sorted(outcomes) == ["done", "stale_plan"]
    assert state(twins)[2] == [(3,)]
    for text in texts:
        herd_at(twins, text)
    assert twins.same("SELECT count(*) FROM pg_class WHERE relname IN ('t0', 't1')") == [(2,)]


def test_a_change_that_runs_for_long_keeps_others_out(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    herd_at(twins, BEFORE)
    monkeypatch.setattr(executor, "LOCK_WAIT_S", 0.3)
    at_work, go_on = threading.Event(), threading.Event()
    refused: list[Exception] = []

    def pause(number: int, total: int, step: Step) -> None:
        at_work.set()
        assert go_on.wait(timeout=30)

    def second(schema: Schema, herd: Herd) -> None:
        try:
            herd.execute(herd.plan(schema))
        except HerdError as error:
            refused.append(error)

    with pgherd.connect(home=twins.home) as first, pgherd.connect(home=twins.home) as other:
        plan = first.plan(dialect.parse(AFTER))
        worker = threading.Thread(target=first.execute, args=[plan, pause])
        worker.start()
        assert at_work.wait(timeout=30)
        second(dialect.parse(AFTER), other)
        go_on.set()
        worker.join(timeout=60)
    assert [type(e) for e in refused] == [HerdBusy]
    assert twins.same("SELECT max(generation) FROM pgherd.topology") == [(4,)]


def test_apply_does_not_queue_behind_a_long_reader(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting ALTER TABLE would keep everybody out who comes after it."""
    herd_at(twins, BEFORE)
    monkeypatch.setattr(executor, "LOCK_WAIT_S", 0.3)
    before = state(twins)
    with pgherd.connect(home=twins.home) as herd, twins.connect(WEST) as reader:
        with reader.transaction():
            reader.execute("SELECT count(*) FROM doc")
            with pytest.raises(HerdBusy, match="another session holds a lock that add_column"):
                herd.execute(herd.plan(dialect.parse(AFTER)))
        assert state(twins) == before
        herd.execute(herd.plan(dialect.parse(AFTER)))
    eventually(lambda: twins.prepared() == 0, "nothing is left prepared")
