"""A shard is split while it is read and written, whoever dies: every row is there, and once, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgherd
from conftest import apply, own_database, reachable
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from pgherd.planning.plan import Plan
from pgherd.planning.split import splits_of
from pgherd.sync import Herd
from test_move import BUSY, FIXED, GROUPS, Load, ask, check_settled, client_writer, plain, plain_writer, reader
from twins import eventually

LEFT = """
SELECT relname::text FROM pg_class WHERE relnamespace = 'pgherd_aside'::regnamespace
UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'pgherd_aside'::regnamespace
UNION ALL SELECT tgname::text FROM pg_trigger WHERE tgname LIKE 'pgherd_split%'
UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND NOT relispartition AND relname ~ '_[0-9]+_[0-9]+$'
"""

KILLED = """
import os, pathlib, sys
import pgherd
from pgherd.engines.servers.two_phase import TwoPhaseTransaction
from pgherd.planning.split import splits_of

home, where, shard = pathlib.Path(sys.argv[1]), *sys.argv[2:4]

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
    herd.execute(herd._inner.engine.plan_splits(splits_of(herd.topology, shard, {})), on_step)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHerd]:
    """Three servers of this module's own, since it kills some."""
    running = LocalHerd(reachable(tmp_path_factory.mktemp("split")) / "herd")
    try:
        running.up([Label.parse(g) for g in GROUPS], EngineName.FLEET)
        yield running
    finally:
        running.destroy()


@pytest.fixture
def home(local: LocalHerd, tmp_path: Path) -> Iterator[Path]:
    yield from own_database(local.home, tmp_path)


def split_of(herd: Herd, name: str) -> Plan:
    return herd._inner.engine.plan_splits(splits_of(herd.topology, name, {}))


def check_split(home: Path) -> None:
    check_settled(home)
    for group in GROUPS:
        assert ask(home, group, LEFT) == [], group


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
