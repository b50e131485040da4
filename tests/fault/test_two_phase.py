"""Rows written together appear together, whoever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgherd
from pgherd import dialect
from pgherd.engines.open import open_home
from pgherd.engines.servers.engine import ServersEngine
from pgherd.engines.servers.two_phase import TwoPhaseTransaction
from pgherd.errors import GroupUnavailable, InDoubt, ServerRefused
from pgherd.local.herd import LocalHerd
from twins import EAST, WEST, Twins, child, eventually, own_database, two_servers

SCHEMA = "CREATE TABLE doc (id bigint PRIMARY KEY); SELECT create_distributed_table('doc', 'id', shard_count => 2);"
ROWS = list(range(20))

WRITE = """
import os, pathlib, signal, sys
import pgherd
from pgherd.engines.servers.two_phase import TwoPhaseTransaction

home, where = pathlib.Path(sys.argv[1]), sys.argv[2]
real = {"claimed": "_claim", "decided": "_decide"}.get(where, "_decide")
wrapped = getattr(TwoPhaseTransaction, real)

async def dying(self, *args):
    if where == "prepared":
        os.kill(os.getpid(), signal.SIGKILL)
    await wrapped(self, *args)
    os.kill(os.getpid(), signal.SIGKILL)

with pgherd.connect(home=home) as herd:
    setattr(TwoPhaseTransaction, real, dying)
    herd.table("doc").insert([{"id": i} for i in range(20)])
"""


@pytest.fixture(scope="module")
def local() -> Iterator[LocalHerd]:
    with two_servers() as running:
        yield running


@pytest.fixture
def twins(local: LocalHerd, tmp_path: Path) -> Iterator[Twins]:
    with own_database(local, tmp_path) as found:
        with pgherd.connect(home=found.home) as herd:
            herd.execute(herd.plan(dialect.parse(SCHEMA)))
        yield found


@asynccontextmanager
async def engine(twins: Twins) -> AsyncIterator[ServersEngine]:
    opened = await open_home(twins.home)
    try:
        yield opened
    finally:
        await opened.close()


def rows(twins: Twins) -> int:
    ((count,),) = twins.same("SELECT count(*) FROM doc")
    return int(count)


async def write(transaction: TwoPhaseTransaction, first: int = 0) -> None:
    """A row in each of the shards."""
    for group, shard in ((EAST, "doc_0"), (WEST, "doc_1")):
        connection = await transaction.on(group)
        fits = """SELECT i FROM generate_series(%s::int, %s) i
            WHERE satisfies_hash_partition('doc'::regclass, 2, %s, i::bigint) LIMIT 1"""
        found = await connection.execute(fits, [first, first + 100, int(shard[-1])])
        row = await found.fetchone()
        assert row is not None
        await connection.execute(f"INSERT INTO {shard} VALUES (%s)", [row[0]])


@pytest.mark.parametrize(
    ("where", "prepared", "appear"), [("claimed", 0, 0), ("prepared", 1, 0), ("decided", 1, len(ROWS))]
)
def test_what_a_killed_writer_left_is_settled(twins: Twins, where: str, prepared: int, appear: int) -> None:
    process = child(WRITE, twins.home, where)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -9, said.decode()
    eventually(
        lambda: twins.ask(EAST, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'") == [(0,)], ""
    )
    assert twins.prepared() == prepared

    async def settle() -> int:
        async with engine(twins) as opened:  # opening settles, too
            return await opened.recover()

    assert asyncio.run(settle()) == 0
    assert twins.prepared() == 0
    assert rows(twins) == appear


def test_a_live_coordinator_is_left_alone(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = TwoPhaseTransaction._decide

    async def run() -> tuple[int, int]:
        ready, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(self: TwoPhaseTransaction, decider: str) -> None:
            ready.set()
            await go_on.wait()
            await decide(self, decider)

        async with engine(twins) as writer:

            async def work() -> None:
                async with writer.transaction() as transaction:
                    await write(transaction)

            monkeypatch.setattr(TwoPhaseTransaction, "_decide", slowly)
            task = asyncio.create_task(work())
            await ready.wait()
            async with engine(twins) as other:
                settled = await other.recover()
                left = await asyncio.to_thread(twins.prepared)
            go_on.set()
            await task
        return settled, left

    assert asyncio.run(run()) == (0, 1)
    assert rows(twins) == 2
    assert twins.prepared() == 0


def test_an_exception_undoes_all_of_it(twins: Twins) -> None:
    async def change_mind(opened: ServersEngine) -> None:
        async with opened.transaction() as transaction:
            await write(transaction)
            raise RuntimeError("changed my mind")

    async def run() -> None:
        async with engine(twins) as opened:
            with pytest.raises(RuntimeError, match="changed my mind"):
                await change_mind(opened)
            async with opened.transaction() as transaction:
                await write(transaction)

    asyncio.run(run())
    assert rows(twins) == 2


def test_a_part_that_failed_unnoticed_stops_the_commit(twins: Twins) -> None:
    """PREPARE TRANSACTION of a failed transaction is a quiet ROLLBACK, not an error."""

    async def overlook(opened: ServersEngine, broken: str) -> None:
        async with opened.transaction() as transaction:
            await write(transaction)
            connection = await transaction.on(broken)
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1 / 0")

    async def run(broken: str) -> None:
        async with engine(twins) as opened:
            with pytest.raises(ServerRefused):
                await overlook(opened, broken)

    for broken in (EAST, WEST):
        asyncio.run(run(broken))
        assert rows(twins) == 0
    assert twins.prepared() == 0


@pytest.mark.parametrize("point", ["_claim", "_decide"])
def test_a_cancelled_commit_is_whole(twins: Twins, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    real: Any = getattr(TwoPhaseTransaction, point)

    async def run() -> None:
        reached = asyncio.Event()

        async def slowly(self: TwoPhaseTransaction, *args: str) -> None:
            reached.set()
            await asyncio.sleep(0)
            await real(self, *args)
            await asyncio.sleep(0)

        monkeypatch.setattr(TwoPhaseTransaction, point, slowly)
        async with engine(twins) as opened:

            async def work() -> None:
                async with opened.transaction() as transaction:
                    await write(transaction)

            task = asyncio.create_task(work())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert rows(twins) == 2
    assert twins.prepared() == 0


def test_a_decider_that_dies_before_it_decides_has_decided_nothing(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = TwoPhaseTransaction._decide

    async def killed(self: TwoPhaseTransaction, decider: str) -> None:
        await asyncio.to_thread(twins.local.postmaster(decider).kill)
        await decide(self, decider)

    async def run() -> None:
        async with engine(twins) as opened:
            with monkeypatch.context() as patch:
                patch.setattr(TwoPhaseTransaction, "_decide", killed)
                with pytest.raises(InDoubt, match=f"group {EAST} went away during the commit"):
                    async with opened.transaction() as transaction:
                        await write(transaction)
            with pytest.raises(GroupUnavailable):
                await opened.recover()
            await asyncio.to_thread(twins.up)
            assert await opened.recover() <= 1  # or it has been settled in the background
            assert await opened.recover() == 0
            async with opened.transaction() as transaction:
                await write(transaction, 1000)

    asyncio.run(run())
    assert rows(twins) == 2
    assert twins.prepared() == 0


def test_a_part_that_dies_after_the_decision_gets_its_rows(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = TwoPhaseTransaction._decide

    async def then_kill(self: TwoPhaseTransaction, decider: str) -> None:
        await decide(self, decider)
        await asyncio.to_thread(twins.local.postmaster(WEST).kill)

    async def run() -> None:
        async with engine(twins) as opened:
            with monkeypatch.context() as patch:
                patch.setattr(TwoPhaseTransaction, "_decide", then_kill)
                async with opened.transaction() as transaction:
                    await write(transaction)
            await asyncio.to_thread(twins.up)
            assert await opened.recover() <= 1  # or it has been settled in the background
            assert await opened.recover() == 0

    asyncio.run(run())
    assert rows(twins) == 2
    assert twins.prepared() == 0


def test_a_part_that_dies_before_it_is_prepared_undoes_all(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = TwoPhaseTransaction._claim

    async def then_kill(self: TwoPhaseTransaction, decider: str, gid: str) -> None:
        await claim(self, decider, gid)
        await asyncio.to_thread(twins.local.postmaster(WEST).kill)

    async def run() -> None:
        async with engine(twins) as opened:
            with monkeypatch.context() as patch:
                patch.setattr(TwoPhaseTransaction, "_claim", then_kill)
                with pytest.raises(GroupUnavailable, match=f"group {WEST} does not answer"):
                    async with opened.transaction() as transaction:
                        await write(transaction)
            await asyncio.to_thread(twins.up)
            assert await opened.recover() == 0

    asyncio.run(run())
    assert rows(twins) == 0


def test_decisions_do_not_pile_up(twins: Twins) -> None:
    async def run() -> None:
        async with engine(twins) as opened:
            for i in range(5):
                async with opened.transaction() as transaction:
                    await write(transaction, 1000 * i)

    asyncio.run(run())
    assert rows(twins) == 10
    assert twins.ask(EAST, "SELECT count(*) FROM pgherd.decision") == [(0,)]
