"""Tables shared out by which rows are near each other: learned, filled, searched by few shards, changed; on servers."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pgherd
from conftest import apply, own_database
from pgherd import dialect
from pgherd.cli.main import main
from pgherd.errors import BadInput, BadRow, ChangeRefused
from pgherd.sync import Herd, HerdTable

N, DIM, SHARDS, K = 1500, 24, 4, 10
SCHEMA = f"""
CREATE TABLE doc (id bigint, note text, v vector({DIM}), cell smallint, PRIMARY KEY (id, cell));
SELECT pgherd.distribute_by_nearest('doc', 'v', shard_count => {SHARDS});
CREATE INDEX doc_v ON doc USING hnsw (v vector_cosine_ops);
"""


def vectors(n: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    families = np.random.default_rng(1).standard_normal((60, DIM))
    return (families[rng.integers(0, 60, n)] + 0.25 * rng.standard_normal((n, DIM))).astype(np.float32)


ROWS, QUESTIONS, PRACTICE = vectors(N, 2), vectors(40, 3), vectors(40, 4)


def nearest(question: NDArray[np.float32], k: int = K) -> set[int]:
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    return set(np.argsort(-(unit @ question))[:k].tolist())


@pytest.fixture(scope="module", params=["single", "fleet"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A herd whose table has learned its cells, holds rows, and is tuned."""
    running = request.getfixturevalue(f"{request.param}_home")
    for own in own_database(running, tmp_path_factory.mktemp("cells")):
        with pgherd.connect(home=own) as herd:
            apply(herd, SCHEMA)
            doc = herd.table("doc")
            assert doc.learn(ROWS[:1000]) > SHARDS
            doc.insert([{"id": i, "v": v} for i, v in enumerate(ROWS)])
            doc.tune(questions=list(PRACTICE))
        yield own


@pytest.fixture
def herd(home: Path) -> Iterator[Herd]:
    with pgherd.connect(home=home) as found:
        yield found


@pytest.fixture
def doc(herd: Herd) -> HerdTable:
    return herd.table("doc")


@pytest.fixture
def empty(fleet: Herd) -> HerdTable:
    """The table before anything was learned."""
    apply(fleet, SCHEMA)
    return fleet.table("doc")


def in_cells(herd: Herd, where: str = "true") -> int:
    """How many rows are in the cell of their nearest centroid, as SQL has it."""
    return int(
        herd.sql(
            f"SELECT count(*) AS n FROM doc d WHERE {where} AND cell ="
            " (SELECT c.cell FROM doc_cells c ORDER BY c.centroid <=> d.v LIMIT 1)"
        )[0]["n"]
    )


def test_every_row_is_in_the_cell_of_its_nearest_centroid(herd: Herd) -> None:
    assert in_cells(herd) >= N - 5, "but for centroids as good as equally far"
    bounds = {s.name: s.path[0].bound for s in herd.topology.shards(herd.topology.table("doc"))}
    assert len(bounds) == SHARDS


def test_a_search_asks_few_shards_and_finds_what_it_promises(doc: HerdTable) -> None:
    first = doc.search(QUESTIONS[0], K)
    assert first.shards_asked == first.shards == SHARDS, "nothing is known yet of which are enough"
    found = [doc.search(q, K) for q in QUESTIONS]
    recall = np.mean(
        [len(nearest(q) & {h.row["id"] for h in hits}) / K for q, hits in zip(QUESTIONS, found, strict=True)]
    )
    assert recall > 0.9
    assert np.mean([h.shards_asked for h in found]) < SHARDS - 1
    for hits in found:
        assert [h.distance for h in hits] == sorted(h.distance for h in hits)
        assert len({h.row["id"] for h in hits}) == K


def test_what_nothing_is_known_of_asks_every_shard(doc: HerdTable) -> None:
    doc.search(QUESTIONS[0], K)
    question = QUESTIONS[1]
    page = doc.search(question, K, exact=True)
    assert {h.row["id"] for h in page} == nearest(question)
    for options in (
        {"exact": True},
        {"recall": 1.0},
        {"ef_search": 40},
        {"where": "id < 1000"},
        {"after": page.next},
        {"metric": "l2"},
    ):
        hits = doc.search(question, K, **options)
        assert hits.shards_asked == SHARDS, options
        assert len(hits) == K, options


def test_more_rows_than_the_nearest_shards_hold(doc: HerdTable) -> None:
    doc.search(QUESTIONS[0], K)
    hits = doc.search(QUESTIONS[0], N)
    assert len(hits) == N
    assert hits.shards_asked == SHARDS


def test_the_async_client_does_the_same(home: Path) -> None:
    async def ask() -> list[int]:
        async with pgherd.connect_async(home=home) as herd:
            doc = herd.table("doc")
            return [(await doc.search(q, K)).shards_asked for q in QUESTIONS[:10]]

    first, *others = asyncio.run(ask())
    assert first == SHARDS
    assert np.mean(others) < SHARDS


def test_a_row_written_again_elsewhere_is_there_once(herd: Herd, doc: HerdTable) -> None:
    doc.upsert({"id": 5000, "note": "kept", "v": ROWS[0]})
    was = doc.get(5000)
    far = ROWS[np.argmin(ROWS @ ROWS[0])]
    assert doc.upsert([{"id": 5000, "v": ROWS[1]}, {"id": 5000, "v": far}]) == 1, "of rows with one key the last wins"
    now = doc.get(5000)
    assert was is not None
    assert now is not None
    assert (now["note"], now["cell"] != was["cell"]) == ("kept", True)
    assert herd.sql("SELECT count(*) AS n FROM doc WHERE id = 5000")[0]["n"] == 1
    assert doc.update({"id": 5000}, {"v": ROWS[0].tolist()}) == 1
    again = doc.get((5000, was["cell"]))
    assert again is not None
    assert again["note"] == "kept"
    assert in_cells(herd, "id = 5000") == 1
    assert doc.upsert({"id": 5000, "cell": was["cell"], "note": "changed"}) == 1
    assert doc.delete({"id": 5000}) == 1
    assert doc.get(5000) is None


def test_rows_without_a_vector(doc: HerdTable) -> None:
    with pytest.raises(BadRow, match="rows of doc have a place by their 'v', which is missing"):
        doc.upsert({"id": 6000, "note": "no vector"})
    doc.upsert({"id": 6000, "note": "none yet", "v": None})
    doc.upsert({"id": 6000, "v": ROWS[7]})
    found = doc.get(6000)
    assert found is not None
    assert found["note"] == "none yet"
    doc.delete({"id": 6000})


def test_sql_can_find_the_cell(herd: Herd, doc: HerdTable) -> None:
    vector = "[" + ",".join(map(str, ROWS[3].tolist())) + "]"
    herd.sql(
        "INSERT INTO doc (id, v, cell)"
        " SELECT 7000, %(v)s::vector, (SELECT cell FROM doc_cells ORDER BY centroid <=> %(v)s::vector LIMIT 1)",
        {"v": vector},
    )
    assert doc.search(ROWS[3], 2)[0].distance == pytest.approx(0, abs=1e-6)
    assert doc.get(7000) is not None
    doc.delete({"id": 7000})


def test_before_anything_is_learned(empty: HerdTable) -> None:
    with pytest.raises(BadInput, match="no cells of table doc have been learned") as caught:
        empty.insert({"id": 1, "v": ROWS[0]})
    assert "pgherd load doc FILE" in caught.value.hint
    assert len(empty.search(ROWS[0])) == 0
    with pytest.raises(BadInput, match="20 vectors are too few"):
        empty.learn(ROWS[:20])
    empty.learn(ROWS)
    with pytest.raises(BadInput, match="the cells of doc have been learned"):
        empty.learn(ROWS)
    empty.insert({"id": 1, "v": ROWS[0]})
    assert [h.row["id"] for h in empty.search(ROWS[0])] == [1], "the client that looked before knows by now"


def test_rows_that_were_there_before(fleet: Herd, empty: HerdTable) -> None:
    fleet.sql("INSERT INTO doc (id, cell) VALUES (1, 3)")
    with pytest.raises(BadInput, match="table doc has rows, whose cells would not be the learned ones"):
        empty.learn(ROWS)


def test_another_table_learns_nothing(fleet: Herd) -> None:
    apply(fleet, "CREATE TABLE plain (id bigint PRIMARY KEY, v vector(2));")
    with pytest.raises(BadInput, match="table plain is not shared out by cells"):
        fleet.table("plain").learn(ROWS)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_load_learns_from_its_file(
    fleet_db: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pgherd.connect(home=fleet_db) as herd:
        apply(herd, SCHEMA)
    file = tmp_path / f"rows.{suffix}"
    rows: list[dict[str, Any]] = [{"id": i, "v": json.dumps(v.tolist())} for i, v in enumerate(ROWS[:600])]
    with file.open("w") as out:
        if suffix == "csv":
            writer = csv.DictWriter(out, ["id", "v"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            out.writelines(json.dumps({**r, "v": json.loads(r["v"])}) + "\n" for r in rows)
    assert main(["load", "doc", str(file), "--home", str(fleet_db), "--json", "--no-tune"]) == 0
    loaded = json.loads(capsys.readouterr().out)
    assert (loaded["rows"], loaded["rejected"]) == (600, 0)
    assert loaded["cells_learned"] > SHARDS
    with pgherd.connect(home=fleet_db) as herd:
        assert in_cells(herd) >= 597
    if suffix == "jsonl":
        return
    tune = ["index", "tune", "doc", "--sample", "20", "--home", str(fleet_db)]
    assert main([*tune, "--json"]) == 0
    (asked,) = json.loads(capsys.readouterr().out)["asked_shards"]
    assert (asked["table"], asked["shards"]) == ("doc", SHARDS)
    assert 1 <= asked["asked"] <= SHARDS
    assert main(tune) == 0
    assert "shards on average" in capsys.readouterr().out


def test_a_file_too_small_to_learn_from_loads_nothing(fleet_db: Path, tmp_path: Path) -> None:
    with pgherd.connect(home=fleet_db) as herd:
        apply(herd, SCHEMA)
        file = tmp_path / "few.jsonl"
        file.write_text("".join(json.dumps({"id": i, "v": v.tolist()}) + "\n" for i, v in enumerate(ROWS[:30])))
        assert main(["load", "doc", str(file), "--home", str(fleet_db)]) == 2
        assert herd.sql("SELECT count(*) AS n FROM doc")[0]["n"] == 0
        assert herd.sql("SELECT count(*) AS n FROM doc_cells")[0]["n"] == 0


def test_another_number_of_shards_is_refused(fleet: Herd, empty: HerdTable) -> None:
    assert fleet.plan(dialect.parse(SCHEMA)).phases == ()
    with pytest.raises(ChangeRefused, match="its number of shards changed"):
        apply(fleet, SCHEMA.replace(f"shard_count => {SHARDS}", "shard_count => 5"))


def test_of_rows_with_one_key_the_last_wins_wherever_they_go(empty: HerdTable) -> None:
    empty.learn(ROWS)
    far = ROWS[np.argmin(ROWS @ ROWS[0])]
    for one, two in ((ROWS[0], far), (far, ROWS[0])):
        assert empty.upsert([{"id": 1, "v": one}, {"id": 1, "v": two}], atomic=False) == 1
        (hit,) = empty.search(two)
        assert hit.distance == pytest.approx(0, abs=1e-6)


def test_rows_with_one_key_and_other_columns(fleet: Herd, empty: HerdTable) -> None:
    empty.learn(ROWS)
    far = ROWS[np.argmin(ROWS @ ROWS[0])]
    assert empty.upsert([{"id": 1, "v": ROWS[0], "note": "first"}, {"id": 1, "v": far}]) == 2
    found = empty.get(1)
    assert found is not None
    assert found["note"] == "first"
    assert fleet.sql("SELECT count(*) AS n FROM doc")[0]["n"] == 1
    assert in_cells(fleet) == 1


def test_shards_that_move_take_their_cells_along(fleet: Herd, fleet_db: Path, empty: HerdTable) -> None:
    empty.learn(ROWS)
    empty.insert([{"id": i, "v": v} for i, v in enumerate(ROWS)])
    empty.tune(questions=list(PRACTICE))
    empty.search(QUESTIONS[0], K)
    left = fleet.topology.shards(fleet.topology.table("doc"))[0].home
    assert main(["node", "drain", left, "--home", str(fleet_db)]) == 0
    with pgherd.connect(home=fleet_db) as newcomer:
        assert left not in {s.home for s in newcomer.topology.shards(newcomer.topology.table("doc"))}
        for doc in (empty, newcomer.table("doc")):
            doc.search(QUESTIONS[0], K)
            found = [doc.search(q, K) for q in QUESTIONS]
            shares = [len(nearest(q) & {h.row["id"] for h in f}) / K for q, f in zip(QUESTIONS, found, strict=True)]
            assert np.mean(shares) > 0.9
            assert np.mean([f.shards_asked for f in found]) < SHARDS
            doc.upsert({"id": 1, "v": ROWS[2]})
    assert fleet.sql("SELECT count(*) AS n FROM doc")[0]["n"] == N
