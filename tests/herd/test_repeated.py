"""A search that is asked again in the same form takes a short way: its hits are those of the long one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from test_rows import REGIONS

import pgherd
import pgherd.client
from conftest import apply
from pgherd import herdfile
from pgherd.errors import BadInput, DimensionMismatch
from pgherd.search.hits import Hits
from pgherd.search.repeated import Repeated
from pgherd.sync import Herd

DIM, N = 8, 600
DOC = f"""{REGIONS}
CREATE TABLE doc (id bigint, region text, n int, body text, v vector({DIM}) NOT NULL,
  PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE doc_east PARTITION OF doc FOR VALUES IN ('east') TABLESPACE east;
CREATE TABLE doc_west PARTITION OF doc FOR VALUES IN ('west') TABLESPACE west;
CREATE INDEX ON doc USING hnsw (v vector_cosine_ops);
"""
ROWS = np.random.default_rng(3).standard_normal((N, DIM)).astype(np.float32)
QUESTIONS = np.random.default_rng(4).standard_normal((6, DIM)).astype(np.float32)
FORMS: list[dict[str, Any]] = [
    {},
    {"k": 3, "recall": 0.9},
    {"ef_search": 50},
    {"exact": True},
    {"where": {"region": "east"}},
    {"where": {"region": ["east", "west"]}},
    {"columns": ["body"]},
    {"column": "v", "min_similarity": 0.2},
    {"metric": "l2", "columns": ("id", "n")},
]


def fill(herd: Herd, kind: str = "vector") -> None:
    apply(herd, DOC.replace("vector", kind))
    rows = [
        {"id": i, "region": ("east", "west")[i % 2], "n": i, "body": f"body {i}", "v": v} for i, v in enumerate(ROWS)
    ]
    herd.table("doc").insert(rows)


def seen(hits: Hits) -> Any:
    return list(hits), [g.name for g in hits.groups], hits.missing, hits.next, (hits.shards_asked, hits.shards)


class Ways:
    """How many searches went which way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.short = self.long = 0
        real = Repeated.ask

        async def ask(repeated: Repeated, lender: Any, question: object) -> Hits | None:
            hits = await real(repeated, lender, question)
            self.short += hits is not None
            self.long += hits is None
            return hits

        monkeypatch.setattr(Repeated, "ask", ask)
        monkeypatch.setattr(pgherd.client, "LOOK_EVERY_S", 3600.0)  # looking for a newer topology goes the long way


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


@pytest.mark.parametrize(("kind", "tuned"), [("vector", False), ("vector", True), ("halfvec", False)])
def test_both_ways_give_the_same(fleet_db: Path, ways: Ways, kind: str, tuned: bool) -> None:
    with pgherd.connect(home=fleet_db) as herd:
        fill(herd, kind)
        if tuned:
            herd.table("doc").tune(sample=20)
        doc, short, wanted = herd.table("doc"), 0, []
        for form in FORMS:
            for number, question in enumerate(QUESTIONS):
                with pgherd.connect(home=fleet_db) as other:
                    wanted.append(seen(other.table("doc").search(question, **form)))
                found = doc.search(question, **form)
                assert seen(found) == wanted[-1], (form, number)
            short += len(QUESTIONS) - 3
        assert ways.short >= short, (
            "the first goes the long way, and so does one that finds a session with other settings"
        )

    async def ask() -> list[Any]:
        async with pgherd.connect_async(home=fleet_db) as herd:
            doc = herd.table("doc")
            return [seen(await doc.search(question, **form)) for form in FORMS for question in QUESTIONS]

    before = ways.short
    assert asyncio.run(ask()) == wanted
    assert ways.short - before >= short


def test_questions_are_checked_either_way(fleet: Herd, ways: Ways) -> None:
    fill(fleet)
    doc = fleet.table("doc")
    for _ in range(3):
        doc.search(QUESTIONS[0])
    assert ways.short
    with pytest.raises(DimensionMismatch):
        doc.search(QUESTIONS[0][:5])
    for bad in ([float("nan")] * DIM, [0.0] * DIM, "  ", [["x"]], QUESTIONS):
        with pytest.raises(BadInput):
            doc.search(bad)
    assert len(doc.search(QUESTIONS[0].tolist())) == 10
    assert len(doc.search([3e38] * DIM)) == 10, "its square is beyond what a float holds"


def test_where_fewer_rows_come_the_long_way_finds_all(fleet: Herd, ways: Ways) -> None:
    fill(fleet)
    doc = fleet.table("doc")
    for question in QUESTIONS:
        assert len(doc.search(question)) == 10
    before = ways.short
    assert before
    doc.delete("region = 'west' AND id > 7")
    for question in QUESTIONS:
        assert len(doc.search(question)) == 10
    assert ways.short == before
    assert ways.long == 1, "once is enough to see it"
    doc.delete("region = 'east' AND id > 6")
    assert [len(doc.search(question)) for question in QUESTIONS] == [8] * len(QUESTIONS)


def test_a_session_with_other_settings_is_brought_to_its_own(fleet: Herd, ways: Ways) -> None:
    fill(fleet)
    doc = fleet.table("doc")
    for ef in (20, 60, 20, 60):
        for question in QUESTIONS[:3]:
            doc.search(question, ef_search=ef)
            assert doc.search(question, k=4, ef_search=ef, columns=["id"])
    assert ways.short
    assert ways.long


def test_a_changed_herd_and_one_whose_connections_broke(fleet_db: Path, ways: Ways) -> None:
    with pgherd.connect(home=fleet_db) as herd:
        fill(herd)
        doc = herd.table("doc")
        for question in QUESTIONS:
            doc.search(question)
        before = ways.short
        assert before
        file = herdfile.read(fleet_db)
        for group in dict.fromkeys(n.group for n in file.nodes):
            with psycopg.connect(file.dsn(fleet_db, group), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        assert len(doc.search(QUESTIONS[0])) == 10
        for question in QUESTIONS:
            doc.search(question)
        assert ways.short > before
        apply(herd, DOC + "ALTER TABLE doc ADD COLUMN extra text;")
        before = ways.short
        for question in QUESTIONS:
            assert set(doc.search(question)[0].row) == {"id", "region", "n", "body", "extra"}
        assert ways.short > before
