"""``python -m bench.paper``: what the simulator says against herds of 1, 2 and 4 real servers.

Bytes: the same rows go into each herd, one more server joins, and what the planner moves is compared with what was
worked out beforehand from nothing but rows and dimensions. Latency: searches that visit one server are measured one
by one; from their distribution follows how long a search takes that visits all, which is measured in turns with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pgherd
from pgherd import dialect
from pgherd.client import connect_async
from pgherd.elastic import rebalance_plan
from pgherd.errors import LocalServerError
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from pgherd.planning.rebalance import rebalance
from pgherd.planning.workload import Workload
from pgherd.simulation.latency import Measured, quantile
from pgherd.simulation.synthetic import Shape, groups_of, synthetic
from pgherd.sync import Herd

from .data import Corpus, corpus
from .machine import busy_share

SHARDS = 12
K = 10
SHARES = (0.5, 0.95, 0.99)


def main() -> None:
    """Measure, print, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.paper", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = corpus(options.rows)
    found = {"rows": options.rows, "questions": options.questions, "busy_before": busy_share(), "herds": []}
    for servers in options.servers:
        found["herds"].append(measure(data, servers, options.questions))
        print(json.dumps(found["herds"][-1], indent=1), flush=True)
    found["busy_after"] = busy_share()
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(data: Corpus, servers: int, questions: int) -> dict[str, Any]:
    """One herd, made and removed."""
    base = Path(tempfile.mkdtemp(prefix="pgherd-paper-"))
    base.chmod(0o711)  # servers started by root run as somebody else
    local = LocalHerd(base / "herd")
    try:
        local.up([Label.parse(f"r{i}") for i in range(servers)], EngineName.FLEET, tls=False)
        with pgherd.connect(home=local.home) as herd:
            load_hashed(herd, data)
        moved = grow(local, data, servers)
        with pgherd.connect(home=local.home) as herd:
            load_by_server(herd, data, servers)
            latency = fan_out(herd, data, servers, questions)
        return {"servers": servers, "bytes": moved, "latency": latency}
    finally:
        with suppress(LocalServerError):  # what was measured is not lost because files are still in use
            local.destroy()
        shutil.rmtree(base, ignore_errors=True)


def load_hashed(herd: Herd, data: Corpus) -> None:
    """Rows in hash shards, with an index."""
    text = f"""CREATE TABLE item (id bigint PRIMARY KEY, v vector({data.vectors.shape[1]}));
    SELECT create_distributed_table('item', 'id', shard_count => {SHARDS});
    CREATE INDEX item_v ON item USING hnsw (v vector_cosine_ops);"""
    herd.execute(herd.plan(dialect.parse(text)))
    herd.table("item").insert([{"id": int(i), "v": v} for i, v in zip(data.ids, data.vectors, strict=True)])


def grow(local: LocalHerd, data: Corpus, servers: int) -> dict[str, Any]:
    """One server more: the moves that were foreseen, those that were planned, and the bytes that arrived."""
    work = Workload(data.n, data.vectors.shape[1])
    shape = Shape(servers, shards=SHARDS)
    paper, sizes = synthetic(shape, work)
    grown = replace(paper, groups=(*paper.groups, *groups_of(shape, servers + 1, 1)))
    foreseen = rebalance(grown, sizes)
    local.add(Label.parse("new"))
    moves, seconds = asyncio.run(_rebalanced(local.home))
    arrived = asyncio.run(_held(local.home))
    planned, predicted = sum(m.bytes for m in moves), sum(m.bytes for m in foreseen)
    return {
        "moves_foreseen": len(foreseen),
        "moves": len(moves),
        "bytes_foreseen": predicted,
        "bytes_planned": planned,
        "bytes_arrived": arrived,
        "error_planned": round(predicted / planned - 1, 4) if planned else None,
        "error_arrived": round(predicted / arrived - 1, 4) if arrived else None,
        "seconds": round(seconds, 2),
    }


async def _rebalanced(home: Path) -> tuple[Any, float]:
    async with connect_async(home=home) as herd:
        moves, plan = await rebalance_plan(herd)
        began = time.perf_counter()
        if plan.phases:
            await herd.engine.execute(plan)
        return moves, time.perf_counter() - began


async def _held(home: Path) -> int:
    """Bytes of the shards at home on the newest group, as its server has them."""
    async with connect_async(home=home) as herd:
        newest = herd.topology.groups[-1].name
        total = 0
        async with herd.engine.connection(newest) as connection:
            for shard in herd.topology.shards(herd.topology.table("item")):
                if shard.home == newest:
                    done = await connection.execute("SELECT pg_total_relation_size(%s::regclass)", [shard.relation.sql])
                    row = await done.fetchone()
                    total += row[0] if row else 0
        return total


def load_by_server(herd: Herd, data: Corpus, servers: int) -> None:
    """The same number of rows on each server but the new one, chosen by a column."""
    text = f"""CREATE TABLE part (id bigint, place text, v vector({data.vectors.shape[1]}), PRIMARY KEY (id, place))
        PARTITION BY LIST (place);
    CREATE INDEX part_v ON part USING hnsw (v vector_cosine_ops);"""
    for i in range(servers):
        block = f'{{"cloud": "local", "region": "r{i}", "zone": "*", "min_num_replicas": 1}}'
        text += f"""CREATE TABLESPACE at_{i} WITH (replica_placement =
            '{{"num_replicas": 1, "placement_blocks": [{block}]}}');
        CREATE TABLE part_{i} PARTITION OF part FOR VALUES IN ('p{i}') TABLESPACE at_{i};"""
    herd.execute(herd.plan(dialect.parse(text)))
    rows = zip(data.ids.tolist(), data.vectors, strict=True)
    herd.table("part").insert([{"id": n, "place": f"p{n % servers}", "v": v} for n, v in rows])


def fan_out(herd: Herd, data: Corpus, servers: int, questions: int) -> dict[str, Any]:
    """Searches of one server and of all in turns; the second foretold from the first."""
    table = herd.table("part")
    one: list[float] = []
    every: list[float] = []
    for i in range(questions + 50):
        question = data.questions[i % len(data.questions)]
        began = time.perf_counter()
        alone = table.search(question, k=K, where={"place": f"p{i % servers}"})
        middle = time.perf_counter()
        whole = table.search(question, k=K)
        ended = time.perf_counter()
        assert len(alone) == len(whole) == K
        assert len(alone.groups) == 1
        assert len(whole.groups) == servers
        if i >= 50:
            one.append(1000 * (middle - began))
            every.append(1000 * (ended - middle))
    distribution = Measured(one)
    found: dict[str, Any] = {"p50_of_one_ms": round(float(np.quantile(one, 0.5)), 3)}
    for share in SHARES:
        foretold, seen = quantile(distribution, share, servers), float(np.quantile(every, share))
        name = f"p{share * 100:.0f}"
        found[name] = {
            "foretold_ms": round(foretold, 3),
            "measured_ms": round(seen, 3),
            "error": round(foretold / seen - 1, 3),
        }
    if servers > 1:
        more = float(np.quantile(every, 0.5)) - quantile(distribution, 0.5, servers)
        found["unforeseen_us_a_server"] = round(1000 * more / (servers - 1), 1)
    return found


if __name__ == "__main__":
    main()
