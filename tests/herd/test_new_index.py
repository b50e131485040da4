"""index create: on all homes, repeatable after a build that was cut off, watched while it runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

import pgherd
from conftest import apply
from pgherd import dialect
from pgherd.cli.main import main
from pgherd.dialect.new_index import new_index
from pgherd.model.schema import Schema
from pgherd.sync import Herd
from pgherd.tuning.building import Build, builds, watching

SCHEMA = """
CREATE TABLE doc (id bigint PRIMARY KEY, v vector(64) NOT NULL);
SELECT create_distributed_table('doc', 'id', shard_count => 3);
"""


@pytest.fixture
def home(fleet_db: Path) -> Path:
    with pgherd.connect(home=fleet_db) as herd:
        apply(herd, SCHEMA)
        rows = np.random.default_rng(1).standard_normal((1500, 64)).astype(np.float32)
        herd.table("doc").insert([{"id": i, "v": v} for i, v in enumerate(rows)])
    return fleet_db


def test_a_file_that_says_the_same_finds_nothing_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "create", "doc", "v", "--m", "8", "--json", "--home", str(home)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["index"], said["applied"], said["measured"]) == ("doc_v_idx", True, 3)
    assert sum(s["kind"] == "build_index" for s in said["steps"]) == 3
    with pgherd.connect(home=home) as herd:
        text = SCHEMA + "CREATE INDEX doc_v_idx ON doc USING hnsw (v vector_cosine_ops) WITH (m = 8);"
        assert herd.plan(dialect.parse(text)).steps == ()
        assert said["generation"] == herd.topology.generation
    assert (
        main(["index", "create", "doc", "v", "--type", "bit", "--name", "small", "--no-tune", "--home", str(home)]) == 0
    )
    assert "built small" in capsys.readouterr().out
    assert main(["index", "status", "doc", "--json", "--home", str(home)]) == 0
    entries = json.loads(capsys.readouterr().out)["indexes"]
    assert {(e["type"], e["metric"], bool(e["calibrated_at"])) for e in entries} == {
        ("vector", "cosine", True), ("bit", "cosine", False)
    }  # fmt: skip
    assert all(e["bloat"] is not None and e["bloat"] < 0.3 for e in entries)


def test_what_an_interrupted_build_left_is_built_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pgherd.connect(home=home) as herd:
        shard = herd.topology.shards(herd.table("doc").definition)[1]
        herd.sql(f"CREATE INDEX {shard.name}_v_idx ON {shard.name} USING hnsw (v vector_cosine_ops)", region=shard.home)
        herd.sql(
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{shard.name}_v_idx'::regclass",
            region=shard.home,
        )
    assert main(["index", "create", "doc", "v", "--no-tune", "--json", "--home", str(home)]) == 0
    capsys.readouterr()
    assert main(["index", "status", "--json", "--home", str(home)]) == 0
    entries = json.loads(capsys.readouterr().out)["indexes"]
    assert len(entries) == 3
    assert all(e["valid"] for e in entries)


def test_a_build_is_told_of_while_it_runs(home: Path) -> None:
    seen: list[Build] = []

    async def build() -> None:
        async with pgherd.connect_async(home=home) as herd:
            groups = [g.name for g in herd.topology.groups]
            table = herd.table("doc").definition
            index = new_index(herd.topology.schema, table, table.columns[1], options={"ef_construction": 200})
            plan = await herd.plan(Schema(items=(index,)))
            async with watching(herd.engine, groups, seen.extend), herd.engine.connection(groups[0]) as connection:
                # An older transaction holds every concurrent build in its first wait: it is there to be seen.
                await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                await connection.execute("SELECT 1")
                await connection.execute(f"LOCK TABLE {table.name.sql}_0 IN ROW EXCLUSIVE MODE")
                work = asyncio.create_task(herd.execute(plan))
                async with asyncio.timeout(30):
                    while not seen:
                        await asyncio.sleep(0.05)
                await connection.execute("COMMIT")
                await work
            assert await builds(herd.engine, groups) == []

    asyncio.run(build())
    assert seen[0].group
    assert seen[0].relation.startswith("doc_")
    assert {"phase", "done", "total", "unit", "share", "seconds"} <= set(seen[0].as_json())


def test_the_session_goes_back_to_the_servers_own_settings(herd: Herd) -> None:
    apply(herd, SCHEMA)
    herd.table("doc").insert([{"id": i, "v": [i % 7 + 1] * 64} for i in range(100)])
    setting = (
        "SELECT current_setting('maintenance_work_mem') AS m, current_setting('max_parallel_maintenance_workers') AS w"
    )
    before = herd.sql(setting)
    apply(herd, SCHEMA + "CREATE INDEX ON doc USING ivfflat (v vector_l2_ops) WITH (lists = 4);")
    assert herd.sql(setting) == before
