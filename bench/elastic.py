"""Index builds over several servers, moves against a bare COPY pipe, and what users feel of a rebalance."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pgherd
from pgherd.client import AsyncHerd, connect_async
from pgherd.local.installation import find
from pgherd.local.user import server_user
from pgherd.planning.plan import Step
from pgherd.planning.rebalance import Move

from . import herds
from .data import Corpus, corpus, described
from .herds import Servers, apply, insert, running, settle
from .measure import Series, percentile, take_turns
from .outcome import Goal, Outcome, Table, ratio
from .processors import Meter
from .searchers import K
from .setting import Setting, say
from .worker import Crew, HerdSearch, HerdWrite, Report, errors, times_ms

TABLE = "passage"
BARE, INDEXED = "moved", "moved_indexed"
BUILD_MB = 1024
"""maintenance_work_mem of one server with all rows; two servers get half of it each."""
BEFORE_S = 6.0
"""Longer than planning.move.READERS_S, so that a shard that comes back need not wait for readers."""
READERS, WRITERS = 2, 2
FIRST_WRITTEN, WRITTEN_VECTORS = 10_000_000, 10_000


def run(setting: Setting) -> Outcome:
    """Three parts, each with herds of its own."""
    data = corpus(setting.rows // 2)
    goals, tables, numbers = [], [], {}
    for part in (_builds, _moves, _rebalance):
        found_goals, found_tables, found = part(data, setting)
        goals += found_goals
        tables += found_tables
        numbers |= found
    return Outcome(
        "elastic",
        "Growing, shrinking, building",
        f"{data.n:,} rows: {described(data.dim)}. Servers and clients share this machine, so a move's reading, sending,"
        " writing and index build compete with the searches that are measured.",
        goals,
        tables,
        numbers=numbers,
    )


Part = tuple[list[Goal], list[Table], dict[str, Any]]


def _builds(data: Corpus, setting: Setting) -> Part:
    """One index of all rows with all the memory and processors, against four on two servers with a half each."""
    processors = max(2, os.cpu_count() or 2)
    with ExitStack() as stack:
        servers = stack.enter_context(running(single=1, fleet=2))
        single = stack.enter_context(pgherd.connect(home=servers["single"].home))
        fleet = stack.enter_context(pgherd.connect(home=servers["fleet"].home))
        say(f"index builds: loading {data.n:,} rows")
        plain, spread = herds.plain_table(TABLE, data.dim), herds.hash_table(TABLE, data.dim, 4)
        for herd, text in ((single, plain), (fleet, spread)):
            apply(herd, text)
            insert(herd, TABLE, data.batches())
        settle({(servers["single"], single): [TABLE], (servers["fleet"], fleet): [TABLE]})
        _give(servers["single"], BUILD_MB, processors)
        _give(servers["fleet"], BUILD_MB // 2, processors // 2)

        def plainly(name: str) -> None:
            with servers["single"].connect() as connection:
                connection.execute(_index(name, setting))  # type: ignore[call-overload]

        texts = [spread]

        def applied(name: str) -> None:
            texts.append(_index(name, setting))
            apply(fleet, *texts)

        ways = {
            "CREATE INDEX, 1 server": Build(servers["single"], plainly),
            "pgherd apply, 4 shards on 2 servers": Build(servers["fleet"], applied),
        }
        say(f"index builds: {setting.rounds} rounds")
        take_turns([w.turn for w in ways.values()], setting.rounds)
    base, mine = ways.values()
    rows = [[name, f"{w.seconds.median:.1f}", f"{w.cpu_s.median:.1f}"] for name, w in ways.items()]
    note = (
        f"{BUILD_MB} MB of maintenance_work_mem and {processors} processes in all, for either: one server has them"
        " alone, two have a half each, and each builds its shards one after the other."
    )
    what = "index build over 4 shards on 2 servers, one index of all rows = 1"
    return (
        [ratio(what, mine.seconds, base.seconds, 0.7)],
        [Table("Index builds", ["how", "seconds", "CPU seconds of the servers"], rows, note)],
        {"builds_s": {name: w.seconds.as_json() for name, w in ways.items()}},
    )


def _index(name: str, setting: Setting) -> str:
    return herds.index(TABLE, setting.ef_construction).replace(f"{TABLE}_embedding_idx", name)


class Build:
    """Builds one more index each round; those of earlier rounds stay, for either way, and nobody uses them."""

    def __init__(self, servers: Servers, build: Callable[[str], None]) -> None:
        self._servers, self._build = servers, build
        self.seconds, self.cpu_s = Series("s"), Series("cpu s")

    def turn(self) -> None:
        """Build, and note the time."""
        self._servers.everywhere("CHECKPOINT")
        with Meter(self._servers.pids) as meter:
            self._build(f"round_{len(self.seconds.rounds)}")
        self.seconds.rounds.append(meter.seconds)
        self.cpu_s.rounds.append(meter.server_s)


def _give(servers: Servers, memory_mb: int, processes: int) -> None:
    """What an index build on these servers may use: the one that leads is a process too."""
    servers.everywhere(
        f"ALTER SYSTEM SET maintenance_work_mem = '{memory_mb}MB'",
        f"ALTER SYSTEM SET max_parallel_maintenance_workers = {processes - 1}",
        "SELECT pg_reload_conf()",
    )


@dataclass(slots=True)
class _Steps:
    """How long each kind of step of a plan took."""

    seconds: dict[str, float] = field(default_factory=dict)
    _kind: str = ""
    _since: float = 0.0

    def step(self, number: int, total: int, step: Step) -> None:
        """Called before each step."""
        del number, total
        self.end()
        self._kind, self._since = step.kind, time.perf_counter()

    def end(self) -> None:
        """The last one is over."""
        if self._kind:
            passed = time.perf_counter() - self._since
            self.seconds[self._kind] = self.seconds.get(self._kind, 0.0) + passed
            self._kind = ""


def _moves(data: Corpus, setting: Setting) -> Part:
    """A shard to the other server and back, without and with a vector index, and a pipe of its rows."""
    with ExitStack() as stack:
        servers = stack.enter_context(running(fleet=2))["fleet"]
        herd = stack.enter_context(pgherd.connect(home=servers.home))
        say(f"moves: loading {data.n:,} rows")
        texts = [herds.hash_table(name, data.dim, 2) for name in (BARE, INDEXED)]
        apply(herd, *texts)
        for name in (BARE, INDEXED):
            insert(herd, name, data.batches())
        apply(herd, *texts, herds.index(INDEXED, setting.ef_construction))
        settle({(servers, herd): [BARE, INDEXED]})
        say(f"moves: {setting.rounds} rounds")
        moves, pipes = asyncio.run(_moved(servers, setting.rounds))
    without, with_index = moves[BARE], moves[INDEXED]
    rows = [
        *([f"binary COPY pipe, {name}", f"{s.median / 1e6:.1f}", "", "", ""] for name, s in pipes.items()),
        ["move, no vector index", *without.cells()],
        ["move, with its HNSW index", *with_index.cells()],
    ]
    head = ["what", "MB/s", "copying s", "index build s", "the rest s"]
    note = (
        "The pipe is two psql. Bytes are those of the shard's rows (heap and TOAST), without indexes, for all alike."
        " Copying is the time until the new home has the rows; the key is made with the rest. Before each move"
        " that brings a shard back, readers have had the time that they need to notice that it left."
    )
    keyed = pipes["with primary key"]
    return (
        [
            ratio("bytes/s of a move, a bare COPY pipe into a table with the key = 1", without.bytes_per_s, keyed, 0.5,
                  at_least=True),
            ratio("bytes/s of a move, a bare COPY pipe into a table without any index = 1", without.bytes_per_s,
                  pipes["no index"], 0.5, at_least=True),
        ],
        [Table("A shard to the other server", head, rows, note)],
        {
            "moves": {name: m.as_json() for name, m in moves.items()},
            "pipes_bytes_per_s": {name: s.as_json() for name, s in pipes.items()},
        },
    )  # fmt: skip


@dataclass(slots=True)
class _Moved:
    bytes_per_s: Series = field(default_factory=lambda: Series("bytes/s"))
    copying_s: Series = field(default_factory=lambda: Series("copying"))
    building_s: Series = field(default_factory=lambda: Series("building"))
    rest_s: Series = field(default_factory=lambda: Series("rest"))
    kinds: list[dict[str, float]] = field(default_factory=list)

    def cells(self) -> list[str]:
        return [
            f"{self.bytes_per_s.median / 1e6:.1f}",
            f"{self.copying_s.median:.2f}",
            f"{self.building_s.median:.2f}",
            f"{self.rest_s.median:.2f}",
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "bytes_per_s": self.bytes_per_s.as_json(),
            "copying_s": self.copying_s.as_json(),
            "building_s": self.building_s.as_json(),
            "steps_s": [{kind: round(s, 3) for kind, s in kinds.items()} for kinds in self.kinds],
        }


async def _moved(servers: Servers, rounds: int) -> tuple[dict[str, _Moved], dict[str, Series]]:
    """Moves and pipes in turns. The pipes run while a shard that has just left must stay away."""
    moves = {BARE: _Moved(), INDEXED: _Moved()}
    pipes = {"with primary key": Series("key"), "no index": Series("bare")}
    async with connect_async(home=servers.home) as herd:
        for _ in range(rounds):
            for name, moved in moves.items():
                left = time.perf_counter()
                await _move(herd, servers, name, moved)
                if name == BARE:
                    for keyed, series in zip((True, False), pipes.values(), strict=True):
                        series.rounds.append(_pipe(herd, servers, keyed))
                await asyncio.sleep(max(0.0, BEFORE_S - (time.perf_counter() - left)))
    return moves, pipes


async def _move(herd: AsyncHerd, servers: Servers, table: str, moved: _Moved) -> None:
    shard = herd.topology.shards(herd.topology.table(table))[0]
    target = next(g for g in servers.groups if g != shard.home)
    size = _row_bytes(servers, shard.home, shard.relation.sql)
    plan = herd.engine.plan_moves((Move((shard.relation,), shard.home, herd.topology.group(target).name, size),))
    steps = _Steps()
    started = time.perf_counter()
    await herd.execute(plan, steps.step)
    seconds = time.perf_counter() - started
    steps.end()
    copying = sum(steps.seconds.get(kind, 0.0) for kind in ("keep_changes", "subscribe", "copy_rows"))
    building = steps.seconds.get("build_part", 0.0)
    moved.bytes_per_s.rounds.append(size / seconds)
    moved.copying_s.rounds.append(copying)
    moved.building_s.rounds.append(building)
    moved.rest_s.rounds.append(seconds - copying - building)
    moved.kinds.append(steps.seconds)


def _row_bytes(servers: Servers, group: str, relation: str) -> int:
    with servers.connect(group) as connection:
        row = connection.execute("SELECT pg_table_size(%s::regclass)", [relation]).fetchone()
    assert row is not None
    return int(row[0])


def _pipe(herd: AsyncHerd, servers: Servers, keyed: bool) -> float:
    """Bytes a second of COPY out of the shard and into a new table on the other server."""
    shard = herd.topology.shards(herd.topology.table(BARE))[0]
    target = next(g for g in servers.groups if g != shard.home)
    size = _row_bytes(servers, shard.home, shard.relation.sql)
    with servers.connect(target) as sink:
        sink.execute(f"CREATE TABLE pipe (LIKE {BARE})")
        if keyed:
            sink.execute("ALTER TABLE pipe ADD PRIMARY KEY (id)")
        started = time.perf_counter()
        _copied(servers.dsn(shard.home), servers.dsn(target), shard.relation.sql)
        seconds = time.perf_counter() - started
        sink.execute("DROP TABLE pipe")
    return size / seconds


def _copied(source: str, target: str, relation: str) -> None:
    """Two psql and a pipe between them."""
    programs = find(server_user())
    psql, env = str(programs.program("psql")), {**os.environ, **programs.env}
    out = [psql, "-XqAt", "-d", source, "-c", f"COPY {relation} TO STDOUT (FORMAT binary)"]
    into = [psql, "-Xq", "-d", target, "-c", "COPY pipe FROM STDIN (FORMAT binary)"]
    with subprocess.Popen(out, stdout=subprocess.PIPE, env=env) as giving:
        subprocess.run(into, stdin=giving.stdout, env=env, check=True)
    if giving.returncode:
        raise RuntimeError(f"psql, reading {relation}, ended with {giving.returncode}")


def _rebalance(data: Corpus, setting: Setting) -> Part:
    """Readers and writers before and during moves of two of four shards, to one server and back."""
    reads, writes = _Felt("search"), _Felt("write")
    with ExitStack() as stack:
        servers = stack.enter_context(running(fleet=2))["fleet"]
        herd = stack.enter_context(pgherd.connect(home=servers.home))
        say(f"rebalance: loading {data.n:,} rows and building indexes")
        table = herds.hash_table(TABLE, data.dim, 4)
        apply(herd, table)
        insert(herd, TABLE, data.batches())
        apply(herd, table, herds.index(TABLE, setting.ef_construction))
        settle({(servers, herd): [TABLE]})
        search = HerdSearch(servers.home, TABLE, data.questions, {"ef_search": 40})
        write = HerdWrite(servers.home, TABLE, data.vectors[:WRITTEN_VECTORS], FIRST_WRITTEN, WRITERS)
        readers = stack.enter_context(Crew(search, READERS, len(data.questions)))
        writers = stack.enter_context(Crew(write, WRITERS))
        say(f"rebalance: {setting.rounds} rounds")
        acknowledged: set[int] = set()
        for _ in range(setting.rounds):
            with readers.working() as read, writers.working() as written:
                time.sleep(BEFORE_S)
            acknowledged |= _ids(written)
            reads.before(read)
            writes.before(written)
            with readers.working() as read, writers.working() as written:
                asyncio.run(_exchanged(servers))
            acknowledged |= _ids(written)
            reads.during(read)
            writes.during(written)
        there = herd.sql(f"SELECT id FROM {TABLE} WHERE id >= {FIRST_WRITTEN}")
        missing = acknowledged - {row["id"] for row in there}
    failed = len(reads.errors) + len(writes.errors)
    if failed:
        say(f"errors during the rebalance, the first: {(reads.errors + writes.errors)[0]}")
    rows = [felt.cells() for felt in (reads, writes)]
    note = (
        f"{READERS} processes search and {WRITERS} write single rows, without a pause; every round moves two shards"
        f" with their indexes to the other server, or back. Of {len(acknowledged):,} acknowledged rows"
        f" {len(missing)} were missing afterwards."
    )
    head = ["what", "p50 before ms", "p50 during ms", "p99 before ms", "p99 during ms", "longest during ms", "errors"]
    return (
        [
            ratio("p99 of searches during a rebalance, before it = 1", reads.p99_during, reads.p99_before, 2.0),
            ratio("p99 of writes during a rebalance, before it = 1", writes.p99_during, writes.p99_before, 2.0),
            Goal("errors and lost rows during rebalances", failed + len(missing), 0, failed + len(missing), 0, ""),
        ],
        [Table("Users during a rebalance", head, rows, note)],
        {
            "rebalance": {
                felt.name: {"p99_before_ms": felt.p99_before.as_json(), "p99_during_ms": felt.p99_during.as_json()}
                for felt in (reads, writes)
            }
        },
    )


@dataclass(slots=True)
class _Felt:
    """What users of one kind felt, a round at a time."""

    name: str
    p50_before: Series = field(default_factory=lambda: Series("p50 before"))
    p50_during: Series = field(default_factory=lambda: Series("p50 during"))
    p99_before: Series = field(default_factory=lambda: Series("p99 before"))
    p99_during: Series = field(default_factory=lambda: Series("p99 during"))
    longest_ms: float = 0.0
    errors: list[str] = field(default_factory=list)

    def before(self, reports: list[Report]) -> None:
        self._note(reports, self.p50_before, self.p99_before)

    def during(self, reports: list[Report]) -> None:
        self._note(reports, self.p50_during, self.p99_during)
        self.longest_ms = max(self.longest_ms, *times_ms(reports))

    def _note(self, reports: list[Report], p50: Series, p99: Series) -> None:
        ms = times_ms(reports)
        p50.rounds.append(percentile(ms, 0.5))
        p99.rounds.append(percentile(ms, 0.99))
        self.errors += errors(reports)
        if self.name == "search":
            self.errors += ["fewer rows than asked for" for r in reports for ids in r.ids if len(set(ids)) != K]

    def cells(self) -> list[str]:
        series = (self.p50_before, self.p50_during, self.p99_before, self.p99_during)
        return [self.name, *(f"{s.median:.1f}" for s in series), f"{self.longest_ms:.0f}", str(len(self.errors))]


def _ids(reports: list[Report]) -> set[int]:
    return {key for r in reports for ids in r.ids for key in ids}


async def _exchanged(servers: Servers) -> None:
    """Move the first two shards of the table to the group where they are not."""
    async with connect_async(home=servers.home) as herd:
        chosen = herd.topology.shards(herd.topology.table(TABLE))[:2]
        moves = []
        for shard in chosen:
            target = next(g.name for g in herd.topology.groups if g.name != shard.home)
            moves.append(Move((shard.relation,), shard.home, target, 0))
        await herd.execute(herd.engine.plan_moves(tuple(moves)))
