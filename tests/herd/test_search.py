"""Searching, on every engine, against distances computed over all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from test_rows import REGIONS

import pgherd
from conftest import apply, own_database
from pgherd.errors import BadInput, DimensionMismatch, HerdError, ServerRefused
from pgherd.search.hits import Hits
from pgherd.sync import Herd, HerdTable

N, DIM, BITS = 1200, 12, 24
DOC = f"""{REGIONS}
CREATE TABLE doc (id bigint, region text, n int NOT NULL, body text, v vector({DIM}) NOT NULL, h halfvec({DIM}),
  s sparsevec({DIM}), b bit({BITS}), PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE doc_east PARTITION OF doc FOR VALUES IN ('east') TABLESPACE east;
CREATE TABLE doc_west PARTITION OF doc FOR VALUES IN ('west') TABLESPACE west;
CREATE INDEX ON doc USING hnsw (v vector_cosine_ops);
CREATE INDEX ON doc USING hnsw (h halfvec_l2_ops);
CREATE INDEX ON doc USING hnsw (s sparsevec_ip_ops);
CREATE INDEX ON doc USING hnsw (b bit_hamming_ops);
"""
Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
DENSE: dict[str, Distance] = {
    "cosine": lambda m, q: 1 - m @ q / np.linalg.norm(m, axis=1) / np.linalg.norm(q),
    "l2": lambda m, q: np.linalg.norm(m - q, axis=1),
    "ip": lambda m, q: -(m @ q),
    "l1": lambda m, q: np.abs(m - q).sum(axis=1),
}
BITWISE: dict[str, Distance] = {
    "hamming": lambda m, q: (m != q).sum(axis=1).astype(float),
    "jaccard": lambda m, q: 1 - (m & q).sum(axis=1) / (m | q).sum(axis=1),
}


class Rows:
    """What was stored: ``v`` (N, DIM) of small exact numbers, ``bits`` (N, BITS) booleans."""

    def __init__(self) -> None:
        made = np.random.default_rng(7)
        self.v = made.integers(-40, 41, (N, DIM)).astype(np.float64) / 8
        self.v[(self.v == 0).all(axis=1)] = 1
        self.bits = made.random((N, BITS)) < 0.4
        self.bits[:, 0] = True
        self.region = np.array(["east", "west"])[made.integers(0, 2, N)]

    def dicts(self) -> list[dict[str, Any]]:
        return [
            {
                "id": i,
                "region": str(self.region[i]),
                "n": i,
                "body": f"body {i % 10}",
                "v": self.v[i],
                "h": self.v[i],
                "s": sparse(self.v[i]),
                "b": bits(self.bits[i]),
            }
            for i in range(N)
        ]


def sparse(vector: NDArray[Any]) -> str:
    return "{" + ",".join(f"{i + 1}:{x}" for i, x in enumerate(vector) if x) + f"}}/{len(vector)}"


def bits(row: Sequence[bool]) -> str:
    return "".join("1" if x else "0" for x in row)


ROWS = Rows()
Q = ROWS.v[17] + 0.25


@pytest.fixture(scope="module", params=["single", "fleet"])
def herd_of_docs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Herd]:
    """A herd with the rows in it, for tests that only read."""
    home = request.getfixturevalue(f"{request.param}_home")
    for own in own_database(home, tmp_path_factory.mktemp("docs")):
        with pgherd.connect(home=own) as herd:
            apply(herd, DOC)
            herd.table("doc").insert(ROWS.dicts())
            yield herd


@pytest.fixture
def doc(herd_of_docs: Herd) -> HerdTable:
    return herd_of_docs.table("doc")


def ids(hits: Hits) -> list[Any]:
    return [h.row["id"] for h in hits]


def assert_nearest(hits: Hits, distances: NDArray[Any], k: int, of: NDArray[Any] | None = None) -> None:
    """The hits are k nearest of the rows ``of`` (all), in order, whatever the order among equals."""
    chosen = np.arange(N) if of is None else np.flatnonzero(of)
    wanted = np.sort(distances[chosen])[:k]
    np.testing.assert_allclose([h.distance for h in hits], wanted, rtol=1e-5, atol=1e-5)
    found = ids(hits)
    assert len(set(found)) == len(found)
    assert set(found) <= set(chosen.tolist())
    np.testing.assert_allclose(distances[found], wanted, rtol=1e-5, atol=1e-5)


def test_every_vector_type_and_distance_against_brute_force(doc: HerdTable) -> None:
    for column, question in (("v", Q), ("h", Q), ("s", sparse(Q))):
        for metric, distance in DENSE.items():
            hits = doc.search(question, k=25, column=column, metric=metric, exact=True)
            assert_nearest(hits, distance(ROWS.v, Q), 25)
    asked = ROWS.bits[3].copy()
    asked[5:9] ^= True
    for metric, distance in BITWISE.items():
        for question in (bits(asked), asked, asked.tolist()):
            hits = doc.search(question, k=25, column="b", metric=metric, exact=True)
            assert_nearest(hits, distance(ROWS.bits, asked), 25)


def test_indexes_find_what_brute_force_finds(doc: HerdTable) -> None:
    for column, question, distance in (
        ("v", Q, DENSE["cosine"](ROWS.v, Q)),
        ("h", Q, DENSE["l2"](ROWS.v, Q)),
        ("s", sparse(Q), DENSE["ip"](ROWS.v, Q)),
    ):
        hits = doc.search(question, k=10, column=column, ef_search=400)
        nearest = set(np.argsort(distance)[:10].tolist())
        assert len(nearest & set(ids(hits))) >= 8, column
        assert [h.distance for h in hits] == sorted(h.distance for h in hits)
        np.testing.assert_allclose([h.distance for h in hits], distance[ids(hits)], rtol=1e-4, atol=1e-4)


def test_as_many_rows_as_there_are(doc: HerdTable) -> None:
    assert sorted(ids(doc.search(Q, k=N + 500, column="v"))) == list(range(N))
    hits = doc.search(Q, k=N, column="h")
    assert_nearest(hits, DENSE["l2"](ROWS.v, Q), N)
    assert hits.complete
    assert {g.name for g in hits.groups} == {h.group for h in hits}


@pytest.mark.parametrize("below", [600, 120, 12, 1, 0])
def test_filters_of_any_selectivity_give_all_there_are(doc: HerdTable, below: int) -> None:
    matching = np.arange(N) < below
    distances = DENSE["cosine"](ROWS.v, Q)
    for where, params in ((f"n < {below}", None), ("n < %(m)s", {"m": below})):
        hits = doc.search(Q, k=20, column="v", where=where, params=params)
        assert len(hits) == min(20, below)
        assert all(h.row["n"] < below for h in hits)
        assert_nearest(doc.search(Q, 20, column="v", where=where, params=params, exact=True), distances, 20, matching)


def test_conditions_as_dict(doc: HerdTable) -> None:
    distances = DENSE["cosine"](ROWS.v, Q)
    body = np.array([i % 10 for i in range(N)])
    for where, of in (
        ({"body": "body 3"}, body == 3),
        ({"body": ["body 3", "body 4", None]}, (body == 3) | (body == 4)),
        ({"body": None}, body == -1),
        ({"body": "body 3", "n": [13, 14]}, np.arange(N) == 13),
        ({"n": []}, body == -1),
        ({"region": "west", "body": ("body 9",)}, (body == 9) & (ROWS.region == "west")),
        ({}, body >= 0),
    ):
        assert_nearest(doc.search(Q, k=30, column="v", where=where, exact=True), distances, 30, of)


def test_conditions_as_sql(doc: HerdTable) -> None:
    distances = DENSE["cosine"](ROWS.v, Q)
    n = np.arange(N)
    for where, params, of in (
        ("body LIKE '%3'", None, n % 10 == 3),
        ("body LIKE '%3' AND n > %(n)s", {"n": 500}, (n % 10 == 3) & (n > 500)),
        ("n %% 7 = 0", {}, n % 7 == 0),
        ("n % 7 = 0 -- every seventh {}", None, n % 7 == 0),
        ("body <> '{}' /* {k} */", None, n >= 0),
        ("doc.n = ANY (%(ns)s)", {"ns": [1, 2, 5000]}, (n == 1) | (n == 2)),
        ("n IN (SELECT max(n) FROM doc)", None, n == N - 1),
        ("n = 1 OR n = 2", None, (n == 1) | (n == 2)),
        ("true", None, n >= 0),
    ):
        assert_nearest(doc.search(Q, k=30, column="v", where=where, params=params, exact=True), distances, 30, of)


@pytest.mark.parametrize(
    "where", ["1=1) UNION SELECT 1, 2 WHERE (1=1", "n = 1; DELETE FROM doc", "true) OR (n < 3", "n = 1 LIMIT 1"]
)
def test_a_condition_can_not_become_more_than_a_condition(doc: HerdTable, where: str) -> None:
    with pytest.raises(BadInput):
        doc.search(Q, column="v", where=where)
    assert len(doc.search(Q, k=N, column="h")) == N


def test_a_condition_on_the_partition_key_asks_one_group(doc: HerdTable, herd_of_docs: Herd) -> None:
    homes = {s.relation.name: s.home for s in herd_of_docs.topology.shards(doc.definition)}
    for where, params in (
        ({"region": "west"}, None),
        ("region = 'west' AND n >= 0", None),
        ("region = %(r)s", {"r": "west"}),
        ("region IN ('west', 'mars')", None),
    ):
        hits = doc.search(Q, k=5, column="v", where=where, params=params)
        assert [g.name for g in hits.groups] == [homes["doc_west"]]
        assert {(h.row["region"], h.shard) for h in hits} == {("west", "doc_west")}
    hits = doc.search(Q, column="v", where={"region": "mars"})
    assert (list(hits), hits.groups, hits.next, hits.complete) == ([], (), None, True)


def test_a_key_of_a_hashed_table_asks_one_group(herd: Herd) -> None:
    apply(herd, "CREATE TABLE h (id bigint PRIMARY KEY, v vector(2)); SELECT create_distributed_table('h', 'id')")
    table = herd.table("h")
    table.upsert([{"id": i, "v": [i, 1]} for i in range(50)])
    assert len(table.search([1, 1], k=50).groups) == len(herd.topology.groups)
    for i in (3, 44):
        hits = table.search([1, 1], where={"id": i})
        assert ids(hits) == [i]
        assert len(hits.groups) == 1


def test_min_similarity_cuts_the_tail(doc: HerdTable) -> None:
    cosine, l2 = DENSE["cosine"](ROWS.v, Q), DENSE["l2"](ROWS.v, Q)
    hits = doc.search(Q, k=N, column="v", min_similarity=0.5, exact=True)
    assert_nearest(hits, cosine, int((cosine <= 0.5).sum()))
    assert hits.next is None
    hits = doc.search(Q, k=N, column="h", metric="l2", min_similarity=0.1, exact=True)
    assert_nearest(hits, l2, int((l2 <= 9).sum()))
    asked = ROWS.bits[3]
    hits = doc.search(bits(asked), k=N, column="b", min_similarity=0.75)
    assert_nearest(hits, BITWISE["hamming"](ROWS.bits, asked), int(((ROWS.bits != asked).sum(axis=1) <= 6).sum()))
    assert len(doc.search(Q, column="v", min_similarity=1.5)) == 0


def pages(table: HerdTable, question: Any, k: int, **options: Any) -> list[Hits]:
    found = [table.search(question, k, **options)]
    while found[-1].next is not None and len(found) < 2 * N:
        found.append(table.search(question, k, after=found[-1].next, **options))
    return found


def test_pages_visit_every_row_once_in_order(doc: HerdTable) -> None:
    distances = DENSE["cosine"](ROWS.v, Q)
    whole = [h for page in pages(doc, Q, 111, column="v", exact=True) for h in page]
    assert sorted(h.row["id"] for h in whole) == list(range(N))
    np.testing.assert_allclose([h.distance for h in whole], np.sort(distances), rtol=1e-5, atol=1e-6)
    some = [h for page in pages(doc, Q, 7, column="v", exact=True, where="n < 40 OR n > 1190") for h in page]
    assert sorted(h.row["id"] for h in some) == [*range(40), *range(1191, N)]


def test_pages_through_equal_distances(herd: Herd) -> None:
    apply(
        herd,
        "CREATE TABLE same (id bigint PRIMARY KEY, v vector(2)); SELECT create_distributed_table('same', 'id');"
        "CREATE INDEX ON same USING hnsw (v vector_l2_ops)",
    )
    table = herd.table("same")
    table.upsert([{"id": i, "v": [i // 50, 0]} for i in range(200)])
    for options in ({}, {"exact": True}):
        found = pages(table, [0, 0], 17, **options)
        visited = [i for page in found for i in ids(page)]
        assert sorted(visited) == list(range(200))
        assert [i // 50 for i in visited] == sorted(i // 50 for i in visited)


def test_pages_of_a_key_of_two_columns(doc: HerdTable) -> None:
    asked = bits(ROWS.bits[3])  # Hamming distances: many equal ones
    visited = [i for page in pages(doc, asked, 100, column="b", exact=True) for i in ids(page)]
    assert sorted(visited) == list(range(N))


def test_no_pages_without_a_key(herd: Herd) -> None:
    apply(herd, "CREATE TABLE heap (v vector(2))")
    herd.table("heap").insert([{"v": [1, 2]}] * 3)
    hits = herd.table("heap").search([1, 2], k=2)
    assert (len(hits), hits.next) == (2, None)
    with pytest.raises(BadInput, match="primary key"):
        herd.table("heap").search([1, 2], after=pgherd.Page(0.0, ((1,),)))


def test_columns_and_vectors_come_back_as_asked(doc: HerdTable) -> None:
    assert list(doc.search(Q, k=1, column="v")[0].row) == ["id", "region", "n", "body"]
    hit = doc.search(Q, k=1, column="h", columns=["v", "n"])[0]
    assert list(hit.row) == ["v", "n"]
    assert hit.row["v"].to_list() == ROWS.v[hit.row["n"]].tolist()
    assert doc.search(Q, k=1, column="h", columns=[])[0].row == {}
    with pytest.raises(BadInput, match="no column 'nn'"):
        doc.search(Q, column="h", columns=["nn"])


def test_rows_without_a_vector_are_no_hits(herd: Herd) -> None:
    apply(herd, "CREATE TABLE t (id int PRIMARY KEY, v vector(2)); SELECT create_distributed_table('t', 'id')")
    table = herd.table("t")
    table.upsert([{"id": i, "v": [1, i] if i % 2 else None} for i in range(20)])
    assert sorted(ids(table.search([1, 1], k=30))) == list(range(1, 20, 2))
    apply(
        herd,
        "CREATE TABLE t (id int PRIMARY KEY, v vector(2)); SELECT create_distributed_table('t', 'id');"
        "CREATE INDEX ON t USING hnsw (v vector_cosine_ops)",
    )
    table.upsert({"id": 100, "v": [0, 0]})
    for options in ({}, {"exact": True}):
        hits = table.search([1, 1], k=30, **options)
        assert sorted(ids(hits)) == list(range(1, 20, 2)), "zeros point nowhere"
        assert hits.next is None
    assert 100 in ids(table.search([0, 0], k=1, metric="l2"))


def test_reference_and_local_tables(herd: Herd) -> None:
    apply(
        herd,
        "CREATE TABLE everywhere (id int PRIMARY KEY, v vector(2)); SELECT create_reference_table('everywhere');"
        "CREATE TABLE somewhere (id int PRIMARY KEY, v vector(2));",
    )
    for name in ("everywhere", "somewhere"):
        table = herd.table(name)
        table.upsert([{"id": i, "v": [i, 1]} for i in range(9)])
        hits = table.search([8, 1], k=20, metric="l2", where="id > 3")
        assert ids(hits) == [8, 7, 6, 5, 4]
        assert len(hits.groups) == 1


class Letters:
    """An embedder of one's own: how often each of three letters occurs."""

    name = "letters"
    dim = 3

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[t.count(c) for c in "abc"] for t in texts], np.float32)


def test_a_text_is_embedded_by_the_model_given(single_db: Any, fleet_db: Any) -> None:
    for home in (single_db, fleet_db):
        with pgherd.connect(home=home, embedder=Letters()) as herd:
            apply(
                herd,
                "CREATE TABLE t (id int PRIMARY KEY, body text, v vector(3), w vector(5));"
                "SELECT create_distributed_table('t', 'id')",
            )
            table = herd.table("t")
            texts = ["aab", "bbc", "cca", "abc"]
            assert table.upsert([{"id": i, "body": t} for i, t in enumerate(texts)], embed={"body": "v"}) == 4
            assert [table.search(t, k=1, column="v")[0].row["body"] for t in texts] == texts
            with pytest.raises(BadInput, match="letters makes 3 dimensions, column 'w' has 5"):
                table.search("aab", column="w")
            with pytest.raises(BadInput, match="question is empty"):
                table.search("  ", column="v")


def test_a_text_is_embedded_by_the_built_in_model(herd: Herd) -> None:
    apply(
        herd,
        "CREATE TABLE t (id int PRIMARY KEY, body text, v vector(256));SELECT create_distributed_table('t', 'id');",
    )
    table = herd.table("t")
    texts = ["chest pain on exertion", "a broken ankle", "how to bake bread"]
    table.upsert([{"id": i, "body": t} for i, t in enumerate(texts)], embed={"body": "v"})
    assert ids(table.search("angina when climbing stairs, pain in the chest", k=1)) == [0]
    assert ids(table.search("bread recipe", k=1)) == [2]


def test_what_can_not_be_asked_is_said(doc: HerdTable) -> None:
    short = Q[:3]
    for message, error, call in (
        ("k is 0", BadInput, lambda: doc.search(Q, 0, column="v")),
        ("k is 10001", BadInput, lambda: doc.search(Q, 10_001, column="v")),
        ("k is 1.5", BadInput, lambda: doc.search(Q, 1.5, column="v")),  # type: ignore[arg-type]
        ("4 vector columns", BadInput, lambda: doc.search(Q)),
        ("no vector column 'n'", BadInput, lambda: doc.search(Q, column="n")),
        ("'far' is not a distance", BadInput, lambda: doc.search(Q, column="v", metric="far")),
        ("vector has no hamming", BadInput, lambda: doc.search(Q, column="v", metric="hamming")),
        ("bit has no l2", BadInput, lambda: doc.search("01", column="b", metric="l2")),
        ("question has 3 dimensions, column 'v' 12", DimensionMismatch, lambda: doc.search(short, column="v")),
        ("one vector of finite", BadInput, lambda: doc.search(Q * np.nan, column="v")),
        ("not one vector|not a vector", BadInput, lambda: doc.search([Q, Q], column="v")),
        ("not a vector", BadInput, lambda: doc.search({"a": 1}, column="v")),
        ("all zeros", BadInput, lambda: doc.search(Q * 0, column="v")),
        ("ef_search is 0", BadInput, lambda: doc.search(Q, column="v", ef_search=0)),
        ("no column 'x'", BadInput, lambda: doc.search(Q, column="v", where={"x": 1})),
        ("different bit lengths|bit string length", ServerRefused, lambda: doc.search("0101", column="b")),
        ("x. does not exist", ServerRefused, lambda: doc.search(Q, column="v", where="x = 1")),
        ("invalid input syntax", ServerRefused, lambda: doc.search("{nonsense", column="s")),
    ):
        with pytest.raises(error, match=message) as caught:
            call()
        assert isinstance(caught.value, HerdError)
        if error is ServerRefused:
            assert isinstance(caught.value.__cause__, psycopg.Error)
    assert len(doc.search(Q, column="v")) == 10, "a refused search leaves nothing behind"


SQL = "SELECT distance, shard, home, id, region FROM {name}(%(q)s, %(k)s, %(f)s)"


def test_the_search_function_gives_what_the_client_gives_on_every_node(doc: HerdTable, herd_of_docs: Herd) -> None:
    question = "[" + ",".join(map(str, Q)) + "]"
    for column, name, asked in (
        ("v", "pgherd.search_doc", question),
        ("h", "pgherd.search_doc_h", question),
        ("s", "pgherd.search_doc_s", sparse(Q)),
        ("b", "pgherd.search_doc_b", bits(ROWS.bits[3])),
    ):
        for k, where, given in (
            (10, None, "{}"),
            (4, {"region": "west"}, '{"region": "west"}'),
            (4, {"body": ["body 3", "body 4"]}, '{"body": ["body 3", "body 4"]}'),
            (4, {"body": None}, '{"body": null}'),
            (4, {"body": "x' OR true --"}, """{"body": "x' OR true --"}"""),
        ):
            hits = doc.search(Q if column in "vh" else asked, k, column=column, where=where)
            for group in herd_of_docs.topology.groups:
                rows = herd_of_docs.sql(SQL.format(name=name), {"q": asked, "k": k, "f": given}, region=group.name)
                np.testing.assert_allclose([r["distance"] for r in rows], [h.distance for h in hits], rtol=1e-6)
                if column != "b":
                    assert [r["id"] for r in rows] == ids(hits)
                    assert [(r["shard"], r["home"]) for r in rows] == [(h.shard, h.group) for h in hits]


def test_the_search_function_survives_attacks_and_errors(doc: HerdTable, herd_of_docs: Herd) -> None:
    question = "[" + ",".join(map(str, Q)) + "]"
    query = SQL.format(name="pgherd.search_doc")
    for group in herd_of_docs.topology.groups:
        before = herd_of_docs.sql(query, {"q": question, "k": 5, "f": "{}"}, region=group.name)
        for given in (
            '{"n = 1; DROP TABLE doc": 1}',
            '{"n\\" = 1 OR true --": 1}',
            '{"n": "1; DROP TABLE doc"}',
            '{"n": ["1", "x\'y"]}',
            '{"nope": null}',
        ):
            with pytest.raises(ServerRefused):
                herd_of_docs.sql(query, {"q": question, "k": 5, "f": given}, region=group.name)
            assert herd_of_docs.sql(query, {"q": question, "k": 5, "f": "{}"}, region=group.name) == before
        with pytest.raises(ServerRefused, match="dimensions"):
            herd_of_docs.sql(query, {"q": "[1,2]", "k": 5, "f": "{}"}, region=group.name)
        assert herd_of_docs.sql(query, {"q": question, "k": 5, "f": "{}"}, region=group.name) == before
    assert len(before) == 5


def test_the_search_function_of_names_that_need_quoting(herd: Herd) -> None:
    name, key = '"My ""Docs"" %s"', '"Id"'
    columns = '"Id" bigint PRIMARY KEY, "the v" vector(2), k int'
    apply(herd, f"CREATE TABLE {name} ({columns}); SELECT create_distributed_table('{name}', '{key}')")
    table = herd.table(name)
    table.upsert([{"Id": i, "the v": [i, 1], "k": i % 2} for i in range(9)])
    query = """SELECT "Id" FROM pgherd."search_My ""Docs"" %s"('[1,1]', 3, '{"k": 1}')"""
    for group in herd.topology.groups:
        rows = herd.sql(query, region=group.name)
        assert [r["Id"] for r in rows] == [h.row["Id"] for h in table.search([1, 1], 3, where={"k": 1})]
