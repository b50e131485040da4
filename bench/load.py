"""Bulk load: the client's insert into several groups, against COPY into one server; no vector index anywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pgherd
from pgherd.sync import Herd

from . import herds, stores
from .copying import copy_blocks, copy_rows
from .data import Corpus, corpus, described
from .herds import Servers, apply, empty, insert, running
from .measure import Series, take_turns
from .outcome import Goal, Outcome, Table, ratio
from .processors import Meter
from .setting import Setting, say

TABLE = "passage"
GROUPS = 4
LANGCHAIN = "langchain-postgres, 1 server"
LANGCHAIN_SHARE = 100
"""Langchain gets one row of so many: it is slower by as much."""


class Way:
    """One way to load all rows into an empty table."""

    def __init__(self, servers: Servers, herd: Herd, rows: int, load: Callable[[], None], table: str = TABLE) -> None:
        self.servers, self._herd, self._rows, self._load, self._table = servers, herd, rows, load, table
        self._count = len(servers.groups)
        self.rows_per_s, self.client_us, self.server_us = Series("rows/s"), Series("client"), Series("server")

    def turn(self) -> None:
        """Load, and note rows a second, and CPU microseconds a row of client and servers."""
        empty(self.servers, self._herd, self._table)
        with Meter(self.servers.pids) as meter:
            self._load()
        found = sum(
            self.servers.connect(group).execute(f"SELECT count(*) FROM {relation}").fetchone()[0]  # type: ignore[index]
            for group, relation in herds.shards(self._herd, self._table)
        )
        if found != self._rows:
            raise AssertionError(f"{found} rows were loaded instead of {self._rows}")
        self.note(self._rows, meter.seconds, meter.client_s, meter.server_s)

    def note(self, rows: int, seconds: float, client_s: float, server_s: float) -> None:
        """One round."""
        self.rows_per_s.rounds.append(rows / seconds)
        self.client_us.rounds.append(client_s / rows * 1e6)
        self.server_us.rounds.append(server_s / rows * 1e6)

    @property
    def own_machines_rows_per_s(self) -> float:
        """What the CPU time allows when client and servers each have a processor of their own, evenly loaded."""
        busiest_us = max(self.client_us.median, self.server_us.median / self._count)
        return 1e6 / busiest_us


def run(setting: Setting) -> Outcome:
    """Every way gets the rows as it takes them best: arrow tables, or lists and arrays."""
    data = corpus(setting.rows)
    tables = [data.arrow(0, data.n)]
    with ExitStack() as stack:
        servers = stack.enter_context(running(single=1, two=2, four=GROUPS))
        opened = {name: stack.enter_context(pgherd.connect(home=s.home)) for name, s in servers.items()}
        for name, herd in opened.items():
            count = len(servers[name].groups)
            apply(herd, herds.plain_table(TABLE, data.dim) if count == 1 else herds.hash_table(TABLE, data.dim, count))
        single = servers["single"]

        def copied(copy: Callable[..., None]) -> Callable[[], None]:
            def load() -> None:
                with single.connect() as connection:
                    copy(connection, TABLE, data)

            return load

        def inserted(name: str) -> Way:
            return Way(servers[name], opened[name], data.n, lambda: insert(opened[name], TABLE, tables))

        ways = {
            "psycopg COPY, 1 server": Way(single, opened["single"], data.n, copied(copy_blocks)),
            f"pgherd insert, {GROUPS} groups": inserted("four"),
            "pgherd insert, 2 groups": inserted("two"),
            "pgherd insert, 1 server": inserted("single"),
            "psycopg COPY write_row, 1 server": Way(single, opened["single"], data.n, copied(copy_rows)),
        }
        say(f"loading {data.n:,} rows in {len(ways)} ways, {setting.rounds} rounds")
        take_turns([way.turn for way in ways.values()], setting.rounds)
        left_out = []
        if setting.peers is None:
            left_out.append(stores.LEFT_OUT)
        else:
            say("loading with langchain-postgres")
            ways[LANGCHAIN] = _langchain(setting.peers, single, opened["single"], data, setting.rounds)
    return _outcome(ways, data, left_out)


def _langchain(python: str, single: Servers, herd: Herd, data: Corpus, rounds: int) -> Way:
    """Texts, vectors and metadata as its users give them, in a process of its own; it makes a table of its own."""
    way = Way(single, herd, data.n, lambda: None)
    count = max(500, data.n // LANGCHAIN_SHARE)
    with stores.Store(python, "langchain", data, count, dsn=single.dsn()) as store:
        for _ in range(rounds):
            with Meter(single.pids) as meter:
                answer = store.ask({"do": "ingest"})
            if answer["rows"] != count:
                raise AssertionError(f"langchain-postgres loaded {answer['rows']} rows instead of {count}")
            way.note(count, answer["seconds"], answer["cpu_s"], meter.server_s)
    return way


def _outcome(ways: dict[str, Way], data: Corpus, left_out: list[str]) -> Outcome:
    rows = [
        [
            name,
            f"{w.rows_per_s.median:,.0f}",
            f"{min(w.rows_per_s.rounds):,.0f} to {max(w.rows_per_s.rounds):,.0f}",
            f"{w.client_us.median:.1f}",
            f"{w.server_us.median:.1f}",
            f"{w.own_machines_rows_per_s:,.0f}",
        ]
        for name, w in ways.items()
    ]
    head = ["how", "rows/s", "slowest to fastest round", "client CPU µs/row", "servers CPU µs/row", "computed rows/s"]
    note = (
        "The last column is computed, not measured: 1 / max(client's CPU a row, servers' CPU a row / number of"
        " servers), what the CPU allows when client and servers each have a processor of their own; network and disk"
        f" are not counted. langchain-postgres got one row of {LANGCHAIN_SHARE}, into a table that it makes itself, and"
        " its rounds come after the others'."
    )
    return Outcome(
        "load",
        "Bulk load",
        f"{data.n:,} rows: {described(data.dim)}; four columns and the vector, a primary key, no vector index. COPY is"
        " binary, encoded by the block; `write_row` is the way of the drivers' manuals; the goal is held against the"
        " faster of the two. One client process. On a machine of two processors four groups have no more to work with"
        " than one.",
        _goals(ways),
        [Table("Rows a second", head, rows, note)],
        left_out=left_out,
        numbers={
            name: {
                "rows_per_s": w.rows_per_s.as_json(),
                "client_cpu_us": w.client_us.as_json(),
                "servers_cpu_us": w.server_us.as_json(),
                "own_machines_rows_per_s": round(w.own_machines_rows_per_s),
            }
            for name, w in ways.items()
        },
    )


def _goals(ways: dict[str, Way]) -> list[Goal]:
    copy = max((w for name, w in ways.items() if name.startswith("psycopg")), key=lambda w: w.rows_per_s.median)
    mine = ways[f"pgherd insert, {GROUPS} groups"]
    what = f"bulk load into {GROUPS} groups, rows/s, COPY into 1 server = 1"
    computed = mine.own_machines_rows_per_s / copy.own_machines_rows_per_s
    say(f"computed for own processors: {computed:.2f} x")
    return [ratio(what, mine.rows_per_s, copy.rows_per_s, 1.5, at_least=True)]
