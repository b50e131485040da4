"""Nearest neighbours: routed to one home or scattered over all, against one server and against Citus."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack

import pgherd
from pgherd.client import AsyncHerd, connect_async
from pgherd.sync import Herd

from . import citus, herds
from .contenders import Contender, calibrated, compete, searches_table
from .data import REGIONS, Corpus, corpus, described
from .herds import Servers, apply, insert, running, settle, shards
from .outcome import Goal, Outcome, plain, ratio
from .searchers import AsyncClient, AsyncDriver, Client, Driver, K, Searcher, nearest, nearest_by_function
from .setting import Setting, say

SINGLE = "passage"
BY_REGION = "passage_by_region"
TABLE_OF = {1: "passage_1", 2: "passage_2"}
"""The fleet's hash-distributed table with so many shards a group."""
GRAPHS = 3
"""The indexes are built so many times: what effort the same rows take differs from graph to graph, by chance."""
HOME = REGIONS[0]
"""The region that routed searches ask for."""


def run(setting: Setting) -> Outcome:
    """Ask one server, a fleet of two in all its ways, and Citus if there is one."""
    data = corpus(setting.rows)
    with ExitStack() as stack:
        servers = stack.enter_context(running(single=1, fleet=2))
        single_servers, fleet_servers = servers["single"], servers["fleet"]
        single = stack.enter_context(pgherd.connect(home=single_servers.home))
        fleet = stack.enter_context(pgherd.connect(home=fleet_servers.home))
        say(f"loading {data.n:,} rows and building indexes")
        _fill(single, fleet, data, setting)
        settle({(single_servers, single): [SINGLE], (fleet_servers, fleet): [*TABLE_OF.values(), BY_REGION]})
        bench = _Bench(data, setting, single_servers, fleet_servers, single, fleet)
        left_out = []
        if setting.citus is None:
            left_out.append(citus.LEFT_OUT)
        else:
            bench.start_citus(stack, setting.citus)
        runner = stack.enter_context(asyncio.Runner())
        opened = AsyncExitStack()
        stack.callback(lambda: runner.run(opened.aclose()))
        clients, rounds = runner.run(bench.opened(opened)), (setting.rounds + 1) // 2
        for graph in range(GRAPHS):
            if graph:
                say(f"building all indexes again, {graph + 1} of {GRAPHS}")
                bench.rebuild()
            contenders = [*bench.blocking(), *bench.asynchronous(runner, clients), *bench.at_citus()]
            say(f"asking: {len(contenders)} ways, {len(data.questions)} questions, {rounds} rounds")
            compete(contenders, data.questions, rounds)
        plans = {
            c.name: c.searcher.plan(data.questions[0], c.effort) for c in contenders if isinstance(c.searcher, Driver)
        }
    by_name = {c.name: c for c in contenders}
    return Outcome(
        "search",
        "Searches, one after the other",
        f"{data.n:,} rows: {described(data.dim)}. `psycopg` is the plain driver on a warm connection: prepared, binary,"
        " the same columns. `2 groups x 2` are two groups with two shards each. The effort is the least"
        " `hnsw.ef_search` with which the recall is reached. The client's CPU is all that its process used for a"
        " search, the driver included. Servers and client share this machine: two groups have no more hardware than"
        f" one server. All indexes are built {GRAPHS} times, each for as many rounds.",
        _goals(by_name),
        [searches_table("All ways", contenders)],
        left_out=left_out,
        numbers={"search": {c.name: c.as_json() for c in contenders}, "plans": plans},
    )


def _fill(single: Herd, fleet: Herd, data: Corpus, setting: Setting) -> None:
    """Tables, rows, then indexes."""
    on_single = [herds.plain_table(SINGLE, data.dim)]
    on_fleet = [herds.hash_table(name, data.dim, n * len(REGIONS)) for n, name in TABLE_OF.items()]
    on_fleet.append(herds.region_table(BY_REGION, data.dim))
    apply(single, *on_single)
    apply(fleet, *on_fleet)
    tables = data.batches()
    insert(single, SINGLE, tables)
    for name in (*TABLE_OF.values(), BY_REGION):
        insert(fleet, name, tables)
    ef = setting.ef_construction
    apply(single, *on_single, herds.index(SINGLE, ef))
    apply(fleet, *on_fleet, *(herds.index(name, ef) for name in (*TABLE_OF.values(), BY_REGION)))


class _Bench:
    """The contenders, each at the least effort that reaches the recall."""

    def __init__(
        self, data: Corpus, setting: Setting, single_servers: Servers, fleet_servers: Servers, single: Herd, fleet: Herd
    ) -> None:
        self._data, self._setting = data, setting
        self._single_servers, self._fleet_servers = single_servers, fleet_servers
        self._single, self._fleet = single, fleet
        self._truth, self._truth_home = data.nearest(K), data.nearest(K, HOME)
        self._relation = next(relation for group, relation in shards(fleet, BY_REGION) if group == HOME)
        self._efforts: dict[str, int] = {}
        self._known: dict[str, Contender] = {}
        self._citus: tuple[Servers, list[Servers]] | None = None

    def start_citus(self, stack: ExitStack, pg_config: str) -> None:
        """Let Citus take part."""
        say("starting Citus")
        self._citus = stack.enter_context(citus.started(pg_config))
        citus.fill(self._citus[0], self._data, self._setting.ef_construction)

    def rebuild(self) -> None:
        """Build all indexes anew."""
        herds.rebuild(self._single_servers, self._single, SINGLE)
        for table in (*TABLE_OF.values(), BY_REGION):
            herds.rebuild(self._fleet_servers, self._fleet, table)
        if self._citus is not None:
            citus.rebuild(self._citus[0])
        fleet = [*TABLE_OF.values(), BY_REGION]
        settle({(self._single_servers, self._single): [SINGLE], (self._fleet_servers, self._fleet): fleet})

    def at_citus(self) -> list[Contender]:
        """Citus' coordinator, if there is one."""
        if self._citus is None:
            return []
        coordinator, workers = self._citus
        return [self.contender("Citus, 2 workers x 2", citus.CitusDriver(coordinator, [coordinator, *workers]))]

    def contender(self, name: str, searcher: Searcher, effort: int | None = None, *, home: bool = False) -> Contender:
        """With the effort that it needs, if that is not known."""
        truth = self._truth_home if home else self._truth
        if effort is None:
            effort = calibrated(name, searcher, self._data.questions, truth, self._setting.recall)
            say(f"{name} reaches recall {self._setting.recall} with effort {effort}")
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Contender(name, searcher, effort, truth)
        else:
            known.before.append(known.effort)
            known.searcher, known.effort = searcher, effort
        return known

    def blocking(self) -> Sequence[Contender]:
        """Those that wait in their own thread; they find the efforts for all."""
        driver = self.contender("psycopg, 1 server", Driver(self._single_servers.dsn(), nearest(SINGLE)))
        self._efforts["single"] = driver.effort
        found = [driver, self.contender("pgherd, 1 server", Client(self._single, SINGLE), driver.effort)]
        for count, table in TABLE_OF.items():
            shape = f"2 groups x {count}"
            client = self.contender(f"pgherd, {shape}", Client(self._fleet, table))
            self._efforts[table] = client.effort
            function = self._function(table, client.effort)
            found += [client, self.contender(f"SQL function, {shape}", function, client.effort)]
        dsn, where = self._fleet_servers.dsn(HOME), {"region": HOME}
        condition = "WHERE region = %(region)s"
        home = self.contender("psycopg, home server", Driver(dsn, nearest(self._relation, condition), where), home=True)
        effort = self._efforts["home"] = home.effort
        routed = Client(self._fleet, BY_REGION, where)
        parent = Driver(dsn, nearest(BY_REGION, condition), where)
        found += [home, self.contender("pgherd, routed", routed, effort, home=True)]
        return [*found, self.contender("psycopg, home server, parent table", parent, effort, home=True)]

    async def opened(self, stack: AsyncExitStack) -> tuple[AsyncHerd, AsyncHerd]:
        """Both herds' async clients."""
        single = await stack.enter_async_context(connect_async(home=self._single_servers.home))
        return single, await stack.enter_async_context(connect_async(home=self._fleet_servers.home))

    def asynchronous(self, runner: asyncio.Runner, opened: tuple[AsyncHerd, AsyncHerd]) -> Sequence[Contender]:
        """Those in an event loop."""
        single, fleet = opened
        ef, dsn = self._efforts, self._fleet_servers.dsn(HOME)
        where = {"region": HOME}
        statement = nearest(self._relation, "WHERE region = %(region)s")
        driver = AsyncDriver(runner, self._single_servers.dsn(), nearest(SINGLE))
        found = [
            self.contender("psycopg async, 1 server", driver, ef["single"]),
            self.contender("pgherd async, 1 server", AsyncClient(runner, single, SINGLE), ef["single"]),
        ]
        for count, table in TABLE_OF.items():
            client = AsyncClient(runner, fleet, table)
            found.append(self.contender(f"pgherd async, 2 groups x {count}", client, ef[table]))
        home = AsyncDriver(runner, dsn, statement, where)
        routed = AsyncClient(runner, fleet, BY_REGION, where)
        return [
            *found,
            self.contender("psycopg async, home server", home, ef["home"], home=True),
            self.contender("pgherd async, routed", routed, ef["home"], home=True),
        ]

    def _function(self, table: str, effort: int) -> Driver:
        """The SQL function on the first node: sessions that servers open to each other take the database's settings."""
        for group in self._fleet_servers.groups:
            with self._fleet_servers.connect(group) as connection:
                connection.execute(f"ALTER DATABASE {connection.info.dbname} SET hnsw.ef_search = {effort}")
        driver = Driver(self._fleet_servers.dsn(HOME), nearest_by_function(table), sets_ef=False)
        driver.ask(self._data.questions[:1], effort)  # opens this session's links, which keep what they were told
        return driver


def _goals(search: Mapping[str, Contender]) -> list[Goal]:
    def p50(what: str, a: str, b: str, goal: float) -> Goal:
        return ratio(what, search[a].p50_ms, search[b].p50_ms, goal)

    found = []
    for kind in ("", " async"):
        for base in (f"psycopg{kind}", f"pgherd{kind}"):
            what = f"scatter{kind} over 2 groups, {base} on 1 server = 1"
            found.append(p50(what, f"pgherd{kind}, 2 groups x 1", f"{base}, 1 server", 1.25))
    if "Citus, 2 workers x 2" in search:
        for count in TABLE_OF:
            what = f"scatter over 2 groups x {count}, Citus' coordinator over 2 workers x 2 = 1"
            found.append(p50(what, f"pgherd, 2 groups x {count}", "Citus, 2 workers x 2", 0.5))
    for kind in ("", " async"):
        what = f"routed search{kind}, home server asked directly = 1"
        found.append(p50(what, f"pgherd{kind}, routed", f"psycopg{kind}, home server", 1.15))
    for count in TABLE_OF:
        what = f"pgherd.search_<table> in SQL over 2 groups x {count}, the query on 1 server = 1"
        found.append(p50(what, f"SQL function, 2 groups x {count}", "psycopg, 1 server", 3.0))
    for name in ("2 groups x 1", "2 groups x 2", "routed"):
        for kind in ("", " async"):
            what = f"client's CPU for a search{kind}, {name}"
            found.append(plain(what, search[f"pgherd{kind}, {name}"].cpu_ms, 0.5, "ms"))
    return found
