"""The goals, what was measured against each, and the files that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measure import Series
from .search import Contender


@dataclass(frozen=True, slots=True)
class Goal:
    """A number, and what it should be: at most ``goal``, or at least with ``at_least``.

    ``fastest`` is the same number made of each contender's fastest round: what is left when others disturb least.
    """

    what: str
    measured: float
    fastest: float
    goal: float
    unit: str = "x"
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    def cells(self) -> list[str]:
        """A row of the table."""
        sign = "≥" if self.at_least else "≤"
        return [
            self.what,
            f"{self.measured:.2f} {self.unit}",
            f"{self.fastest:.2f} {self.unit}",
            f"{sign} {self.goal:g} {self.unit}",
            "yes" if self.met else "**no**",
        ]


def goals(search: Mapping[str, Contender], load: Mapping[str, Series]) -> list[Goal]:
    """Every goal with its measurement."""

    def ratio(what: str, a: str, b: str, goal: float) -> Goal:
        mine, other = search[a].p50_ms, search[b].p50_ms
        return Goal(what, mine.over(other), min(mine.rounds) / min(other.rounds), goal)

    found = []
    for kind in ("", " async"):
        what = f"routed search{kind}, home server asked directly = 1"
        found.append(ratio(what, f"pgherd{kind}, routed", f"psycopg{kind}, home server", 1.15))
    for shards in (1, 2):
        shape = f"2 groups x {shards}"
        for kind in ("", " async"):
            for base in (f"pgherd{kind}", f"psycopg{kind}"):
                what = f"scatter{kind} over {shape}, {base} on 1 server = 1"
                found.append(ratio(what, f"pgherd{kind}, {shape}", f"{base}, 1 server", 1.5))
    found.append(_load_goal(load))
    for shards in (1, 2):
        shape = f"2 groups x {shards}"
        what = f"pgherd.search_<table> in SQL over {shape}, the query on 1 server = 1"
        found.append(ratio(what, f"SQL function, {shape}", "psycopg, 1 server", 3.0))
    for name in ("2 groups x 1", "2 groups x 2", "routed"):
        for kind in ("", " async"):
            cpu = search[f"pgherd{kind}, {name}"].cpu_ms
            found.append(Goal(f"client's CPU for a search{kind}, {name}", cpu.median, min(cpu.rounds), 0.5, "ms"))
    return found


def _load_goal(load: Mapping[str, Series]) -> Goal:
    """Against the faster of the two ways to COPY."""
    insert = load["pgherd insert, 2 groups"]
    copy = max(
        (series for name, series in load.items() if name.startswith("psycopg")), key=lambda series: series.median
    )
    what = "bulk load into 2 groups, rows/s, COPY into 1 server = 1"
    return Goal(what, insert.over(copy), max(insert.rounds) / max(copy.rounds), 1.0, at_least=True)


def document(
    search: Mapping[str, Contender], load: Mapping[str, Series], plans: Mapping[str, str], about: dict[str, Any]
) -> dict[str, Any]:
    """All of it, as JSON."""
    return {
        **about,
        "goals": [
            {
                "what": g.what,
                "measured": round(g.measured, 3),
                "fastest": round(g.fastest, 3),
                "goal": g.goal,
                "unit": g.unit,
                "at_least": g.at_least,
                "met": g.met,
            }
            for g in goals(search, load)
        ],
        "search": {
            c.name: {
                "ef_search": c.ef_search,
                "recall": round(c.recall, 4),
                "p50_ms": c.p50_ms.as_json(),
                "p95_ms": c.p95_ms.as_json(),
                "cpu_ms": c.cpu_ms.as_json(),
            }
            for c in search.values()
        },
        "load_rows_per_s": {name: series.as_json() for name, series in load.items()},
        "plans": dict(plans),
    }


def tables(result: Mapping[str, Any], goals: Sequence[Goal]) -> str:
    """The result in Markdown."""
    search = [
        [
            name,
            str(c["ef_search"]),
            f"{c['recall']:.3f}",
            f"{c['p50_ms']['median']:.2f}",
            f"{c['p95_ms']['median']:.2f}",
            f"{c['cpu_ms']['median']:.2f}",
        ]
        for name, c in result["search"].items()
    ]
    load = [
        [name, f"{s['median']:,.0f}", f"{min(s['rounds']):,.0f} to {max(s['rounds']):,.0f}"]
        for name, s in result["load_rows_per_s"].items()
    ]
    return "\n\n".join(
        (
            "## Goals",
            _table(["ratio", "median", "fastest rounds", "goal", "met"], [g.cells() for g in goals]),
            "## Searches",
            _table(["who", "ef_search", "recall@10", "p50 ms", "p95 ms", "client CPU ms"], search),
            "## Bulk load",
            _table(["how", "rows/s", "slowest to fastest round"], load),
        )
    )


def readme(result: Mapping[str, Any], goals: Sequence[Goal]) -> str:
    """``results/README.md``."""
    m, s, busy = result["machine"], result["settings"], result["load"]
    return f"""# What a herd costs, against one server

Made by `make bench`. Everything is measured in one run on one machine: the servers of the fleet, the single server and
the client share its {m["cpus"]} processors, so that two groups have no more hardware than one. A ratio compares the
same round of two contenders that take turns, and is the median of {s["rounds"]} rounds of {s["questions"]} questions;
every contender searches with the least `hnsw.ef_search` that brings recall@10 to {s["target_recall"]}.

- {s["rows"]:,} rows: ICD-10-CM descriptions embedded with wordllama (256 dimensions), copied with a little noise; HNSW
  with m = 16, ef_construction = {s["ef_construction"]}; half of the questions are texts that are not among the rows
- {m["processor"]}, {m["cpus"]} processors, {m["memory_gib"]} GiB, {m["system"]}
- PostgreSQL {m["postgresql"]}, pgvector {m["pgvector"]}, Python {m["python"]}, psycopg {m["psycopg"]}
- others used {_percent(busy["busy_before"])} of the processors just before, {_percent(busy["busy_after"])} just after;
  load average {busy["average_before"]} before, {busy["average_after"]} after; the run took {s["seconds"]:.0f} s

{tables(result, goals)}

`psycopg` is the plain driver on a warm connection: prepared, binary, the same columns. `2 groups x 2` are two groups
with two shards each. The client's CPU is all that its process used for a search, the driver included. COPY is binary,
encoded by the block; `write_row` is the way of the drivers' manuals; the goal is held against the faster. "Fastest
rounds" divides the fastest round of one by the fastest round of the other: what other work on the machine disturbed
least. Goals are judged by the median. All rounds are in `{s["file"]}`.
"""


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{share:.0%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(result: Mapping[str, Any], goals: Sequence[Goal], directory: Path) -> None:
    """Write ``<file>`` and ``README.md``."""
    directory.mkdir(parents=True, exist_ok=True)
    name = result["settings"]["file"]
    (directory / name).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / "README.md").write_text(readme(result, goals), encoding="utf-8")
