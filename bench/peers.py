"""The embedded vector stores, pgvector on one server, and a herd of two: the same rows, at equal recall."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import pgherd

from . import herds, stores
from .contenders import Contender, calibrated, compete, searches_table
from .data import Corpus, Vectors, corpus, described
from .herds import apply, insert, running, settle
from .measure import percentile
from .outcome import Curve, Goal, Outcome, Table, ratio
from .searchers import Client, Driver, K, Searcher, nearest, recall
from .setting import Setting, say

TABLE = "passage"
NAMES = {"faiss": "FAISS HNSW, in process", "chroma": "Chroma, in process", "lance": "LanceDB, in process"}
MORE_DIM = 1536
DIMS = {256: 2, MORE_DIM: 10}
"""How many dimensions, and one row of how many: some stores take long to fill."""
EFFORTS = (10, 20, 40, 80, 160, 320)
SERVER, HERD = "pgvector on 1 server, psycopg", "pgherd, 2 groups x 1"


def run(setting: Setting) -> Outcome:
    """The whole corpus, and a part of it with more dimensions."""
    left_out = [] if setting.peers else [stores.LEFT_OUT]
    goals: list[Goal] = []
    tables: list[Table] = []
    curves: list[Curve] = []
    numbers = {}
    for dim, share in DIMS.items():
        rows = setting.rows // share
        data = corpus(rows, dim)
        found, built, lines = _compared(data, setting)
        title = f"{rows:,} x {dim:,}"
        note = "Effort is `hnsw.ef_search` or what the store calls by a like name."
        tables.append(searches_table(f"Searches, {title}", found, note))
        tables.append(_built_table(title, built))
        if not curves:
            curves = lines
        numbers[title] = {
            "search": {c.name: c.as_json() for c in found},
            "build_s": {name: [round(s, 2) for s in seconds] for name, seconds in built.items()},
        }
        by_name = {c.name: c for c in found}
        goals.append(ratio(f"scatter over 2 groups, {title}, {SERVER} = 1", by_name[HERD].p50_ms,
                           by_name[SERVER].p50_ms, 1.25))  # fmt: skip
    return Outcome(
        "peers",
        "Other stores",
        f"{described(256).capitalize()}, and {described(MORE_DIM)}. All indexes are HNSW with m = 16 and"
        f" ef_construction = {setting.ef_construction}, over float32, cosine; everybody gives id, three texts and"
        " distance back. The embedded stores run in the process that asks: no server, no other user, no transaction."
        " They are the limit, not the like.",
        goals,
        tables,
        curves,
        left_out,
        numbers,
    )


def _compared(data: Corpus, setting: Setting) -> tuple[list[Contender], dict[str, tuple[float, float]], list[Curve]]:
    """Contenders that have competed, (seconds to load, seconds to index) of each, and recall over time of each."""
    truth, built = data.nearest(K), {}
    with ExitStack() as stack:
        searchers: dict[str, Searcher] = {}
        servers = stack.enter_context(running(single=1, fleet=2))
        opened = {name: stack.enter_context(pgherd.connect(home=s.home)) for name, s in servers.items()}
        for name, key, table in (
            (SERVER, "single", herds.plain_table(TABLE, data.dim)),
            (HERD, "fleet", herds.hash_table(TABLE, data.dim, 2)),
        ):
            say(f"{name}: {data.n:,} x {data.dim}")
            herd = opened[key]
            apply(herd, table)
            started = time.perf_counter()
            insert(herd, TABLE, data.batches())
            loaded = time.perf_counter()
            apply(herd, table, herds.index(TABLE, setting.ef_construction))
            built[name] = (loaded - started, time.perf_counter() - loaded)
            settle({(servers[key], herd): [TABLE]})
        searchers[SERVER] = Driver(servers["single"].dsn(), nearest(TABLE))
        searchers[HERD] = Client(opened["fleet"], TABLE)
        for store, name in NAMES.items() if setting.peers else ():
            say(f"{name}: {data.n:,} x {data.dim}")
            made = stack.enter_context(stores.Store(str(setting.peers), store, data))
            built[name] = (0.0, made.built["seconds"])
            searchers[name] = made
        found = [_contender(name, s, data.questions, truth, setting.recall) for name, s in searchers.items()]
        say(f"asking {len(found)} stores, {setting.rounds} rounds")
        compete(found, data.questions, setting.rounds)
        lines = [_curve(name, s, data.questions, truth) for name, s in searchers.items()]
    return found, built, lines


def _contender(
    name: str, searcher: Searcher, questions: Vectors, truth: Sequence[set[int]], target: float
) -> Contender:
    return Contender(name, searcher, calibrated(name, searcher, questions, truth, target), truth)


def _curve(name: str, searcher: Searcher, questions: Vectors, truth: Sequence[set[int]]) -> Curve:
    points = []
    for effort in EFFORTS:
        answers = searcher.ask(questions, effort)
        points.append((percentile(answers.ms, 0.5), recall(answers, truth), f"effort {effort}"))
    return Curve(name, points)


def _built_table(title: str, built: dict[str, tuple[float, float]]) -> Table:
    rows = [[name, f"{load:.1f}" if load else "", f"{index:.1f}"] for name, (load, index) in built.items()]
    note = "The embedded stores take rows and build their index in one; theirs is the time of both. Built once."
    return Table(f"From nothing to an index, {title}", ["who", "loading s", "index s"], rows, note)
