"""``pgherd bench``: client processes on a real herd, and what is said of what they met."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pgherd
from conftest import apply, own_database
from pgherd.benching import Job, Met, as_json
from pgherd.cli.main import main

N, DIM = 600, 8
SCHEMA = f"""
CREATE TABLE doc (id bigint PRIMARY KEY, body text, v vector({DIM}), b bit({DIM}));
SELECT create_distributed_table('doc', 'id', shard_count => 3);
CREATE INDEX doc_v ON doc USING hnsw (v vector_cosine_ops);
CREATE TABLE plain (id bigint PRIMARY KEY, body text);
"""


@pytest.fixture(scope="module")
def home(fleet_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    for own in own_database(fleet_home, tmp_path_factory.mktemp("benched")):
        with pgherd.connect(home=own) as herd:
            apply(herd, SCHEMA)
            rows = np.random.default_rng(1).standard_normal((N, DIM))
            bits = ["".join("1" if x > 0 else "0" for x in v) for v in rows]
            herd.table("doc").insert(
                [
                    {"id": i, "body": f"number {i}", "v": v, "b": b}
                    for i, (v, b) in enumerate(zip(rows, bits, strict=True))
                ]
            )
        yield own


def bench(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["bench", *arguments, "--home", str(home), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_clients_search_all_groups(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    status, said = bench(capsys, home, "doc", "--column", "v", "--clients", "2", "--seconds", "1", "-k", "5")
    assert status == 0
    assert said["searches"] > 0
    assert said["failed"] == {}
    assert {n["name"] for n in said["nodes"]} == {"us-east", "us-central", "us-west"}
    assert said["ms"]["p50"] <= said["ms"]["p95"] <= said["ms"]["p99"] <= said["ms"]["max"]
    assert 0.9 <= said["recall"] <= 1


def test_questions_of_ones_own_and_other_types(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    status, said = bench(capsys, home, "doc", "--column", "b", "--clients", "1", "--seconds", "0.5", "--exact")
    assert (status, said["recall"]) == (0, None)
    asked = tmp_path / "asked.txt"
    asked.write_text("\n")
    status, said = bench(capsys, home, "doc", "--column", "v", "--questions", str(asked))
    assert (status, said["error"]["code"]) == (2, "bad_input")
    assert "holds no question" in said["error"]["message"]


@pytest.mark.parametrize("wrong", [["plain"], ["doc"], ["doc", "--column", "v", "--clients", "0"], ["nothing"]])
def test_what_can_not_be_measured_is_refused(capsys: pytest.CaptureFixture[str], home: Path, wrong: list[str]) -> None:
    status, said = bench(capsys, home, *wrong)
    assert status == 2
    assert said["error"]["message"]


def test_clients_are_counted_together() -> None:
    job = Job(None, None, "doc", [0] * 7, 10, {}, 2, 1.0)
    one = Met([1.0, 3.0], {"a": [1.0, 2.0]}, Counter(), 0.002, 1.0)
    other = Met([2.0, 4.0], {"a": [3.0], "b": [9.0]}, Counter(group_unavailable=2), 0.002, 2.0)
    said = as_json(job, [one, other], 0.951)
    assert (said["searches"], said["searches_per_s"], said["client_cpu_ms"]) == (4, 3.0, 1.0)
    assert said["ms"] == {"p50": 2.0, "p95": 4.0, "p99": 4.0, "max": 4.0}
    assert said["nodes"] == [{"name": "a", "p50_ms": 2.0}, {"name": "b", "p50_ms": 9.0}]
    assert said["failed"] == {"group_unavailable": 2}
    nothing = as_json(job, [Met(failed=Counter(group_unavailable=1), seconds=1.0)], None)
    assert (nothing["searches"], nothing["ms"], nothing["recall"]) == (0, None, None)
