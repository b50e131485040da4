"""Three servers of a module's own, since it kills some, and what tests of moves and splits ask of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import pgherd
from conftest import reachable
from pgherd import herdfile
from pgherd.local.herd import LocalHerd
from pgherd.model.names import Name
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from pgherd.planning.plan import Plan
from pgherd.planning.rebalance import Move
from pgherd.sync import Herd
from twins import eventually

GROUPS = ("a", "b", "c")
LEFTOVERS = """
SELECT 'subscription', subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid
    WHERE datname = current_database()
UNION ALL SELECT 'slot', slot_name FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'publication', pubname FROM pg_publication
UNION ALL SELECT 'moving', shard FROM pgherd.moving
UNION ALL SELECT 'prepared', gid FROM pg_prepared_xacts WHERE database = current_database()
UNION ALL SELECT 'aside', relname FROM pg_class WHERE relnamespace = 'pgherd_aside'::regnamespace
UNION ALL SELECT 'check', conrelid::regclass::text FROM pg_constraint WHERE conname LIKE 'pgherd_move%'
UNION ALL SELECT 'identity', relname FROM pg_class WHERE relreplident = 'f' AND relnamespace = 'public'::regnamespace
    AND EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
"""
KINDS = """
SELECT relname, relkind, relispartition, pg_get_expr(relpartbound, oid) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'f') AND relispartition ORDER BY 1
"""

KILLED = """
import os, pathlib, sys
import pgherd
from pgherd.engines.servers.two_phase import TwoPhaseTransaction
from pgherd.model.names import Name
from pgherd.planning.rebalance import Move
from pgherd.planning.split import splits_of

home, where, *rest = pathlib.Path(sys.argv[1]), *sys.argv[2:]

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
    engine = herd._inner.engine
    if len(rest) == 1:
        plan = engine.plan_splits(splits_of(herd.topology, rest[0], {}))
    else:
        source, target, *shards = rest
        plan = engine.plan_moves((Move(tuple(map(Name.parse, shards)), source, target, 1),))
    herd.execute(plan, on_step)
"""
"""Dies at a step, or within the commit. HOME WHERE SHARD splits, HOME WHERE SOURCE TARGET SHARD … moves."""


@contextmanager
def three_servers(directory: Path) -> Iterator[LocalHerd]:
    """A fleet of three; nothing of it is left."""
    running = LocalHerd(reachable(directory) / "herd")
    try:
        running.up([Label.parse(g) for g in GROUPS], EngineName.FLEET)
        yield running
    finally:
        running.destroy()


def move_of(herd: Herd, target: str, *shards: str) -> Plan:
    names = tuple(Name.parse(s) for s in shards)
    source = herd.topology.homes[names[0].sql]
    return herd._inner.engine.plan_moves((Move(names, source, herd.topology.group(target).name, 1),))


def plain(home: Path, group: str) -> psycopg.Connection[Any]:
    return psycopg.connect(herdfile.read(home).dsn(home, group), autocommit=True)


def ask(home: Path, group: str, query: str) -> list[Any]:
    with plain(home, group) as connection:
        done = connection.execute(query)  # type: ignore[call-overload]
        return done.fetchall() if done.description is not None else []


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
