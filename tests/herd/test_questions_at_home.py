"""Questions made of pinned rows are nearly those rows, and pages end with their keys: other regions are told none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pgherd
from conftest import apply
from hostile import HOSPITALS
from pgherd.cli.main import main
from pgherd.engines.asking import AnyConnection, Question
from pgherd.engines.wire import decode
from pgherd.model.schema import VectorType
from pgherd.search import scatter
from pgherd.tuning import tasks

INDEX = "CREATE INDEX treatment_v ON treatment USING hnsw (embedding vector_l2_ops);"
PLACES = {"us-east": "New York", "us-central": "Chicago", "us-west": "San Francisco"}


@pytest.fixture
def home(fleet_db: Path) -> Path:
    """Each region's rows lie along an axis of their own."""
    with pgherd.connect(home=fleet_db) as herd:
        apply(herd, HOSPITALS + INDEX)
        herd.table("hospital").insert([{"location": p, "name": p, "region": r} for r, p in PLACES.items()])
        axes = np.eye(3)
        rows = [
            {"id": i, "hospital_location": place, "embedding": axes[n] * (1 + i)}
            for n, place in enumerate(PLACES.values())
            for i in range(60)
        ]
        herd.table("treatment").insert(rows)
    return fleet_db


def test_measuring_asks_each_region_about_its_own_rows_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, set[int]] = {}

    def heard(connection: AnyConnection, text: bytes, values: Mapping[str, Any], *, binary: bool) -> Question:
        axes = np.flatnonzero(decode([values["pgherd_q"]], VectorType.VECTOR)[0])
        asked.setdefault(connection.info.port, set()).update(axes.tolist())
        return Question(connection, text, values, binary=binary)

    monkeypatch.setattr(tasks, "Question", heard)
    with pgherd.connect(home=home) as herd:
        ports = [herd.topology.group(region).primary.port for region in PLACES]
        measured = herd.table("treatment").tune(sample=20)
        assert len(measured) == 3
        assert [asked[p] for p in ports] == [{0}, {1}, {2}]
        asked.clear()
        herd.table("treatment").tune(questions=list(np.eye(3)) * 4)  # somebody's own may be asked of all
        assert [asked[p] for p in ports] == [{0, 1, 2}] * 3


def test_the_next_page_tells_a_region_of_its_own_keys_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, set[str]] = {}

    def heard(connection: AnyConnection, text: bytes, values: Mapping[str, Any], *, binary: bool) -> Question:
        told.setdefault(regions[connection.info.port], set()).update(values.get("pgherd_seen_1", ()))
        return Question(connection, text, values, binary=binary)

    monkeypatch.setattr(scatter, "Question", heard)
    with pgherd.connect(home=home) as herd:
        regions = {herd.topology.group(r).primary.port: r for r in PLACES}
        table, page, found = herd.table("treatment"), None, []
        while page is not None or not found:
            hits = table.search([1.0, 1.0, 1.0], k=4, exact=True, after=page)
            found += [(h.row["id"], h.row["hospital_location"]) for h in hits]
            page = hits.next
    assert len(found) == len(set(found)) == 180, "three rows are at each distance"
    assert told == {region: {place} for region, place in PLACES.items()}


def test_bench_takes_no_rows_of_one_region_to_another(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["bench", "treatment", "--home", str(home), "--json", "--clients", "1", "--seconds", "0.2"]
    assert main(base) == 3
    error: dict[str, Any] = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], "treatment" in error["message"]) == ("residency", True)
    assert main([*base, "--where", "hospital_location = 'Chicago'"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {n["name"] for n in found["nodes"]} == {"us-central"}
