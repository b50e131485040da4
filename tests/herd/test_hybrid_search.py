"""Hybrid search on every engine, against both lists computed over all rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from test_rows import REGIONS

import pgherd
from conftest import apply, own_database
from pgherd import herdfile
from pgherd.errors import BadInput
from pgherd.model.names import Name
from pgherd.search.hits import Hits
from pgherd.search.hybrid import hybrid_statement_of
from pgherd.search.request import parameters_of
from pgherd.sync import Herd, HerdTable

N, DIM = 900, 8
WORDS = ["heart", "attack", "chest", "pain", "fracture", "left", "arm", "burn", "fever", "cough", "acute", "chronic"]
NOTE = f"""{REGIONS}
CREATE TABLE note (region text, id text, n int NOT NULL, body text, v vector({DIM}),
  tsv tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(body, ''))) STORED,
  PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE note_east PARTITION OF note FOR VALUES IN ('east') TABLESPACE east;
CREATE TABLE note_west PARTITION OF note FOR VALUES IN ('west') TABLESPACE west;
CREATE INDEX ON note USING hnsw (v vector_cosine_ops);
CREATE INDEX ON note USING gin (tsv);
"""
KEY = tuple[str, str]


class Rows:
    """Texts of few words, so that ranks tie often; every tenth row has no vector, every eleventh no text."""

    def __init__(self) -> None:
        made = np.random.default_rng(11)
        self.v = made.normal(size=(N, DIM)).astype(np.float32)
        self.keys = [(["east", "west"][int(made.integers(2))], f"{'aBcÄ'[i % 4]}{i}") for i in range(N)]
        self.body = [None if i % 11 == 0 else " ".join(made.choice(WORDS, int(made.integers(2, 9)))) for i in range(N)]
        self.has_vector = np.arange(N) % 10 != 0

    def dicts(self) -> list[dict[str, Any]]:
        return [
            {"region": key[0], "id": key[1], "n": i, "body": self.body[i], "v": self.v[i] if has else None}
            for i, (key, has) in enumerate(zip(self.keys, self.has_vector, strict=True))
        ]

    def distances(self, question: NDArray[Any]) -> dict[KEY, float]:
        lengths = np.linalg.norm(self.v, axis=1) * np.linalg.norm(question)
        every = 1 - self.v @ question / lengths
        return {key: float(every[i]) for i, key in enumerate(self.keys) if self.has_vector[i]}


ROWS = Rows()
Q = ROWS.v[42] + np.float32(0.3)


@pytest.fixture(scope="module", params=["single", "fleet"])
def herd_of_notes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Herd]:
    """A herd with the rows in it, for tests that only read."""
    home = request.getfixturevalue(f"{request.param}_home")
    for own in own_database(home, tmp_path_factory.mktemp("notes")):
        with pgherd.connect(home=own) as herd:
            apply(herd, NOTE)
            herd.table("note").insert(ROWS.dicts())
            yield herd


@pytest.fixture
def note(herd_of_notes: Herd) -> HerdTable:
    return herd_of_notes.table("note")


def matching(herd: Herd, words: str, where: str = "true") -> dict[KEY, float]:
    """The rank of every row that matches, computed by one server over all rows."""
    query = f"""SELECT region, id, ts_rank_cd(tsv, websearch_to_tsquery('english', %(words)s))::float8 AS rank
      FROM note WHERE tsv @@ websearch_to_tsquery('english', %(words)s) AND {where}"""
    return {(r["region"], r["id"]): r["rank"] for r in herd.sql(query, {"words": words})}


def fused(near: Mapping[KEY, float], ranks: Mapping[KEY, float], k: int) -> list[tuple[KEY, float]]:
    depth = max(100, 4 * k)
    scores: dict[KEY, float] = {}
    for ordered in (sorted(near, key=lambda x: (near[x], x)), sorted(ranks, key=lambda x: (-ranks[x], x))):
        for rank, key in enumerate(ordered[:depth], start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (60 + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]


def result(hits: Hits) -> list[tuple[KEY, float]]:
    return [((h.row["region"], h.row["id"]), h.score or 0.0) for h in hits]


def assert_same(hits: Hits, wanted: list[tuple[KEY, float]]) -> None:
    assert [key for key, _ in result(hits)] == [key for key, _ in wanted]
    assert [score for _, score in result(hits)] == pytest.approx([score for _, score in wanted])


@pytest.mark.parametrize("words", ["heart", "chest pain", '"heart attack"', "fever or cough", "chest -pain", "-chest"])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_both_lists_of_the_whole_herd_are_fused(herd_of_notes: Herd, note: HerdTable, words: str, k: int) -> None:
    ranks = matching(herd_of_notes, words)
    assert len(ranks) > 5
    hits = note.search(Q, k, hybrid=words, exact=True)
    assert_same(hits, fused(ROWS.distances(Q), ranks, k))
    assert {h.shard for h in hits} <= {"note_east", "note_west"}
    near = ROWS.distances(Q)
    for hit in hits:
        distance = near.get((hit.row["region"], hit.row["id"]))
        assert hit.distance == pytest.approx(distance, abs=1e-5) if distance else hit.distance != hit.distance


def test_a_row_without_a_vector_is_found_by_its_text(note: HerdTable) -> None:
    hits = note.search(Q, 200, hybrid="acute or chronic", exact=True)
    lone = [h for h in hits if h.distance != h.distance]
    assert lone
    assert all(h.row["n"] % 10 == 0 for h in lone)
    assert hits.as_json()["hits"][hits.index(lone[0])]["distance"] is None


def test_through_the_index_it_finds_nearly_the_same(herd_of_notes: Herd, note: HerdTable) -> None:
    wanted = {key for key, _ in fused(ROWS.distances(Q), matching(herd_of_notes, "heart"), 20)}
    hits = note.search(Q, 20, hybrid="heart", ef_search=400)
    assert len(wanted & {key for key, _ in result(hits)}) >= 17
    assert result(hits) == result(note.search(Q, 20, hybrid="heart", ef_search=400))


def test_words_that_match_nothing_leave_the_nearest(note: HerdTable) -> None:
    for words in ("giraffe", "the", '"arm the giraffe"'):
        hits = note.search(Q, 10, hybrid=words, exact=True)
        assert [h.row["n"] for h in hits] == [h.row["n"] for h in note.search(Q, 10, exact=True)]
        assert [h.score for h in hits] == pytest.approx([1 / (60 + rank) for rank in range(1, 11)])


def test_where_holds_for_both_lists(herd_of_notes: Herd, note: HerdTable) -> None:
    kept = {key for i, key in enumerate(ROWS.keys) if i % 3 == 0}
    near = {key: d for key, d in ROWS.distances(Q).items() if key in kept}
    wanted = fused(near, matching(herd_of_notes, "heart", "n %% 3 = 0"), 15)
    assert_same(note.search(Q, 15, hybrid="heart", where="n % 3 = 0", exact=True), wanted)
    text = "n %% %(three)s = 0"
    assert_same(note.search(Q, 15, hybrid="heart", where=text, params={"three": 3}, exact=True), wanted)
    few = note.search(Q, 15, hybrid="heart", where="n < 4")
    assert {h.row["n"] for h in few} == {1, 2, 3} | {i for i in [0] if "heart" in (ROWS.body[0] or "")}


def test_a_partition_key_asks_one_group_only(herd_of_notes: Herd, note: HerdTable) -> None:
    hits = note.search(Q, 10, hybrid="chest pain", where={"region": "west"}, exact=True, columns=["region", "id", "n"])
    assert len(hits.groups) == 1
    assert {h.row["region"] for h in hits} == {"west"}
    assert set(hits[0].row) == {"region", "id", "n"}
    near = {key: d for key, d in ROWS.distances(Q).items() if key[0] == "west"}
    assert_same(hits, fused(near, matching(herd_of_notes, "chest pain", "region = 'west'"), 10))


def test_the_text_index_serves_it(single: Herd, single_db: Path) -> None:
    apply(single, NOTE)
    request = single._inner.table("note").request([1.0] * DIM, 5, words="heart attack")
    assert request.words is not None
    relations = (Name("public", "note_east"), Name("public", "note_west"))
    text = hybrid_statement_of(request.form.shape, request.words.document, relations, False).text.decode()
    values = {**parameters_of(request), "pgherd_q": np.ones(DIM, np.float32)}
    with psycopg.connect(herdfile.read(single_db).dsn(single_db)) as connection:
        register_vector(connection)
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(r[0] for r in psycopg.ClientCursor(connection).execute("EXPLAIN " + text, values))
    for name in ("note_east", "note_west"):
        assert f"Bitmap Index Scan on {name}_tsv_idx" in plan, plan
        assert f"Index Scan using {name}_v_idx" in plan, plan


def test_bad_input_says_what_to_do(note: HerdTable) -> None:
    for options, what in (
        ({"hybrid": True}, "needs words"),
        ({"hybrid": "  "}, "needs words"),
        ({"hybrid": "heart", "min_similarity": 0.5}, "min_similarity"),
        ({"hybrid": "heart", "text_column": "n"}, "no text"),
        ({"text_column": "body"}, "hybrid"),
        ({"hybrid": "heart", "k": 0}, "k is 0"),
    ):
        with pytest.raises(BadInput, match=what):
            note.search(Q, **{"k": 3, **options})


def test_a_table_needs_a_key(herd: Herd) -> None:
    apply(herd, "CREATE TABLE loose (body text, v vector(3));")
    with pytest.raises(BadInput, match="no primary key"):
        herd.table("loose").search([1, 2, 3], hybrid="word")


TREATMENT = """
CREATE TABLE treatment (id bigint PRIMARY KEY, description text, place text, embedding vector(256));
SELECT create_distributed_table('treatment', 'id', shard_count => 4);
SELECT pgherd.embed_column('treatment', 'description', 'embedding', model => 'wordllama');
"""
TEXTS = ["chest pain on exertion", "a broken left arm", "code X42 of the register", "thoracic discomfort", "a burn"]


def test_questions_in_words(herd: Herd) -> None:
    apply(herd, TREATMENT)
    table = herd.table("treatment")
    table.insert([{"id": i, "description": t, "place": "X42"} for i, t in enumerate(TEXTS)])
    assert table.search("X42", 1, hybrid=True)[0].row["id"] == 2
    found = table.search('"broken left"', 5, hybrid=True)
    assert found[0].row["id"] == 1
    assert found[0].score == pytest.approx(2 / 61)
    assert {h.row["id"] for h in found} == set(range(5))
    by_place = table.search("X42", 5, hybrid=True, text_column="place", text_config="simple")
    assert all(h.score is not None and h.score > 1 / 61 + 1 / 70 for h in by_place)


def test_the_client_with_asyncio_gives_the_same(fleet_db: Any) -> None:
    async def search() -> list[Any]:
        async with pgherd.connect_async(home=fleet_db) as herd:
            return [(h.key, h.score) for h in await herd.table("treatment").search("chest pain", 3, hybrid=True)]

    with pgherd.connect(home=fleet_db) as herd:
        apply(herd, TREATMENT)
        herd.table("treatment").insert([{"id": i, "description": t} for i, t in enumerate(TEXTS)])
        expected = [(h.key, h.score) for h in herd.table("treatment").search("chest pain", 3, hybrid=True)]
    assert expected[0][0] == (0,)
    assert asyncio.run(search()) == expected
