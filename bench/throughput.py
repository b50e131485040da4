"""Many clients at once: searches a second, and the CPU time that a search takes of clients and servers together."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pgherd
from pgherd.sync import Herd

from . import citus, herds
from .contenders import WrongAnswer, calibrated
from .data import Corpus, corpus, described
from .herds import Servers, apply, insert, running, settle
from .measure import Series, percentile, take_turns
from .outcome import Goal, Outcome, Table, ratio
from .processors import Meter
from .searchers import Client, Driver, K, Promised, nearest
from .setting import Setting, say
from .worker import Crew, DriverSearch, HerdSearch, Task, errors, recall, times_ms

CLIENTS = 8
SECONDS = 4.0
TABLE = "passage"
FEW = "passage_few"
"""With one shard a group; TABLE has four in all."""
NEAR = "passage_near"
"""As TABLE, with rows that are near each other in one shard."""
BASE = "psycopg, 1 server"
GRAPHS = 3
"""The indexes are built so many times: what effort the same rows take differs from graph to graph, by chance."""


@dataclass(slots=True)
class Crowd:
    """Client processes that search one way, what they and the servers need for it, and how many searches come of it.

    ``efforts``: one for each time the indexes were built.
    """

    name: str
    crew: Crew
    pids: tuple[int, ...]
    efforts: list[str]
    recalls: Series = field(default_factory=lambda: Series("recall"))
    per_s: Series = field(default_factory=lambda: Series("q/s"))
    cpu_ms: Series = field(default_factory=lambda: Series("cpu"))
    client_ms: Series = field(default_factory=lambda: Series("client"))
    p50_ms: Series = field(default_factory=lambda: Series("p50"))

    def turn(self, seconds: float, truth: list[set[int]]) -> None:
        """Let the clients work, and note what they and the servers needed."""
        with Meter(self.pids) as meter:
            reports = self.crew.work(seconds)
        failed = errors(reports)
        if failed or any(len(set(ids)) != K for r in reports for ids in r.ids):
            raise WrongAnswer(f"{self.name}: {failed[:1] or 'fewer rows than asked for'}")
        count = sum(len(r.ms) for r in reports)
        client_s = sum(r.cpu_s for r in reports)
        self.recalls.rounds.append(recall(reports, truth))
        self.per_s.rounds.append(count / max(r.seconds for r in reports))
        self.cpu_ms.rounds.append((client_s + meter.server_s) / count * 1000)
        self.client_ms.rounds.append(client_s / count * 1000)
        self.p50_ms.rounds.append(percentile(times_ms(reports), 0.5))

    def as_json(self) -> dict[str, Any]:
        """All rounds."""
        return {
            "effort": self.efforts,
            "recall": self.recalls.as_json(),
            "per_s": self.per_s.as_json(),
            "cpu_ms": self.cpu_ms.as_json(),
            "client_cpu_ms": self.client_ms.as_json(),
            "p50_ms": self.p50_ms.as_json(),
        }


def run(setting: Setting) -> Outcome:
    """Eight client processes against one server, and against the same rows over two and four."""
    data = corpus(setting.rows)
    truth = data.nearest(K)
    with ExitStack() as stack:
        servers = stack.enter_context(running(single=1, two=2, four=4))
        opened = {name: stack.enter_context(pgherd.connect(home=s.home)) for name, s in servers.items()}
        say(f"loading {data.n:,} rows and building indexes")
        tables = _fill(opened, data, setting)
        settle({(servers[name], opened[name]): tables[name] for name in servers})
        found = _Bench(data, truth, setting, servers, opened)
        left_out = [] if setting.citus else [citus.LEFT_OUT]
        if setting.citus:
            found.start_citus(stack, setting.citus)
        seconds, rounds = setting.seconds(SECONDS), (setting.rounds + 1) // 2
        for graph in range(GRAPHS):
            if graph:
                say(f"building all indexes again, {graph + 1} of {GRAPHS}")
                found.rebuild(tables)
            with ExitStack() as clients:
                contenders = found.contenders(clients)
                say(f"{CLIENTS} clients each for {len(contenders)} contenders, {rounds} rounds")
                take_turns([lambda c=c: c.turn(seconds, truth) for c in contenders], rounds)  # type: ignore[misc]
    return _outcome(contenders, data, left_out, seconds, setting)


def _fill(opened: Mapping[str, Herd], data: Corpus, setting: Setting) -> dict[str, list[str]]:
    """The tables by herd, filled and indexed."""
    shapes = {
        "single": {TABLE: herds.plain_table(TABLE, data.dim)},
        "two": {
            TABLE: herds.hash_table(TABLE, data.dim, 4),
            FEW: herds.hash_table(FEW, data.dim, 2),
            NEAR: herds.nearest_table(NEAR, data.dim, 4),
        },
        "four": {TABLE: herds.hash_table(TABLE, data.dim, 4), NEAR: herds.nearest_table(NEAR, data.dim, 4)},
    }
    rows = data.batches()
    for name, tables in shapes.items():
        apply(opened[name], *tables.values())
        for table in tables:
            if opened[name].table(table).definition.cells is not None:
                opened[name].table(table).learn(data.vectors)
            insert(opened[name], table, rows)
        apply(opened[name], *tables.values(), *(herds.index(t, setting.ef_construction) for t in tables))
    return {name: list(tables) for name, tables in shapes.items()}


class _Bench:
    def __init__(
        self,
        data: Corpus,
        truth: list[set[int]],
        setting: Setting,
        servers: Mapping[str, Servers],
        opened: Mapping[str, Herd],
    ) -> None:
        self._data, self._truth, self._setting = data, truth, setting
        self._servers, self._opened = servers, opened
        self._citus: tuple[Servers, list[Servers]] | None = None
        self._crowds: dict[str, Crowd] = {}

    def start_citus(self, stack: ExitStack, pg_config: str) -> None:
        """Let Citus take part."""
        say("starting Citus")
        self._citus = stack.enter_context(citus.started(pg_config))
        citus.fill(self._citus[0], self._data, self._setting.ef_construction)

    def rebuild(self, tables: Mapping[str, list[str]]) -> None:
        """Build all indexes anew."""
        for name, servers in self._servers.items():
            for table in tables[name]:
                herds.rebuild(servers, self._opened[name], table)
        settle({(self._servers[name], self._opened[name]): tables[name] for name in self._servers})
        if self._citus is not None:
            citus.rebuild(self._citus[0])

    def contenders(self, stack: ExitStack) -> list[Crowd]:
        """At the least effort that reaches the recall; and as the client chooses it when asked for that recall."""
        self._stack = stack
        single, q = self._servers["single"], self._data.questions
        effort = self._effort(BASE, Driver(single.dsn(), nearest(TABLE)))
        found = [self._contender(BASE, DriverSearch(single.dsn(), TABLE, q, effort), single.pids, str(effort))]
        options = {"ef_search": effort}
        task = HerdSearch(single.home, TABLE, q, options)
        found.append(self._contender("pgherd, 1 server", task, single.pids, str(effort)))
        shapes = [
            ("pgherd, 4 shards on 2 servers", "two", TABLE),
            ("pgherd, 4 shards on 4 servers", "four", TABLE),
            ("pgherd, 2 shards on 2 servers", "two", FEW),
        ]
        for name, key, table in shapes:
            servers, herd = self._servers[key], self._opened[key]
            effort = self._effort(name, Client(herd, table))
            task = HerdSearch(servers.home, table, q, {"ef_search": effort})
            found.append(self._contender(name, task, servers.pids, str(effort)))
            herd.table(table).tune(questions=list(self._data.practice))
            asked = HerdSearch(servers.home, table, q, {"recall": self._setting.recall})
            found.append(self._contender(f"{name}, tuned", asked, servers.pids, f"recall={self._setting.recall}"))
        for key in ("two", "four"):  # told an effort, it would ask every shard: it is told the least recall to ask for
            servers, herd = self._servers[key], self._opened[key]
            herd.table(NEAR).tune(questions=list(self._data.practice))
            for name, least in (
                (near_on(key), self._effort(near_on(key), Promised(herd, NEAR)) / 1000),
                (f"{near_on(key)}, tuned", self._setting.recall),
            ):
                asked = HerdSearch(servers.home, NEAR, q, {"recall": least})
                found.append(self._contender(name, asked, servers.pids, f"recall={least:g}"))
        return found if self._citus is None else [*found, self._at_citus(*self._citus)]

    def _at_citus(self, coordinator: Servers, workers: list[Servers]) -> Crowd:
        """The same clients at Citus' coordinator."""
        everybody = [coordinator, *workers]
        effort = self._effort("Citus", citus.CitusDriver(coordinator, everybody))
        citus.set_effort(everybody, effort)
        pids = tuple(pid for s in everybody for pid in s.pids)
        task = DriverSearch(coordinator.dsn(), citus.TABLE, self._data.questions, None)
        return self._contender("Citus, 4 shards on 2 workers", task, pids, str(effort))

    def _effort(self, name: str, searcher: Any) -> int:
        effort = calibrated(name, searcher, self._data.questions, self._truth, self._setting.recall)
        say(f"{name} reaches recall {self._setting.recall} with effort {effort}")
        return effort

    def _contender(self, name: str, task: Task, pids: tuple[int, ...], effort: str) -> Crowd:
        crew = self._stack.enter_context(Crew(task, CLIENTS, len(self._data.questions)))
        crowd = self._crowds.setdefault(name, Crowd(name, crew, pids, []))
        crowd.crew = crew
        crowd.efforts.append(effort)
        return crowd


def near_on(servers: str) -> str:
    """What the table by nearest is called on so many servers."""
    return f"pgherd, 4 shards by nearest on {2 if servers == 'two' else 4} servers"


def _outcome(contenders: list[Crowd], data: Corpus, left_out: list[str], seconds: float, setting: Setting) -> Outcome:
    rows = [
        [
            c.name,
            ", ".join(dict.fromkeys(c.efforts)),
            f"{c.recalls.median:.3f}",
            f"{c.per_s.median:,.0f}",
            f"{c.cpu_ms.median:.2f}",
            f"{c.client_ms.median:.2f}",
            f"{c.p50_ms.median:.1f}",
        ]
        for c in contenders
    ]
    head = ["who", "effort", "recall@10", "searches/s", "CPU ms a search", "of it client", "p50 ms"]
    return Outcome(
        "throughput",
        "Throughput",
        f"{data.n:,} rows: {described(data.dim)}; {CLIENTS} client processes without a pause, {seconds:g} s a round."
        f" All indexes are built {GRAPHS} times, each for as many rounds: what effort the same rows take is a matter of"
        " chance."
        " CPU is that of all client processes and all servers, by the operating system's count. `tuned` is the client"
        " as it comes: `index tune` with as many other questions of the same kind, then `search(recall=…)`; the others"
        " are told the least effort that reaches the recall, or of shards by nearest the least recall to ask for."
        " A goal is held against the cheaper of the two, if its"
        " recall is no lower.",
        _goals(contenders, setting.recall),
        [Table(f"{CLIENTS} clients", head, rows)],
        left_out=left_out,
        numbers={c.name: c.as_json() for c in contenders},
    )


def _goals(contenders: list[Crowd], target: float) -> list[Goal]:
    by_name = {c.name: c for c in contenders}

    def cheaper(name: str) -> Crowd:
        told, tuned = by_name[name], by_name[f"{name}, tuned"]
        return min(told, tuned, key=lambda c: c.cpu_ms.median) if tuned.recalls.median >= target else told

    found = []
    for key in ("two", "four"):
        what = f"CPU a search over {near_on(key).removeprefix('pgherd, ')}, psycopg on 1 server = 1"
        found.append(ratio(what, cheaper(near_on(key)).cpu_ms, by_name[BASE].cpu_ms, 1.5))
    for servers in (2, 4):
        name = f"pgherd, 4 shards on {servers} servers"
        what = f"CPU a search over 4 shards on {servers} servers, psycopg on 1 server = 1"
        found.append(ratio(what, cheaper(name).cpu_ms, by_name[BASE].cpu_ms, 1.5))
    what = "CPU a search over 2 shards on 2 servers (the default), psycopg on 1 server = 1"
    found.append(ratio(what, cheaper("pgherd, 2 shards on 2 servers").cpu_ms, by_name[BASE].cpu_ms, 1.5))
    other = by_name.get("Citus, 4 shards on 2 workers")
    if other is not None:
        what = "CPU a search over 4 shards on 2 servers, Citus over as many = 1"
        found.append(ratio(what, cheaper("pgherd, 4 shards on 2 servers").cpu_ms, other.cpu_ms, 1.0))
    return found
