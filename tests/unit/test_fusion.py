"""Fusion against the definition, and where words are looked for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgherd import dialect
from pgherd.errors import BadInput
from pgherd.model.names import Name
from pgherd.search.hits import Hit
from pgherd.search.hybrid import fuse, hybrid_statement_of
from pgherd.search.statement import Shape
from pgherd.search.words import Document, document_of, words_of

values = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 2)
"""For each key: its value in the first list, in the second, and the group that it is in."""
rows = st.dictionaries(st.integers(0, 60), st.tuples(st.none() | values, st.none() | values, st.integers(0, 2)))


def lists_of(found: dict[int, tuple[float | None, float | None, int]]) -> list[tuple[list[Hit], list[Hit]]]:
    parts: list[tuple[list[Hit], list[Hit]]] = [([], []) for _ in range(3)]
    for key, (near, matching, group) in found.items():
        for which, value in ((0, near), (1, matching)):
            if value is not None:
                parts[group][which].append(Hit(0.5, {"id": key}, "s", f"g{group}", (key,), value))
    return parts


@given(rows, st.integers(1, 30), st.integers(1, 20))
def test_fusion_is_the_sum_of_reciprocal_ranks(
    found: dict[int, tuple[float | None, float | None, int]], depth: int, k: int
) -> None:
    scores: dict[int, Fraction] = {}
    for which in (0, 1):
        listed = [key for key in found if found[key][which] is not None]
        listed.sort(key=lambda key: (found[key][which], key))
        for rank in range(1, min(depth, len(listed)) + 1):
            key = listed[rank - 1]
            scores[key] = scores.get(key, Fraction(0)) + Fraction(1, 60 + rank)
    wanted = sorted(scores, key=lambda key: (-scores[key], key))[:k]
    fused = fuse(lists_of(found), depth, k)
    assert [h.row["id"] for h in fused] == wanted
    assert [h.score for h in fused] == pytest.approx([float(scores[key]) for key in wanted])


@given(rows, st.integers(1, 30), st.integers(1, 20))
def test_it_does_not_matter_which_group_holds_a_row(
    found: dict[int, tuple[float | None, float | None, int]], depth: int, k: int
) -> None:
    together = {key: (near, matching, 0) for key, (near, matching, _) in found.items()}
    one, three = fuse(lists_of(together), depth, k), fuse(lists_of(found), depth, k)
    assert [(h.key, h.score) for h in one] == [(h.key, h.score) for h in three]


def test_only_hybrid_hits_have_a_score_in_json() -> None:
    hit = Hit(0.5, {"id": 1}, "s", "g")
    assert hit.as_json() == {"distance": 0.5, "row": {"id": 1}, "shard": "s", "group": "g"}
    assert replace(hit, score=0.1, distance=float("nan")).as_json() == {
        "score": 0.1,
        "distance": None,
        "row": {"id": 1},
        "shard": "s",
        "group": "g",
    }


def document(columns: str, index: str = "", name: str | None = None, config: str | None = None) -> Document:
    schema = dialect.parse(f"CREATE TABLE d (id text PRIMARY KEY, v vector(256), {columns});{index}")
    column = schema.tables[0].column("v")
    assert column is not None
    return document_of(schema.tables[0], schema.indexes, column, name, config)


GENERATED = "tsv tsvector GENERATED ALWAYS AS (to_tsvector('german', coalesce(title, '') || ' ' || body)) STORED"


@pytest.mark.parametrize(
    ("columns", "index", "name", "config", "wanted"),
    [
        ("body text", "", None, None, Document("to_tsvector('english', body)", "english")),
        ("body varchar(9)", "", None, "french", Document("to_tsvector('french', body)", "french")),
        ("title text, body text", "", "title", None, Document("to_tsvector('english', title)", "english")),
        (f"title text, body text, {GENERATED}", "", None, None, Document("tsv", "german")),
        (f"title text, body text, {GENERATED}", "", "body", None, Document("tsv", "german")),
        (f"title text, body text, {GENERATED}", "", "tsv", "simple", Document("tsv", "simple")),
        (f"title text, body text, {GENERATED}", "", "body", "dutch", Document("to_tsvector('dutch', body)", "dutch")),
        (
            f"title text, body text, x text, {GENERATED}",
            "",
            "x",
            None,
            Document("to_tsvector('english', x)", "english"),
        ),
        ("title text, tsv tsvector", "", None, None, Document("tsv", "english")),
        (
            "body text",
            "CREATE INDEX ON d USING gin (to_tsvector('dutch', coalesce(body, '')));",
            None,
            None,
            Document("(to_tsvector('dutch', COALESCE(body, '')))", "dutch"),
        ),
        (
            "title text, body text",
            "SELECT pgherd.embed_column('d', 'title', 'v', model => 'wordllama');",
            None,
            None,
            Document("to_tsvector('english', title)", "english"),
        ),
    ],
)
def test_where_words_are_looked_for(
    columns: str, index: str, name: str | None, config: str | None, wanted: Document
) -> None:
    assert document(columns, index, name, config) == wanted


@pytest.mark.parametrize(
    ("columns", "name", "hint"),
    [
        ("title text, body text", None, "title, body"),
        ("n int", "n", "text columns: id"),
        ("body text", "nowhere", "body"),
    ],
)
def test_the_choices_are_named(columns: str, name: str | None, hint: str) -> None:
    with pytest.raises(BadInput) as raised:
        document(columns, name=name)
    assert hint in raised.value.hint


def test_ties_go_by_key_alike_on_every_server() -> None:
    key = (("id", "text"), ("n", "bigint"), ("kind", "mood"))
    shape = Shape("d", "v", "vector(3)", False, "<=>", "", (), key, 100, False)
    text = hybrid_statement_of(shape, Document("tsv", "english"), (Name("public", "d"),), True).text.decode()
    ordered = 'id::text COLLATE "C", n, kind::text COLLATE "C" LIMIT 100'
    assert text.count(ordered) == 2, text


def test_words_come_from_the_question_or_by_themselves() -> None:
    assert words_of("heart attack", True, object()) == "heart attack"
    assert words_of([0.5], "heart attack", None) == "heart attack"
    assert words_of([0.5], False, None) is None
    with pytest.raises(BadInput, match="needs words"):
        words_of([0.5], True, None)
