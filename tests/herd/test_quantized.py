"""Indexes that hold less than the column: searches use them, and rank what they give by the column itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pgherd
from conftest import apply
from pgherd.cli.main import main
from pgherd.search.statement import statement_of
from pgherd.sync import Herd, HerdTable

N, DIM, K = 800, 256, 10
TABLE = f"""
CREATE TABLE doc (id bigint PRIMARY KEY, v vector({DIM}), "W" vector(3000));
SELECT create_distributed_table('doc', 'id', shard_count => 4);
"""
BITS = f"CREATE INDEX doc_bits ON doc USING hnsw ((binary_quantize(v)::bit({DIM})) bit_hamming_ops);"
HALF = f"CREATE INDEX doc_half ON doc USING hnsw ((v::halfvec({DIM})) halfvec_l2_ops);"


def vectors(n: int, seed: int) -> NDArray[np.float32]:
    """Families of near relatives."""
    rng = np.random.default_rng(seed)
    families = np.random.default_rng(1).standard_normal((40, DIM))
    return (families[rng.integers(0, 40, n)] + 0.7 * rng.standard_normal((n, DIM))).astype(np.float32)


ROWS, QUESTIONS = vectors(N, 2), vectors(25, 3)


def recall(table: HerdTable, **options: Any) -> float:
    found = []
    for q in QUESTIONS:
        truth = {h.row["id"] for h in table.search(q, K, exact=True, columns=["id"], column="v", **exactly(options))}
        found.append(len(truth & {h.row["id"] for h in table.search(q, K, columns=["id"], column="v", **options)}) / K)
    return float(np.mean(found))


def exactly(options: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in options.items() if n not in ("recall", "ef_search")}


def plan_of(herd: Herd, table: HerdTable, column: str, **options: Any) -> str:
    """How the first shard is searched."""
    dim = {"v": DIM, "W": 3000}[column]
    form = table._inner.request(np.ones(dim, np.float32), K, column=column, **options).form
    shard = form.homes[0].shards[0]
    text = statement_of(form.shape, (shard.relation,), form.exact, form.effort.via).text.decode()
    question = "'" + str([1] * dim) + f"'::vector({dim})"
    query = "EXPLAIN (COSTS OFF) " + text.replace("%(pgherd_q)s", question).replace("%%", "%")
    return "\n".join(r["QUERY PLAN"] for r in herd.sql(query, region=shard.home))


@pytest.fixture
def doc(herd: Herd) -> HerdTable:
    apply(herd, TABLE)
    herd.table("doc").insert([{"id": i, "v": v} for i, v in enumerate(ROWS)])
    return herd.table("doc")


def wide(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same direction among more dimensions."""
    return np.concatenate([vector, np.zeros(3000 - DIM, np.float32)])


def test_bits_find_and_the_column_ranks(herd: Herd, doc: HerdTable) -> None:
    apply(herd, TABLE + BITS)
    plan = plan_of(herd, doc, "v")
    assert "doc_0_bits" in plan or "Seq Scan" in plan
    assert "binary_quantize" in plan
    assert recall(doc) >= 0.95, "without having been measured"
    truth = doc.search(QUESTIONS[0], K, column="v", exact=True)
    hits = doc.search(QUESTIONS[0], K, column="v", ef_search=200)
    assert [h.distance for h in hits] == pytest.approx([h.distance for h in truth], abs=1e-6)
    assert doc.search(QUESTIONS[0], K, column="v", recall=1) == truth
    found = doc.tune("v", sample=20)
    assert {(c.stored, c.metric) for c in found} == {("bit", "cosine")}
    for asked in (0.5, 0.9):
        assert recall(doc, recall=asked) >= asked
    far = doc.search(QUESTIONS[0], 400, column="v", columns=["id"])
    assert len({h.row["id"] for h in far}) == 400
    few = doc.search(QUESTIONS[0], K, column="v", where="id % 50 = 3", columns=["id"])
    assert len(few) == K
    assert doc.search(QUESTIONS[0], K, column="v", metric="l2", recall=0.5) == doc.search(
        QUESTIONS[0], K, column="v", metric="l2", exact=True
    ), "signs tell of angles only"


def test_half_precision_finds_and_the_column_ranks(herd: Herd, doc: HerdTable) -> None:
    apply(herd, TABLE + HALF)
    assert "halfvec" in plan_of(herd, doc, "v")
    assert recall(doc) >= 0.95
    assert doc.search(ROWS[5], 1, column="v")[0].distance == pytest.approx(0, abs=1e-6), "l2, as the index says"
    doc.tune("v", sample=10)
    assert recall(doc, recall=0.9) >= 0.9


def test_a_hybrid_search_through_bits(herd: Herd) -> None:
    apply(
        herd,
        "CREATE TABLE note (id bigint PRIMARY KEY, body text, v vector(16) NOT NULL);"
        "CREATE INDEX ON note USING hnsw ((binary_quantize(v)::bit(16)) bit_hamming_ops);",
    )
    herd.table("note").insert([{"id": i, "body": f"note {i}", "v": ROWS[i, :16]} for i in range(60)])
    hits = herd.table("note").search(ROWS[3, :16], 5, hybrid="note 7", text_column="body")
    assert {3, 7} <= {h.row["id"] for h in hits}
    assert hits == herd.table("note").search(ROWS[3, :16], 5, hybrid="note 7", text_column="body", exact=True)


def test_more_dimensions_than_an_index_of_the_column_takes(
    herd: Herd, doc: HerdTable, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    home = request.getfixturevalue("fleet_db" if "fleet" in request.node.name else "single_db")
    doc.upsert([{"id": i, "W": wide(ROWS[i])} for i in range(100)])
    capsys.readouterr()
    assert main(["index", "create", "doc", "W", "--home", str(home), "--m", "8", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["index"] == "doc_W_halfvec_idx"
    assert made["applied"] is True
    with pgherd.connect(home=home) as fresh:
        table = fresh.table("doc")
        assert "halfvec" in plan_of(fresh, table, "W")
        assert table.search(wide(ROWS[17]), 1, column="W", columns=["id"])[0].row["id"] == 17
    assert main(["index", "create", "doc", "W", "--home", str(home), "--m", "8", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["applied"], again["steps"], again["index"]) == (False, [], "doc_W_halfvec_idx")
    assert main(["index", "create", "doc", "W", "--type", "vector", "--home", str(home), "--json"]) == 2
    assert "2000 dimensions" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main(["index", "create", "doc", "v", "--lists", "3", "--home", str(home), "--json"]) == 2
    assert main(["index", "create", "doc", "v", "--method", "btree", "--home", str(home), "--json"]) == 2
    assert main(["index", "create", "doc", "v", "--type", "bit", "--metric", "l2", "--home", str(home), "--json"]) == 2
    assert main(["index", "create", "doc", "id", "--home", str(home), "--json"]) == 2
    capsys.readouterr()
    assert main(["index", "create", "doc", "v", "--plan", "--home", str(home)]) == 0
    assert "build_index" in capsys.readouterr().out


@pytest.mark.parametrize(("index", "said"), [(BITS, "binary_quantize"), (HALF, "::halfvec")])
def test_search_in_sql_goes_through_small_values_and_ranks_by_the_column(
    herd: Herd, doc: HerdTable, index: str, said: str
) -> None:
    """As long as the column has no index of its own; by each node, and with a filter."""
    apply(herd, TABLE + index)
    region = herd.topology.groups[-1].primary.label.region
    for node in (None, region):
        found = 0
        for q in QUESTIONS:
            metric = "cosine" if index is BITS else "l2"
            truth = {h.row["id"] for h in doc.search(q, K, column="v", exact=True, metric=metric, columns=["id"])}
            query = "SELECT id, distance FROM pgherd.search_doc(%s::vector, %s, %s)"
            near = herd.sql(query, [str(q.tolist()), K, "{}"], region=node)
            distances = [h["distance"] for h in near]
            assert distances == sorted(distances)
            found += len(truth & {h["id"] for h in near})
        assert found / (len(QUESTIONS) * K) >= 0.9
        (only,) = herd.sql(query, [str(q.tolist()), K, '{"id": 3}'], region=node)
        assert only["id"] == 3
    text = "SELECT pg_get_functiondef('pgherd.search_doc'::regproc) AS t"
    assert said in herd.sql(text)[0]["t"]
    apply(herd, TABLE + index + "CREATE INDEX doc_own ON doc USING hnsw (v vector_l2_ops);")
    if index is HALF:  # now the column has one of the same distance
        assert said not in herd.sql(text)[0]["t"]
