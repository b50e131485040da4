"""The tail of search times while one server of four pauses again and again, with and without hedged reads."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pgherd
from pgherd.local.herd import LocalHerd
from pgherd.table import AsyncTable

from . import herds
from .contenders import calibrated
from .data import SEED, Corpus, corpus, described
from .herds import Servers, apply, insert, running, settle
from .measure import Series, percentile, take_turns
from .outcome import Goal, Outcome, Table
from .processors import children
from .searchers import Client, K
from .setting import Setting, say
from .worker import Crew, HerdSearch, errors, recall, times_ms

TABLE = "passage"
SERVERS = 4
SLOW = herds.PLACES[0]
PAUSE_S, EVERY_S = 0.012, 0.05
SECONDS = 6.0
LEFT_OUT = "hedged reads: this version has none (`search(read=…)`), or no replicas to send them to"


@dataclass(slots=True)
class _Contender:
    name: str
    crew: Crew
    paused: bool
    recall: float = 0.0
    p50_ms: Series = field(default_factory=lambda: Series("p50"))
    p99_ms: Series = field(default_factory=lambda: Series("p99"))
    tail: Series = field(default_factory=lambda: Series("p99 / p50"))

    def turn(self, seconds: float, pid: int, truth: list[set[int]]) -> None:
        """One client asks for so long, while the server pauses or not."""
        with ExitStack() as stack:
            if self.paused:
                stack.enter_context(pausing(pid))
            reports = self.crew.work(seconds)
        if errors(reports):
            raise RuntimeError(f"{self.name}: {errors(reports)[0]}")
        if any(len(set(ids)) != K for r in reports for ids in r.ids):
            raise RuntimeError(f"{self.name}: fewer rows than asked for")
        self.recall = recall(reports, truth)
        ms = times_ms(reports)
        self.p50_ms.rounds.append(percentile(ms, 0.5))
        self.p99_ms.rounds.append(percentile(ms, 0.99))
        self.tail.rounds.append(self.p99_ms.rounds[-1] / self.p50_ms.rounds[-1])


def run(setting: Setting) -> Outcome:
    """A client over four servers; one of them stops for a moment, many times a second."""
    data = corpus(setting.rows)
    truth = data.nearest(K)
    with ExitStack() as stack:
        servers = stack.enter_context(running(four=SERVERS, replicas=2 if hedging() else 1))["four"]
        herd = stack.enter_context(pgherd.connect(home=servers.home))
        say(f"loading {data.n:,} rows and building indexes")
        table = herds.hash_table(TABLE, data.dim, SERVERS)
        apply(herd, table)
        insert(herd, TABLE, data.batches())
        apply(herd, table, herds.index(TABLE, setting.ef_construction))
        settle({(servers, herd): [TABLE]})
        effort = calibrated("pgherd", Client(herd, TABLE), data.questions, truth, setting.recall)
        contenders = _contenders(stack, servers, data, effort)
        say(f"{len(contenders)} contenders, {setting.rounds} rounds")
        seconds, pid = setting.seconds(SECONDS), servers.pid(SLOW)
        take_turns([lambda c=c: c.turn(seconds, pid, truth) for c in contenders], setting.rounds)  # type: ignore[misc]
    return _outcome(contenders, data, effort)


def hedging() -> dict[str, Any] | None:
    """The options of a search that asks a replica when the first is slow; None where there is no such thing."""
    known = "read" in inspect.signature(AsyncTable.search).parameters
    return {"read": "nearest"} if known and "replicas" in inspect.signature(LocalHerd.up).parameters else None


def _contenders(stack: ExitStack, servers: Servers, data: Corpus, effort: int) -> list[_Contender]:
    def crew(**options: Any) -> Crew:
        task = HerdSearch(Path(servers.home), TABLE, data.questions, {"ef_search": effort, **options})
        return stack.enter_context(Crew(task, 1, len(data.questions)))

    plain = crew()
    found = [_Contender("no server pauses", plain, False), _Contender("one server pauses", plain, True)]
    options = hedging()
    if options is not None:
        found.append(_Contender("one server pauses, hedged reads", crew(**options), True))
    return found


@contextmanager
def pausing(postmaster: int) -> Iterator[None]:
    """The server's sessions stop for PAUSE_S about every EVERY_S: a busy neighbour, a disk that stalls."""
    context = multiprocessing.get_context("forkserver")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_pause, args=(postmaster, ready, stop), daemon=True)
    process.start()
    try:
        if not ready.wait(60):
            raise TimeoutError("the process that pauses a server did not start")
        yield
    finally:
        stop.set()
        process.join()


def _pause(postmaster: int, ready: Event, stop: Event) -> None:
    rng = random.Random(SEED)
    ready.set()
    while not stop.is_set():
        sessions = [pid for pid in children(postmaster) if _is_session(pid)]
        try:
            _send(sessions, signal.SIGSTOP)
            time.sleep(PAUSE_S)
        finally:
            _send(sessions, signal.SIGCONT)
        stop.wait(EVERY_S * rng.uniform(0.5, 1.5) - PAUSE_S)


def _is_session(pid: int) -> bool:
    """Whether it serves a client: its title names where the client is. Source: PostgreSQL 18 manual, 27.1."""
    with suppress(OSError):
        return "127.0.0.1(" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    return False


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _outcome(contenders: list[_Contender], data: Corpus, effort: int) -> Outcome:
    rows = [
        [
            c.name,
            f"{c.recall:.3f}",
            f"{c.p50_ms.median:.2f}",
            f"{c.p99_ms.median:.2f}",
            f"{c.tail.median:.1f}",
        ]
        for c in contenders
    ]
    last = contenders[-1]
    hedged = "hedged" in last.name
    how = "hedged reads" if hedged else "no hedged reads"
    goal = Goal(
        f"p99 / p50 with one slow server of {SERVERS}, {how}",
        last.tail.median,
        min(last.tail.rounds),
        max(last.tail.rounds),
        3.0,
    )
    return Outcome(
        "tail",
        "The tail with a slow server",
        f"{data.n:,} rows: {described(data.dim)}; {SERVERS} servers, a shard each, ef_search {effort}, one client. The"
        f" slow server's sessions stop for {PAUSE_S * 1000:g} ms about every {EVERY_S * 1000:g} ms (SIGSTOP, SIGCONT),"
        " so a scatter that needs it meets a pause now and then; the p50 is that of the same stretch.",
        [goal],
        [Table("One client", ["what", "recall@10", "p50 ms", "p99 ms", "p99 / p50"], rows)],
        left_out=[] if hedged else [LEFT_OUT],
        numbers={
            c.name: {
                "recall": round(c.recall, 4),
                "p50_ms": c.p50_ms.as_json(),
                "p99_ms": c.p99_ms.as_json(),
                "p99_over_p50": c.tail.as_json(),
            }
            for c in contenders
        },
    )
