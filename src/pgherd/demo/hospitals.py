"""The demo's story, one scene after another; each runs for real and tells what happened. It prints nothing itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from .. import dialect, herdfile
from ..client import AsyncHerd, connect_async
from ..local.herd import LocalHerd
from ..model.placement import Label
from ..model.topology import EngineName
from ..status import status_of
from .catalogue import HOSPITALS, treatments

QUESTION = "chest pain on exertion"
TABLE = "treatment"
BATCH_ROWS = 10_000
_INDEX_MARK = "-- Added to the file once"


@dataclass(frozen=True, slots=True)
class Scene:
    """One step of the story: what it shows, in a sentence, and the rows that prove it."""

    title: str
    says: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    seconds: float = 0.0


Say = Callable[[str], None]


def schema_text() -> str:
    """The demo's schema file."""
    return files("pgherd.demo").joinpath("hospitals.sql").read_text(encoding="utf-8")


async def play(home: Path, say: Say) -> AsyncIterator[Scene]:
    """Play the story on a herd in ``home``, made now if there is none; ``say`` hears what is being done."""
    started = time.perf_counter()
    labels = [Label.parse(h["region"]) for h in HOSPITALS]
    await asyncio.to_thread(LocalHerd(home).up, labels, EngineName.FLEET, None, say)
    say("joining the servers into one herd")
    async with connect_async(home=home) as herd:
        nodes = [{"group": n.name, "address": f"{n.host}:{n.port}", "place": str(n.label)} for n in herd.topology.nodes]
        yield Scene(
            "Three real PostgreSQL servers, one herd",
            "One server in each region. No containers, no coordinator: any of them answers any SQL.",
            nodes,
            seconds=time.perf_counter() - started,
        )
        yield await _apply(herd, schema_text().partition(_INDEX_MARK)[0])
        yield await _load(herd, say)
        yield await _apply_index(herd, say)
        yield await _who_holds_what(herd)
        yield await _ask(herd, None)
        yield await _ask(herd, HOSPITALS[0]["location"])
        yield await _explain(herd)
        yield await _refused(herd, home)
        yield await _any_driver(herd, home)


async def _apply(herd: AsyncHerd, text: str) -> Scene:
    started = time.perf_counter()
    plan = await herd.plan(dialect.parse(text, file="hospitals.sql"))
    await herd.execute(plan)
    kinds = [{"step": s.kind, "on": s.target, "groups": ", ".join(s.groups)} for s in plan.steps if "shard" in s.kind]
    return Scene(
        "A schema file in the geo-partitioned dialect becomes tables on all of them",
        f"{len(plan.steps)} steps in one two-phase commit. A shard is a table at home and a link everywhere else:",
        [k for k in kinds if k["step"] != "sync_shards"],
        seconds=time.perf_counter() - started,
    )


async def _load(herd: AsyncHerd, say: Say) -> Scene:
    say("reading the ICD-10-CM catalogue")
    rows = await asyncio.to_thread(treatments)
    started = time.perf_counter()
    await herd.table("hospital").upsert(list(HOSPITALS))
    table = herd.table(TABLE)
    for start in range(0, len(rows), BATCH_ROWS):
        await table.insert(rows[start : start + BATCH_ROWS])
        say(f"embedding and loading {min(start + BATCH_ROWS, len(rows)):,} of {len(rows):,} descriptions")
    seconds = time.perf_counter() - started
    return Scene(
        "Real rows, embedded here, each sent straight to its home",
        f"{len(rows):,} ICD-10-CM descriptions as 256-dimensional vectors by a model that runs on this machine: "
        f"{len(rows) / seconds:,.0f} rows/s, embedding included.",
        [{k: rows[i][k] for k in ("icd_code", "description", "hospital_location")} for i in (700, 40_000, 80_000)],
        seconds=seconds,
    )


async def _apply_index(herd: AsyncHerd, say: Say) -> Scene:
    started = time.perf_counter()
    plan = await herd.plan(dialect.parse(schema_text(), file="hospitals.sql"))
    say("building a vector index in each region, writers not blocked")
    await herd.execute(plan)
    rows = [{"step": s.kind, "on": s.target, "groups": ", ".join(s.groups), "blocks": s.blocks} for s in plan.steps]
    return Scene(
        "The file gains an index; apply makes just the difference",
        "Each region builds an HNSW index over its own rows, at the same time, without blocking writers:",
        rows[:3],
        seconds=time.perf_counter() - started,
    )


async def _who_holds_what(herd: AsyncHerd) -> Scene:
    document = await status_of(herd)
    rows = [
        {
            "table": t["name"],
            "shard": s["name"],
            "home": s["home"],
            "rows": s["rows"],
            "MiB": round(s["bytes"] / 2**20, 1),
        }
        for t in document["tables"]
        for s in t["shards"]
    ]
    return Scene("Who holds which rows", "Every treatment is on one server: the one in its hospital's region.", rows)


async def _ask(herd: AsyncHerd, location: str | None) -> Scene:
    table = herd.table(TABLE)
    where = {"hospital_location": location} if location else None
    await table.search(QUESTION, k=5, where=where)  # the first one also opens connections and loads the model
    hits = await table.search(QUESTION, k=5, where=where)
    rows = [
        {"distance": h.distance, "server": h.group, "code": h.row["icd_code"], "description": h.row["description"]}
        for h in hits
    ]
    timings = ", ".join(f"{g.name} {g.ms:.1f} ms" for g in hits.groups)
    if location:
        title = f"The same question, {location} only"
        says = f"The client knows where those rows live, and asks that server alone: {timings}."
    else:
        title = f"A question to all hospitals: “{QUESTION}”"
        says = f"Every server searched its own index at the same time: {timings}."
    return Scene(title, says, rows)


async def _explain(herd: AsyncHerd) -> Scene:
    query = f"EXPLAIN (COSTS OFF) SELECT count(*) FROM {TABLE} WHERE hospital_location = 'New York'"
    region = HOSPITALS[2]["region"]
    lines = [r["QUERY PLAN"] for r in await herd.sql(query, region=region)]
    return Scene(
        "PostgreSQL's own proof that one server is touched",
        f"Asked on {region}; the plan has one scan, on New York's shard. Nothing is sent to Chicago:",
        text=query + "\n" + "\n".join("  " + line for line in lines),
    )


async def _refused(herd: AsyncHerd, home: Path) -> Scene:
    statement = (
        "INSERT INTO treatment_new_york (id, hospital_location, icd_code, description)"
        " VALUES (0, 'Chicago', 'R07.9', 'Chest pain')"
    )
    dsn = herdfile.read(home).dsn(home, HOSPITALS[0]["region"])
    try:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute(statement)
        outcome = "accepted: this must not happen"
    except psycopg.errors.CheckViolation as error:
        outcome = f"ERROR: {error.diag.message_primary}"
    return Scene(
        "A row of Chicago's, pushed into New York's server",
        "Not through pgherd, but straight into the server, as its owner. The server itself refuses:",
        text=f"{statement}\n  {outcome}",
    )


async def _any_driver(herd: AsyncHerd, home: Path) -> Scene:
    count = "SELECT hospital_location, count(*) FROM treatment GROUP BY 1 ORDER BY 1"
    nearest = (
        "SELECT distance, home, description FROM pgherd.search_treatment("
        "(SELECT embedding FROM treatment WHERE hospital_location = 'Chicago' AND icd_code = 'R07.89'), 3)"
    )
    answers, found = [], []
    for node in herdfile.read(home).nodes:
        dsn = herdfile.read(home).dsn(home, node.group)
        async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
            rows = await (await connection.execute(count)).fetchall()
            answers.append({"asked on": node.name, **{r["hospital_location"]: r["count"] for r in rows}})
            found = await (await connection.execute(nearest)).fetchall()
    lines = "\n".join(f"  {r['distance']:.3f}  {r['home']:<11} {r['description']}" for r in found)
    return Scene(
        "The same SQL through a plain driver, on any server",
        "psycopg, no pgherd: every server gives the same answer, and a function searches all of them.",
        answers,
        text=f"{nearest}\n{lines}" if found else nearest,
    )
