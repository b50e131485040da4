"""Commands that build indexes or bring rows measure what searches find, unless somebody's own questions were asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pgherd
from pgherd.cli.main import main

N, DIM = 400, 8
TABLE = f"""
CREATE TABLE doc (id bigint PRIMARY KEY, v vector({DIM}));
SELECT create_distributed_table('doc', 'id', shard_count => 3);
"""
INDEX = "CREATE INDEX doc_v ON doc USING hnsw (v vector_cosine_ops);"
ROWS = np.random.default_rng(1).standard_normal((4 * N, DIM))


def file_of(path: Path, first: int) -> str:
    lines = [json.dumps({"id": i, "v": ROWS[i].tolist()}) for i in range(first, first + N)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def measured(capsys: pytest.CaptureFixture[str], home: Path) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["index", "status", "--home", str(home), "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["indexes"]
    return found


def test_an_index_is_measured_when_it_is_built_and_when_rows_have_come(
    fleet_db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, schema = ["--home", str(fleet_db)], tmp_path / "schema.sql"
    schema.write_text(TABLE)
    assert main(["apply", str(schema), *home]) == 0
    assert main(["load", "doc", file_of(tmp_path / "a.jsonl", 0), *home]) == 0
    schema.write_text(TABLE + INDEX)
    assert main(["apply", str(schema), "--no-tune", *home]) == 0
    assert not any(e["calibrated_at"] for e in measured(capsys, fleet_db))

    assert main(["load", "doc", file_of(tmp_path / "b.jsonl", N), "--no-tune", *home]) == 0
    assert "pgherd index tune doc" in capsys.readouterr().err
    assert main(["load", "doc", file_of(tmp_path / "c.jsonl", 2 * N), *home]) == 0
    first = measured(capsys, fleet_db)
    assert len(first) == 3
    assert all(e["calibrated_at"] and not e["stale"] for e in first)

    with pgherd.connect(home=fleet_db) as herd:
        herd.table("doc").tune(questions=list(ROWS[:20]))
    mine = measured(capsys, fleet_db)
    assert main(["load", "doc", file_of(tmp_path / "d.jsonl", 3 * N), *home]) == 0
    assert "pgherd index tune doc" in capsys.readouterr().err
    assert [e["calibrated_at"] for e in measured(capsys, fleet_db)] == [e["calibrated_at"] for e in mine]


def test_apply_measures_what_it_builds(single_db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, schema = ["--home", str(single_db)], tmp_path / "schema.sql"
    schema.write_text(TABLE)
    assert main(["apply", str(schema), *home]) == 0
    assert main(["load", "doc", file_of(tmp_path / "a.jsonl", 0), *home]) == 0
    schema.write_text(TABLE + INDEX)
    assert main(["apply", str(schema), *home]) == 0
    assert all(e["calibrated_at"] for e in measured(capsys, single_db))
