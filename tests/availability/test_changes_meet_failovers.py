"""Commits over several groups, and moves of shards, when a primary dies in the middle of them."""

from __future__ import annotations

import asyncio

import pytest

import pgherd
from availability.replicated import Replicated, wait_until
from pgherd.engines.base import OnStep
from pgherd.engines.servers import two_phase
from pgherd.errors import HerdError
from pgherd.model.names import Name
from pgherd.model.topology import GroupId
from pgherd.planning.plan import Step
from pgherd.planning.rebalance import Move

pytestmark = pytest.mark.long


def count_of(replicated: Replicated, first: int) -> tuple[int, int]:
    """How many rows from ``first`` on each group has, once no commit is half done any more."""
    with pgherd.connect(home=replicated.home, patience_s=60) as herd:
        herd.recover()
        rows = herd.sql(
            "SELECT place, count(*) AS n FROM entry WHERE id >= %s AND id < %s GROUP BY 1", [first, first + 10]
        )
    found = {r["place"]: int(r["n"]) for r in rows}
    return found.get("here", 0), found.get("there", 0)


@pytest.mark.parametrize("when", ["before the decision", "after it"])
def test_rows_of_two_groups_appear_together_though_a_primary_dies_between(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """``main`` decides, ``other`` is prepared; main's primary dies at the worst moment."""
    first = 5000 if when == "after it" else 6000
    decide = two_phase.TwoPhaseTransaction._decide
    old = replicated.primary()

    async def dying(self: two_phase.TwoPhaseTransaction, decider: str) -> None:
        if when == "after it":
            await decide(self, decider)
        monkeypatch.setattr(two_phase.TwoPhaseTransaction, "_decide", decide)
        await asyncio.to_thread(replicated.kill, replicated.processes(old).pids())
        if when != "after it":
            await decide(self, decider)

    monkeypatch.setattr(two_phase.TwoPhaseTransaction, "_decide", dying)
    rows = [{"id": first + i, "place": place} for i in range(2) for place in ("here", "there")]
    with pgherd.connect(home=replicated.home, patience_s=60) as herd:
        herd.table("entry").upsert(rows)  # may happen twice, so it is seen through
    replicated.new_primary(old)
    assert count_of(replicated, first) == (2, 2)
    wait_until(lambda: leftovers(replicated) == 0)


def test_prepared_rows_survive_the_loss_of_the_server_that_prepared_them(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``main`` takes part and has prepared; it is told that all have committed by its next primary."""
    old = replicated.primary()
    # Groups decide in the order of their names; another order makes `main` the one that is prepared.
    monkeypatch.setattr(two_phase, "sorted", lambda parts, **_: sorted(parts, reverse=True), raising=False)
    decide = two_phase.TwoPhaseTransaction._decide

    async def dying(self: two_phase.TwoPhaseTransaction, decider: str) -> None:
        await decide(self, decider)
        await asyncio.to_thread(replicated.kill, replicated.processes(old).pids())

    monkeypatch.setattr(two_phase.TwoPhaseTransaction, "_decide", dying)
    with pgherd.connect(home=replicated.home, patience_s=60) as herd:
        herd.table("entry").insert([{"id": 7000, "place": "here"}, {"id": 7000, "place": "there"}])
        monkeypatch.undo()
        replicated.new_primary(old)
        wait_until(lambda: leftovers(replicated) == 0)
    assert count_of(replicated, 7000) == (1, 1)


def leftovers(replicated: Replicated) -> int:
    with replicated.connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize("kind", ["copy_rows", "catch_up"])
def test_a_move_undoes_itself_or_completes_when_its_source_dies(replicated: Replicated, kind: str) -> None:
    shard = Name("public", "moving_0")
    with pgherd.connect(home=replicated.home, patience_s=60) as herd:
        herd.table("moving").upsert([{"id": i, "words": str(i)} for i in range(500)])
        source = herd.topology.homes[shard.sql]
    if source != "main":
        move(replicated, shard, GroupId("main"), lambda *_: None)
    old = replicated.primary()

    def killing(number: int, total: int, step: Step) -> None:
        if step.kind == kind and replicated.primary() == old:
            replicated.kill(replicated.processes(old).pids())

    try:
        move(replicated, shard, GroupId("other"), killing)
    except HerdError:
        replicated.new_primary(old)
        wait_until(replicated.in_step)
        move(replicated, shard, GroupId("other"), lambda *_: None)
    replicated.new_primary(old)
    with pgherd.connect(home=replicated.home, patience_s=60) as herd:
        assert herd.topology.homes[shard.sql] == "other"
        assert herd.sql("SELECT count(*) AS n FROM moving") == [{"n": 500}]


def move(replicated: Replicated, shard: Name, target: GroupId, on_step: OnStep) -> None:
    """Move a shard, unless it is there."""
    with pgherd.connect(home=replicated.home, patience_s=60) as herd:
        source = herd.topology.homes[shard.sql]
        if source != target:
            inner = herd._inner
            herd.execute(inner.engine.plan_moves((Move((shard,), source, target, 0),)), on_step)
