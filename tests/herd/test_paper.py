"""What the simulator says of a herd, against one that is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest

from conftest import apply
from pgherd import herdfile
from pgherd.planning.rebalance import rebalance
from pgherd.planning.workload import Workload
from pgherd.simulation.synthetic import Shape, groups_of, synthetic
from pgherd.sync import Herd

ROWS, DIM, SHARDS = 4000, 200, 6


def test_bytes_and_moves_are_as_on_paper(fleet: Herd, fleet_db: Path) -> None:
    """A fourth server joins three: the same number of moves, and their bytes within 15 % (shards are small here)."""
    text = f"""CREATE TABLE item (id bigint PRIMARY KEY, v vector({DIM}));
    SELECT create_distributed_table('item', 'id', shard_count => {SHARDS});"""
    apply(fleet, text)
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIM)).astype(np.float32)
    fleet.table("item").insert([{"id": i, "v": v} for i, v in enumerate(vectors)])
    apply(fleet, f"{text} CREATE INDEX item_v ON item USING hnsw (v vector_cosine_ops);")
    sizes = {}
    topology = fleet.topology
    file = herdfile.read(fleet_db)
    for shard in topology.shards(topology.table("item")):
        with psycopg.connect(file.dsn(fleet_db, shard.home), autocommit=True) as connection:
            connection.execute(f"VACUUM {shard.relation.sql}")  # COPY makes tables longer than they need, in advance
            row = connection.execute("SELECT pg_total_relation_size(%s::regclass)", [shard.relation.sql]).fetchone()
            assert row is not None
            sizes[shard.relation.sql] = row[0]
    shape = Shape(3, shards=SHARDS)
    paper, foreseen = synthetic(shape, Workload(ROWS, DIM))
    fourth = groups_of(shape, 4, 1)
    real_moves = rebalance(replace(topology, groups=(*topology.groups, *fourth)), sizes)
    paper_moves = rebalance(replace(paper, groups=(*paper.groups, *fourth)), foreseen)
    assert sum(foreseen.values()) == pytest.approx(sum(sizes.values()), rel=0.15)
    assert len(paper_moves) == len(real_moves) > 0
    assert sum(m.bytes for m in paper_moves) == pytest.approx(sum(m.bytes for m in real_moves), rel=0.15)
