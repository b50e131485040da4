"""Nearest neighbours: every contender at the same recall, in rounds that take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from pgherd.client import AsyncHerd, connect_async
from pgherd.sync import Herd

from .data import REGIONS, Corpus
from .herds import BY_REGION, SINGLE, TABLE_OF, Pair, relations
from .measure import Series, percentile, take_turns
from .searchers import (
    AsyncClient,
    AsyncDriver,
    Client,
    Driver,
    K,
    Searcher,
    nearest,
    nearest_by_function,
    recall,
)

TARGET_RECALL = 0.95
MAX_EF_SEARCH = 1000
HOME = REGIONS[0]
"""The region that routed searches ask for."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Contender:
    """One way to ask, the effort it needs for the recall wanted, and what came of it."""

    name: str
    searcher: Searcher
    ef_search: int
    truth: Sequence[set[int]]
    recall: float = 0.0
    p50_ms: Series = field(default_factory=lambda: Series("p50"))
    p95_ms: Series = field(default_factory=lambda: Series("p95"))
    cpu_ms: Series = field(default_factory=lambda: Series("cpu"))

    def turn(self, corpus: Corpus) -> None:
        """Ask every question once and note the round's percentiles."""
        answers = self.searcher.ask(corpus.questions, self.ef_search)
        self.recall = recall(answers, self.truth)
        self.p50_ms.rounds.append(percentile(answers.ms, 0.5))
        self.p95_ms.rounds.append(percentile(answers.ms, 0.95))
        self.cpu_ms.rounds.append(answers.cpu_ms)


def calibrated(searcher: Searcher, corpus: Corpus, truth: Sequence[set[int]], target: float) -> int:
    """The least ``hnsw.ef_search`` with which the searcher's recall reaches ``target``."""
    low, high = K, MAX_EF_SEARCH
    tried = 40
    while low < high:
        if recall(searcher.ask(corpus.questions, tried), truth) >= target:
            high = tried
        else:
            low = tried + 1
        tried = (low + high) // 2 if high < MAX_EF_SEARCH else min(2 * tried, MAX_EF_SEARCH)
    return low


def measure_search(
    pair: Pair, single: Herd, fleet: Herd, corpus: Corpus, rounds: int, target: float, say: Say
) -> tuple[dict[str, Contender], dict[str, str]]:
    """All contenders by name, and the servers' plans of what they do."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            asynchronous = runner.run(_opened(stack, pair))
            contenders = _contenders(pair, (single, fleet), asynchronous, runner, corpus, target, say)
            for c in contenders:  # connections, prepared statements and caches are warm before the first round
                c.searcher.ask(corpus.questions, c.ef_search)
            say(f"asking: {len(contenders)} ways, {len(corpus.questions)} questions, {rounds} rounds")
            take_turns([lambda c=c: c.turn(corpus) for c in contenders], rounds)  # type: ignore[misc]
            plans = {
                c.name: c.searcher.plan(corpus.questions[0], c.ef_search)
                for c in contenders
                if isinstance(c.searcher, Driver)
            }
            return {c.name: c for c in contenders}, plans
        finally:
            runner.run(stack.aclose())


async def _opened(stack: AsyncExitStack, pair: Pair) -> tuple[AsyncHerd, AsyncHerd]:
    single = await stack.enter_async_context(connect_async(home=pair.single))
    fleet = await stack.enter_async_context(connect_async(home=pair.fleet))
    return single, fleet


def _contenders(
    pair: Pair,
    herds: tuple[Herd, Herd],
    asynchronous: tuple[AsyncHerd, AsyncHerd],
    runner: asyncio.Runner,
    corpus: Corpus,
    target: float,
    say: Say,
) -> list[Contender]:
    single, fleet = herds
    async_single, async_fleet = asynchronous
    truth, truth_home = corpus.nearest(K), corpus.nearest(K, HOME)
    found: list[Contender] = []

    def add(ef_search: int, truth: Sequence[set[int]], searchers: Mapping[str, Searcher]) -> None:
        found.extend(Contender(name, searcher, ef_search, truth) for name, searcher in searchers.items())

    dsn = pair.dsn(pair.single)
    driver = Driver(dsn, nearest(SINGLE))
    ef = calibrated(driver, corpus, truth, target)
    say(f"one server reaches recall {target} with ef_search {ef}")
    add(
        ef,
        truth,
        {
            "psycopg, 1 server": driver,
            "psycopg async, 1 server": AsyncDriver(runner, dsn, nearest(SINGLE)),
            "pgherd, 1 server": Client(single, SINGLE),
            "pgherd async, 1 server": AsyncClient(runner, async_single, SINGLE),
        },
    )
    for shards, table in TABLE_OF.items():
        client = Client(fleet, table)
        ef = calibrated(client, corpus, truth, target)
        say(f"2 groups with {shards} shard(s) each reach it with ef_search {ef}")
        shape = f"2 groups x {shards}"
        add(
            ef,
            truth,
            {
                f"pgherd, {shape}": client,
                f"pgherd async, {shape}": AsyncClient(runner, async_fleet, table),
                f"SQL function, {shape}": _function(pair, table, ef, corpus),
            },
        )
    relation = next(relation for group, relation in relations(fleet, BY_REGION) if group == HOME)
    where, parameters = {"region": HOME}, {"region": HOME}
    dsn = pair.dsn(pair.fleet, HOME)
    statement = nearest(relation, "WHERE region = %(region)s")
    home = Driver(dsn, statement, parameters)
    ef = calibrated(home, corpus, truth_home, target)
    say(f"the shard of {HOME} reaches it with ef_search {ef}")
    add(
        ef,
        truth_home,
        {
            "psycopg, home server": home,
            "psycopg async, home server": AsyncDriver(runner, dsn, statement, parameters),
            "pgherd, routed": Client(fleet, BY_REGION, where),
            "pgherd async, routed": AsyncClient(runner, async_fleet, BY_REGION, where),
            "psycopg, home server, parent table": Driver(
                dsn, nearest(BY_REGION, "WHERE region = %(region)s"), parameters
            ),
        },
    )
    return found


def _function(pair: Pair, table: str, ef_search: int, corpus: Corpus) -> Driver:
    """The SQL function on the first node: sessions that servers open to each other take the database's settings."""
    for node in REGIONS:
        with pair.connect(pair.fleet, node) as connection:
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET hnsw.ef_search = {ef_search}")
    driver = Driver(pair.dsn(pair.fleet, HOME), nearest_by_function(table), sets_ef=False)
    driver.ask(corpus.questions[:1], ef_search)  # opens this session's links, which keep what they were told
    return driver
