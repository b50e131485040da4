"""Conditions of any width, near the question and far from it: all rows that match, and the nearest of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pgherd
from conftest import apply, own_database
from pgherd.sync import Herd, HerdTable

N, DIM, K = 20_000, 16, 10
SCHEMA = f"""
CREATE TABLE doc (id bigint PRIMARY KEY, anywhere int NOT NULL, nearness int NOT NULL, v vector({DIM}) NOT NULL);
SELECT create_distributed_table('doc', 'id', shard_count => 4);
"""
INDEX = "CREATE INDEX doc_v ON doc USING hnsw (v vector_l2_ops);"
SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)

_rng = np.random.default_rng(7)
FAMILIES = _rng.standard_normal((50, DIM)).astype(np.float32)
ROWS = FAMILIES[_rng.integers(0, 50, N)] + 0.7 * _rng.standard_normal((N, DIM)).astype(np.float32)
ANYWHERE = _rng.permutation(N)
CENTRE = FAMILIES[0]
NEARNESS = np.linalg.norm(ROWS - CENTRE, axis=1).argsort().argsort()
FAR = FAMILIES[np.linalg.norm(FAMILIES - CENTRE, axis=1).argmax()]


@pytest.fixture(scope="module", params=["single", "fleet"])
def herd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Herd]:
    running: Path = request.getfixturevalue(f"{request.param}_home")
    for own in own_database(running, tmp_path_factory.mktemp("filtered")):
        with pgherd.connect(home=own) as found:
            apply(found, SCHEMA)
            rows = zip(ANYWHERE.tolist(), NEARNESS.tolist(), ROWS, strict=True)
            found.table("doc").insert(
                [{"id": i, "anywhere": a, "nearness": n, "v": v} for i, (a, n, v) in enumerate(rows)]
            )
            apply(found, SCHEMA + INDEX)
            for group in found.topology.groups:
                found.sql("ANALYZE doc", region=group.name)
            yield found


def questions(centre: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    return [centre + 0.3 * np.random.default_rng(i).standard_normal(DIM).astype(np.float32) for i in range(5)]


@pytest.mark.parametrize("tuned", [False, True])
def test_any_width_anywhere(herd: Herd, tuned: bool) -> None:
    table = herd.table("doc")
    if tuned:
        table.tune(sample=20)
    for share in SHARES:
        matching = int(N * share)
        for column in ("anywhere", "nearness"):
            for centre in (CENTRE, FAR):
                check(table, questions(centre), f"{column} < {matching}", matching)


def check(table: HerdTable, asked: list[Any], where: str, matching: int) -> None:
    recalls = []
    for question in asked:
        hits = table.search(question, K, where=where, columns=["id"])
        truth = table.search(question, K, where=where, columns=["id"], exact=True)
        assert len(hits) == len(truth) == min(K, matching)
        assert len({h.row["id"] for h in hits}) == len(hits)
        recalls.append(sum(h.distance <= truth[-1].distance for h in hits) / len(truth))
    assert np.mean(recalls) >= 0.9, where


def test_a_narrow_condition_reads_its_rows_straight_away(herd: Herd) -> None:
    table = herd.table("doc")
    asked: list[str] = []
    for where, exact in (("anywhere < 21", True), ("anywhere < 9999", False), ("nearness < 9999", False)):
        table.search(FAR, K, where=where)
        asked += [where] * exact
        for matching in known(table, where):
            assert (matching < 500) == exact, "as PostgreSQL's statistics say"
    # Many match, but none near the question: the scan gives up, and the next search knows.
    where = "nearness < 700"
    first = table.search(FAR, K, where=where)
    assert len(first) == K
    assert first == table.search(FAR, K, where=where, exact=True) == table.search(FAR, K, where=where)


def known(table: HerdTable, where: str) -> list[float]:
    entries = table._inner.herd.narrowing._known
    return [value.matching for key, (_, value) in entries.items() if len(key) == 4 and where in key[2]]


def test_conditions_without_statistics(fleet: Herd) -> None:
    apply(fleet, SCHEMA + INDEX)
    table = fleet.table("doc")
    assert table.search(CENTRE, K, where="anywhere < 3") == []
    table.insert([{"id": i, "anywhere": i, "nearness": 0, "v": ROWS[i]} for i in range(500)])
    assert len(table.search(CENTRE, K, where="anywhere < 3")) == 3
    assert len(table.search(CENTRE, K, where={"anywhere": [1, 2, None]})) == 2
    assert len(table.search(CENTRE, K, where="anywhere < %(most)s", params={"most": 400})) == K
