"""What more servers are worth, each with a share of a processor of its own: as on machines of their own.

Elsewhere in this benchmark servers share the machine's two processors, so that many have no more than one has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import pgherd
from pgherd.sync import Herd

from . import herds, share
from .contenders import calibrated
from .copying import copy_blocks
from .data import Corpus, corpus, described
from .elastic import Build
from .herds import Servers, apply, insert, running, settle
from .load import Way
from .measure import Series, take_turns
from .outcome import Outcome, Table, ratio
from .searchers import Client, Driver, K, Promised, nearest
from .setting import Setting, say
from .throughput import CLIENTS, SECONDS, Crowd
from .worker import Crew, DriverSearch, HerdSearch, Task

SHARE = 0.2
"""Of a processor, for each server: four of them leave the clients more than one."""
LOADED, BUILT, HASHED, NEAR = "loaded", "built", "passage", "passage_near"
SEARCHED_SHARE, BUILT_SHARE = 2, 10
"""Of the rows, one of so many is searched; is indexed."""


def run(setting: Setting) -> Outcome:
    """One server, two and four of the same kind: rows loaded, an index built, searches answered."""
    title = "Servers of their own"
    if not share.possible():
        return Outcome("scale", title, "", left_out=[share.LEFT_OUT])
    data = corpus(setting.rows)
    with ExitStack() as stack:
        servers = stack.enter_context(running(one=1, two=2, four=4))
        opened = {name: stack.enter_context(pgherd.connect(home=s.home)) for name, s in servers.items()}
        few = corpus(max(2000, data.n // BUILT_SHARE))
        some = corpus(max(5000, data.n // SEARCHED_SHARE))
        say(f"loading {some.n:,} rows to search, {few.n:,} to index")
        texts = {name: _filled(herd, len(servers[name].groups), some, few, setting) for name, herd in opened.items()}
        settle({(servers[name], opened[name]): [HASHED] for name in servers})
        ways = {name: _loading(servers[name], opened[name], data) for name in ("one", "four")}
        builds = {name: _building(servers[name], opened[name], texts[name], setting) for name in ("one", "two")}
        crowds = _crowds(stack, servers, opened, some, setting)
        for s in servers.values():
            stack.enter_context(share.each(s.pids, SHARE))
        say(f"{setting.rounds} rounds with {SHARE:g} of a processor for each server")
        take_turns([w.turn for w in ways.values()], setting.rounds)
        take_turns([b.turn for b in builds.values()], setting.rounds)
        truth, seconds = some.nearest(K), setting.seconds(SECONDS)
        take_turns([lambda c=c: c.turn(seconds, truth) for c in crowds.values()], setting.rounds)  # type: ignore[misc]
    per_s = {name: c.per_s for name, c in crowds.items()}
    goals = [
        ratio("bulk load into 4 groups, rows/s, COPY into 1 server = 1", ways["four"].rows_per_s,
              ways["one"].rows_per_s, 1.5, at_least=True),
        ratio("index build over 4 shards on 2 servers, one index of all rows = 1", builds["two"].seconds,
              builds["one"].seconds, 0.7),
        ratio("searches/s over 4 shards by nearest on 4 servers, 1 server = 1", per_s["near"], per_s["one"], 2.0,
              at_least=True),
    ]  # fmt: skip
    return Outcome(
        "scale",
        title,
        f"{described(data.dim)}. Each server has {SHARE:g} of a processor, by a control group; clients have the rest."
        f" {data.n:,} rows are loaded, an index of {few.n:,} is built, {some.n:,} are searched by {CLIENTS} client"
        " processes without a pause, at equal recall (the least effort, or recall asked for, that reaches it).",
        goals,
        _tables({"COPY": ways["one"].rows_per_s, "pgherd, 4 groups": ways["four"].rows_per_s}, builds, crowds),
        numbers={
            "rows_per_s": {name: w.rows_per_s.as_json() for name, w in ways.items()},
            "builds_s": {name: b.seconds.as_json() for name, b in builds.items()},
            "searches": {name: c.as_json() for name, c in crowds.items()},
        },
    )


def _filled(herd: Herd, groups: int, some: Corpus, few: Corpus, setting: Setting) -> list[str]:
    """The schema of a herd, with its tables filled, and those indexed that are searched."""
    shards = max(4, groups)

    def table(name: str) -> str:
        return herds.plain_table(name, some.dim) if groups == 1 else herds.hash_table(name, some.dim, shards)

    loaded = herds.plain_table(LOADED, some.dim) if groups == 1 else herds.hash_table(LOADED, some.dim, groups)
    texts = [loaded, table(BUILT), table(HASHED)]
    searched = {HASHED: some}
    if groups == 4:
        texts.append(herds.nearest_table(NEAR, some.dim, shards))
        searched[NEAR] = some
    apply(herd, *texts)
    if NEAR in searched:
        herd.table(NEAR).learn(some.vectors)
    for name, rows in {BUILT: few, **searched}.items():
        insert(herd, name, rows.batches())
    texts += [herds.index(name, setting.ef_construction) for name in searched]
    apply(herd, *texts)
    return texts


def _loading(servers: Servers, herd: Herd, data: Corpus) -> Way:
    tables = [data.arrow(0, data.n)]

    def copied() -> None:
        with servers.connect() as connection:
            copy_blocks(connection, LOADED, data)

    return Way(
        servers, herd, data.n, copied if len(servers.groups) == 1 else lambda: insert(herd, LOADED, tables), LOADED
    )


def _building(servers: Servers, herd: Herd, texts: list[str], setting: Setting) -> Build:
    made = list(texts)

    def build(name: str) -> None:
        made.append(herds.index(BUILT, setting.ef_construction).replace(f"{BUILT}_embedding_idx", name))
        apply(herd, *made)

    return Build(servers, build)


def _crowds(
    stack: ExitStack, servers: Mapping[str, Servers], opened: Mapping[str, Herd], data: Corpus, setting: Setting
) -> dict[str, Crowd]:
    q, truth, target = data.questions, data.nearest(K), setting.recall
    one, four = servers["one"], servers["four"]

    def crowd(name: str, task: Task, at: Servers, effort: str) -> Crowd:
        return Crowd(name, stack.enter_context(Crew(task, CLIENTS, len(q))), at.pids, [effort])

    ask: Callable[..., int] = calibrated
    effort = ask("psycopg, 1 server", Driver(one.dsn(), nearest(HASHED)), q, truth, target)
    found = {"one": crowd("psycopg, 1 server", DriverSearch(one.dsn(), HASHED, q, effort), one, str(effort))}
    for key in ("two", "four"):
        at, name = servers[key], f"pgherd, 4 shards by hash on {len(servers[key].groups)} servers"
        effort = ask(name, Client(opened[key], HASHED), q, truth, target)
        found[key] = crowd(name, HerdSearch(at.home, HASHED, q, {"ef_search": effort}), at, str(effort))
    name = "pgherd, 4 shards by nearest on 4 servers"
    opened["four"].table(NEAR).tune(questions=list(data.practice))
    least = ask(name, Promised(opened["four"], NEAR), q, truth, target) / 1000
    found["near"] = crowd(name, HerdSearch(four.home, NEAR, q, {"recall": least}), four, f"recall={least:g}")
    return found


def _tables(loads: Mapping[str, Series], builds: Mapping[str, Build], crowds: Mapping[str, Crowd]) -> list[Table]:
    searches = [
        [
            c.name,
            ", ".join(c.efforts),
            f"{c.recalls.median:.3f}",
            f"{c.per_s.median:,.0f}",
            f"{c.cpu_ms.median:.2f}",
            f"{c.p50_ms.median:.1f}",
        ]
        for c in crowds.values()
    ]
    head = ["who", "effort", "recall@10", "searches/s", "CPU ms a search", "p50 ms"]
    return [
        Table("Bulk load", ["how", "rows/s"], [[name, f"{s.median:,.0f}"] for name, s in loads.items()]),
        Table(
            "Index builds",
            ["how", "seconds"],
            [[f"pgherd apply, {name}", f"{b.seconds.median:.1f}"] for name, b in builds.items()],
        ),
        Table(f"{CLIENTS} clients", head, searches),
    ]
