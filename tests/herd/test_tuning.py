"""Recall as asked for, from indexes measured on real servers, on every engine."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pgherd
from conftest import apply, own_database
from pgherd.cli.main import main
from pgherd.client import AsyncHerd
from pgherd.errors import BadInput, DimensionMismatch, UnknownName
from pgherd.model.topology import Topology
from pgherd.search.effort import ALL
from pgherd.sync import Herd, HerdTable
from pgherd.tuning.curve import DEPTHS, Curve
from pgherd.tuning.store import read_calibrations

N, DIM, K = 3000, 24, 10
SCHEMA = f"""
CREATE TABLE doc (id bigint PRIMARY KEY, v vector({DIM}), w halfvec({DIM}), b bit({DIM}));
SELECT create_distributed_table('doc', 'id', shard_count => 4);
CREATE INDEX doc_v ON doc USING hnsw (v vector_cosine_ops) WITH (m = 4, ef_construction = 16);
CREATE INDEX doc_w ON doc USING ivfflat (w halfvec_l2_ops) WITH (lists = 12);
CREATE INDEX doc_b ON doc USING hnsw (b bit_hamming_ops);
CREATE TABLE plain (id bigint PRIMARY KEY, v vector(2));
"""
NEVER_EXACT = "UPDATE pgherd.calibration SET document = jsonb_set(document, '{curve,exact_ms}', '1e9')"


def vectors(n: int, seed: int) -> NDArray[np.float64]:
    """Families of near relatives, where greedy search gets lost."""
    rng = np.random.default_rng(seed)
    families = np.random.default_rng(1).standard_normal((60, DIM))
    return families[rng.integers(0, 60, n)] + 0.25 * rng.standard_normal((n, DIM))


ROWS, QUESTIONS = vectors(N, 2), vectors(50, 3)


def bits(vector: NDArray[Any]) -> str:
    return "".join("1" if x > 0 else "0" for x in vector)


@pytest.fixture(scope="module", params=["single", "fleet"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a tuned herd, where the index is never dearer than reading every row of these few."""
    running = request.getfixturevalue(f"{request.param}_home")
    for own in own_database(running, tmp_path_factory.mktemp("tuned")):
        with pgherd.connect(home=own) as herd:
            apply(herd, SCHEMA)
            herd.table("doc").insert([{"id": i, "v": v, "w": v, "b": bits(v)} for i, v in enumerate(ROWS)])
            apply(herd, SCHEMA)
            found = herd.table("doc").tune(sample=20)
            assert len(found) == 12
            doctor(herd, NEVER_EXACT)
        yield own


def doctor(herd: Herd, statement: str) -> None:
    for group in herd.topology.groups:
        herd.sql(statement, region=group.name)


@pytest.fixture
def doc(home: Path) -> Iterator[HerdTable]:
    with pgherd.connect(home=home) as herd:
        yield herd.table("doc")


def measured(table: HerdTable, column: str, recall: float | None, k: int = K) -> float:
    found = 0
    for question in QUESTIONS:
        truth = table.search(question, k, column=column, exact=True, columns=[])
        hits = table.search(question, k, column=column, recall=recall, columns=[])
        found += sum(h.distance <= truth[-1].distance for h in hits)
    return found / k / len(QUESTIONS)


@pytest.mark.parametrize("column", ["v", "w"])
def test_a_search_finds_what_it_was_asked_to_find(doc: HerdTable, column: str) -> None:
    for recall in (0.8, 0.9, 0.97):
        # lists are made by chance, and fifty questions tell recall to about 0.03
        assert measured(doc, column, recall) >= recall - 0.08
    assert measured(doc, column, None) >= 0.88
    assert measured(doc, column, 0.9, k=3) >= 0.82
    assert measured(doc, column, 1.0) == 1.0


def test_bits_are_measured_and_found(doc: HerdTable) -> None:
    for question in (bits(q) for q in QUESTIONS[:10]):
        truth = doc.search(question, K, column="b", exact=True)
        hits = doc.search(question, K, column="b", recall=0.9)
        assert [h.distance for h in hits][:5] == [h.distance for h in truth][:5]


def test_more_recall_is_asked_for_with_more_effort(home: Path) -> None:
    async def effort(herd: AsyncHerd, **options: Any) -> tuple[int, int]:
        await herd.table("doc").search(QUESTIONS[0], K, columns=[], **options)
        async with herd.engine.connection(herd.topology.groups[0].name) as connection:
            done = await connection.execute(
                "SELECT current_setting('hnsw.ef_search')::int, current_setting('ivfflat.probes')::int"
            )
            found: tuple[int, int] = await done.fetchone()
            return found

    async def check() -> None:
        async with pgherd.connect_async(home=home) as herd:
            little = await effort(herd, column="v", recall=0.3)
            assert little[0] == 10
            async with herd.engine.connection(herd.topology.groups[0].name) as connection:
                curves = [c.curve for c in await read_calibrations(connection) if c.column == "v"]
            for recall in (0.8, 0.95, 0.98):
                choices = [c.effort_for(recall, K, within=ALL) for c in curves]
                if not any(c.exact for c in choices):
                    assert (await effort(herd, column="v", recall=recall))[0] == max(c.effort for c in choices)
            assert await effort(herd, column="v", ef_search=77) == (77, 1)
            probes = (await effort(herd, column="w", recall=0.99))[1]
            assert 1 < probes <= 12
            assert (await effort(herd, column="v", ef_search=77))[1] == 1, "back to the server's own"
            # Another distance than the index serves reads every row, whatever it is asked.
            other = {"column": "v", "metric": "l2"}
            hits = await herd.table("doc").search(QUESTIONS[0], K, recall=0.5, **other)
            assert hits == await herd.table("doc").search(QUESTIONS[0], K, exact=True, **other)

    asyncio.run(check())


def test_a_group_gets_the_most_that_one_of_its_shards_needs(single: Herd, single_db: Path) -> None:
    apply(single, SCHEMA)
    single.table("doc").insert([{"id": i, "v": v} for i, v in enumerate(ROWS[:200])])
    single.table("doc").tune("v", sample=10)
    shards = [s.relation.sql for s in single.topology.shards(single.table("doc").definition)]
    for relation, least in zip(shards, (20, 320, 40, 80), strict=True):
        needed = {10: 0.5, least: 0.99}
        document = {
            "method": "hnsw",
            "depths": list(DEPTHS),
            "exact_ms": 1e9,
            "points": [{"effort": e, "ms": 1.0, "recall": [r] * len(DEPTHS)} for e, r in needed.items()],
        }
        assert Curve.from_json(document).effort_for(0.99, K).effort == least
        query = "UPDATE pgherd.calibration SET document = jsonb_set(document, '{curve}', %s::jsonb) WHERE relation = %s"
        single.sql(query, [json.dumps(document), relation])

    async def ef_search() -> Any:
        async with pgherd.connect_async(home=single_db) as herd:
            await herd.table("doc").search(QUESTIONS[0], K, column="v", recall=0.99)
            async with herd.engine.connection(herd.topology.groups[0].name) as connection:
                return await (await connection.execute("SHOW hnsw.ef_search")).fetchone()

    assert asyncio.run(ef_search()) == ("320",)


def test_a_herd_that_was_never_measured_is_searched_as_before(herd: Herd) -> None:
    apply(herd, SCHEMA)
    table = herd.table("doc")
    table.insert([{"id": i, "v": v} for i, v in enumerate(ROWS[:300])])
    assert measured(table, "v", 0.9) >= 0.9
    doctor(herd, "DROP TABLE pgherd.calibration")
    with_none = table.search(QUESTIONS[0], K, column="v", recall=0.9)
    assert len(with_none) == K


def test_what_can_not_be_asked_is_said(doc: HerdTable, home: Path) -> None:
    for recall in (0, -0.1, 1.01, float("nan"), "most"):
        with pytest.raises(BadInput, match="recall is"):
            doc.search(QUESTIONS[0], column="v", recall=recall)
    with pytest.raises(BadInput, match="both recall and ef_search"):
        doc.search(QUESTIONS[0], column="v", recall=0.9, ef_search=50)
    with pytest.raises(BadInput, match="sample of 3"):
        doc.tune(sample=3)
    with pgherd.connect(home=home) as herd, pytest.raises(BadInput, match="no hnsw or ivfflat index"):
        herd.table("plain").tune()


def test_tables_with_nothing_to_measure(herd: Herd) -> None:
    apply(herd, SCHEMA)
    assert herd.table("doc").tune("v") == ()
    herd.table("doc").insert([{"id": i, "v": None if i % 2 else ROWS[i] * 0} for i in range(20)])
    assert herd.table("doc").tune("v") == (), "zeros point nowhere"
    herd.table("doc").insert({"id": 100, "v": ROWS[0]})
    found = herd.table("doc").tune("v")
    assert {c.column for c in found} == {"v"}
    assert len(herd.table("doc").search(ROWS[1], column="v", recall=0.9)) == 1


def test_progress_is_told_to_its_end(single: Herd) -> None:
    apply(single, SCHEMA)
    single.table("doc").insert([{"id": i, "v": v} for i, v in enumerate(ROWS[:100])])
    told: list[tuple[int, int]] = []
    single.table("doc").tune("v", sample=10, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (4 * 10 * 9, 4 * 10 * 9)


def run_json(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--home", str(home), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def wait_until(predicate: Callable[[], Any], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, "it did not come to be"
        threading.Event().wait(0.2)


def shards_of(topology: Topology) -> set[str]:
    return {s.name for s in topology.shards(topology.table("doc"))}


def test_status_tells_what_there_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pgherd.connect(home=home) as herd:
        names = shards_of(herd.topology)
    wait_until(lambda: all(e["rows"] for e in run_json(capsys, home, "index", "status")["indexes"]))
    entries = run_json(capsys, home, "index", "status", "doc")["indexes"]
    assert len(entries) == 12
    assert {e["shard"] for e in entries} == names
    for entry in entries:
        assert set(entry) == {
            *("table", "shard", "home", "index", "column", "type", "metric", "method", "parameters", "bytes"),
            *(
                "predicted_bytes",
                "bloat",
                "rows",
                "dead",
                "valid",
                "calibrated_at",
                "stale",
                "recall",
                "effort",
                "exact",
                "ms",
            ),
        }
        assert entry["valid"] is True
        assert entry["stale"] is False
        assert entry["bytes"] > 0
    by_column = {e["column"]: e for e in entries}
    assert by_column["v"]["parameters"] == {"m": "4", "ef_construction": "16"}
    assert by_column["w"]["parameters"] == {"lists": "12"}
    assert by_column["b"]["parameters"] == {"m": "16", "ef_construction": "64"}
    assert by_column["v"]["metric"] == "cosine"
    assert 0.5 < by_column["v"]["recall"] <= 1
    assert run_json(capsys, home, "index", "status", "plain")["indexes"] == []
    error = run_json(capsys, home, "index", "status", "nowhere", status=2)["error"]
    assert error["code"] == UnknownName.code
    assert main(["index", "status", "--home", str(home)]) == 0
    assert "ef_construc" in capsys.readouterr().out


def test_tuning_from_the_command_line(single_db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, single_db, "index", "tune", status=2)["error"]["code"] == "bad_input"
    with pgherd.connect(home=single_db) as herd:
        apply(herd, SCHEMA)
        herd.table("doc").insert([{"id": i, "v": v, "w": v, "b": bits(v)} for i, v in enumerate(ROWS[:400])])
    before = run_json(capsys, single_db, "index", "status")["indexes"]
    assert {(e["calibrated_at"], e["recall"]) for e in before} == {(None, None)}
    plot = tmp_path / "curves.svg"
    found = run_json(capsys, single_db, "index", "tune", "doc", "--sample", "10", "--plot", str(plot))
    assert (found["recall"], found["plot"], len(found["calibrations"])) == (0.95, str(plot), 12)
    for entry in found["calibrations"]:
        assert set(entry) == {
            *(
                "relation",
                "column",
                "metric",
                "type",
                "method",
                "rows",
                "sample",
                "effort",
                "exact",
                "expected_recall",
                "ms",
            ),
            *("exact_ms", "points"),
        }
        assert set(entry["points"][0]) == {"effort", "recall", "ms"}
        efforts = [p["effort"] for p in entry["points"]]
        assert efforts == ([1, 2, 4, 8, 12] if entry["method"] == "ivfflat" else [10, 20, 40, 80, 160, 320, 640, 1000])
        assert entry["method"] == "hnsw" or entry["points"][-1]["recall"] == 1, "all lists are all rows"
    picture = ET.fromstring(plot.read_text())
    assert len(picture.findall("{*}polyline")) == 12
    assert main(["index", "tune", "doc", "--sample", "10", "--recall", "0.8", "--home", str(single_db)]) == 0
    shown = capsys.readouterr()
    assert "recall 0.8:" in shown.out
    assert "█" in shown.out
    hits = run_json(capsys, single_db, "search", "doc", str(ROWS[5].tolist()), "--column", "v", "--recall", "1")["hits"]
    assert hits[0]["row"]["id"] == 5
    refused = run_json(capsys, single_db, "search", "doc", "[1]", "--column", "v", "--recall", "2", status=2)
    assert "recall is 2" in refused["error"]["message"]


def test_curves_of_rows_that_changed_are_stale_until_measured_again(
    single_db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stale() -> set[Any]:
        entries = run_json(capsys, single_db, "index", "status")["indexes"]
        return {e["stale"] for e in entries if e["column"] == "v"}

    def insert(start: int, stop: int) -> None:
        with pgherd.connect(home=single_db) as herd:
            herd.table("doc").insert([{"id": i, "v": v} for i, v in enumerate(ROWS[start:stop], start)])

    with pgherd.connect(home=single_db) as herd:
        apply(herd, SCHEMA)
    insert(0, 1000)
    # Statistics come a moment after the rows.
    wait_until(lambda: sum(e["rows"] for e in run_json(capsys, single_db, "index", "status")["indexes"]) == 3000)
    with pgherd.connect(home=single_db) as herd:
        herd.table("doc").tune("v", sample=10)
    assert stale() == {False}
    insert(1000, 1100)
    wait_until(lambda: sum(e["rows"] for e in run_json(capsys, single_db, "index", "status")["indexes"]) == 3300)
    assert stale() == {False}, "a tenth is no drift"
    insert(1100, 1600)
    wait_until(lambda: stale() == {True})
    with pgherd.connect(home=single_db) as herd:
        herd.table("doc").tune("v", sample=10)
    assert stale() == {False}
    with pgherd.connect(home=single_db) as herd:
        herd.sql("DROP INDEX doc_v")
        herd.sql("CREATE INDEX doc_v ON doc USING hnsw (v vector_cosine_ops) WITH (m = 8)")
    assert stale() == {True}, "another index"


def test_of_two_indexes_alike_the_one_that_is_searched_is_measured(single: Herd) -> None:
    """Whichever name sorts first: searches are what PostgreSQL makes of them."""
    text = f"CREATE TABLE doc (id bigint PRIMARY KEY, v vector({DIM}));"
    for name, method, options in (
        ("b", "hnsw", "m = 4, ef_construction = 16"),
        ("c", "ivfflat", "lists = 3"),
        ("a", "ivfflat", "lists = 2"),
    ):
        text += f"CREATE INDEX {name} ON doc USING {method} (v vector_cosine_ops) WITH ({options});"
    apply(single, text)
    single.table("doc").insert([{"id": i, "v": v} for i, v in enumerate(ROWS)])
    single.sql("ANALYZE doc")
    question = "[" + ",".join(map(str, QUESTIONS[0])) + "]"
    (plan,) = single.sql(f"EXPLAIN (FORMAT json) SELECT id FROM doc ORDER BY v <=> '{question}' LIMIT 100")
    used = plan["QUERY PLAN"][0]["Plan"]["Plans"][0]["Index Name"]
    (calibration,) = single.table("doc").tune(sample=10)
    assert f"INDEX {used} ON" in calibration.definition
    assert used == "b"


def test_questions_of_ones_own_are_measured_with(single: Herd) -> None:
    schema = f"CREATE TABLE note (id bigint PRIMARY KEY, v vector({DIM}));"
    apply(single, schema)
    table = single.table("note")
    table.insert([{"id": i, "v": v} for i, v in enumerate(ROWS[:1000])])
    apply(single, schema + "CREATE INDEX ON note USING hnsw (v vector_l2_ops) WITH (m = 4, ef_construction = 16);")
    (found,) = table.tune(questions=[QUESTIONS[0]] * 40)
    assert found.sample == 40
    for point in found.curve.points:  # of one question, which is asked again and again, the nearest is found or not
        assert point.recall[0] in (0.0, 1.0)
    assert len({p.recall[0] for p in table.tune(sample=40)[0].curve.points} - {0.0, 1.0}) > 0
    with pytest.raises(DimensionMismatch):
        table.tune(questions=[[1.0, 2.0]] * 20)
    with pytest.raises(BadInput, match="a sample of 1 questions"):
        table.tune(questions=[ROWS[0]])
