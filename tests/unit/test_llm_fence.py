"""The parser's fence: all that is hostile is refused, and what people ask is let through."""

from __future__ import annotations

from contextlib import suppress

import pytest

from hostile import hostile
from pgherd.errors import QueryRefused
from pgherd.llm.fence import MAX_CHARACTERS, check
from pgherd.llm.query import Limits, wrapped
from pgherd.model.names import Name
from pgherd.model.schema import Column, Table

TABLES = {
    "hospital": ("location", "name", "region"),
    "treatment": ("id", "hospital_location", "icd_code", "description", "embedding"),
}
NAMES = {"reader": "pgherd_reader_us-east_herd", "scribe": "pgherd_scribe_us-east_herd", "link": "l", "db": "herd"}


def refused(text: str) -> bool:
    """Whether the fence, or what puts the text into a statement, refuses it."""
    tables = {n: (Table(Name("public", n), (Column("a", "text"),)), [Name("public", n)]) for n in TABLES}
    try:
        wrapped(check(text, TABLES), tables, Limits())
    except QueryRefused:
        return True
    return False


def test_there_are_hundreds_of_distinct_hostile_statements() -> None:
    texts = [h.text for h in hostile()]
    assert len(texts) == len(set(texts)) >= 300


def test_every_hostile_statement_is_refused() -> None:
    assert [h.text for h in hostile(**NAMES) if not refused(h.text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM treatment",
        "select count(*), hospital_location from treatment group by 2 having count(*) > 3 order by 1 desc nulls last;",
        "TABLE hospital",
        "VALUES (1, 'a'), (2, 'b')",
        "WITH busy AS (SELECT hospital_location AS l, count(*) AS n FROM treatment GROUP BY 1)"
        " SELECT name, n FROM busy JOIN hospital ON location = l WHERE n > 1",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i) FROM n",
        "SELECT t.* FROM treatment AS t ORDER BY embedding <=> '[1,2,3]'::vector(3) LIMIT 5",
        "SELECT 1 - (embedding <=> '[1,2,3]') AS similarity FROM treatment",
        "SELECT id, row_number() OVER w, lag(id) OVER w FROM treatment WINDOW w AS (PARTITION BY icd_code ORDER BY id)",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM treatment",
        "SELECT extract(year FROM now()), date_trunc('day', now()) AT TIME ZONE 'UTC', current_date - interval '1 day'",
        "SELECT substring(name FROM 1 FOR 2), trim(both ' ' from name), name || '!' FROM hospital",
        "SELECT * FROM hospital WHERE name ILIKE '%a!%%' ESCAPE '!' AND name SIMILAR TO 'a|b' AND name ~* '^g'",
        "SELECT to_tsvector('english', description) @@ websearch_to_tsquery('english', 'chest pain') FROM treatment",
        "SELECT * FROM json_to_recordset('[{\"a\": 1}]') AS x(a int, b text)",
        "SELECT '{\"a\": [1, 2]}'::jsonb #>> '{a,0}', jsonb_path_query('[1]', '$[*]')",
        "SELECT * FROM hospital h LEFT JOIN LATERAL (SELECT count(*) FROM treatment t WHERE t.id > 1) c ON"
        " true",
        "SELECT CASE WHEN id > 5 THEN 'a' ELSE coalesce(icd_code, '') END, nullif(id, 1), greatest(id) FROM treatment",
        "SELECT id FROM treatment WHERE id = ANY (ARRAY[1, 2]) AND id NOT IN (3, 4) AND id BETWEEN 1 AND 9",
        "SELECT id FROM treatment WHERE id IS DISTINCT FROM 3 AND icd_code IS NOT NULL AND (id > 1) IS TRUE",
        "SELECT DISTINCT ON (icd_code) icd_code, id FROM treatment UNION ALL SELECT 'x', 1 ORDER BY 1 LIMIT 3 OFFSET 1",
        "SELECT icd_code, count(*) FROM treatment GROUP BY GROUPING SETS ((icd_code), ())",
        "SELECT string_agg(DISTINCT icd_code, ', ' ORDER BY icd_code) FILTER (WHERE id > 2) FROM treatment",
        "SELECT (ARRAY[1, 2, 3])[1:2], array_length(ARRAY[[1], [2]], 1), B'101' & B'100', x'1f'::bit(8)",
        'SELECT location AS "Where", U&"n\\0061me" FROM hospital',
        "SELECT location COLLATE \"C\" FROM hospital ORDER BY location COLLATE \"C\"",
        "SELECT /* a remark; with a semicolon */ 'it''s; fine', E'\\n', $x$;$x$",
        "SELECT id -- the number\nFROM treatment",
        "SELECT 1 --); DELETE FROM hospital",
        "SELECT s.count, s.n, s.max, v.column1, g.g, j.key FROM (SELECT count(*), 1 AS n, max(id) FROM treatment) s,"
        " (VALUES (1)) v, generate_series(1, 2) g, json_each('{}') j, unnest(ARRAY[1]) WITH ORDINALITY o (x, y)",
    ],
)  # fmt: skip
def test_what_people_ask_is_let_through(text: str) -> None:
    assert not refused(text)


@pytest.mark.parametrize("text", ["", " ", ";", "SELEC 1", "SELECT 'a", "/* SELECT 1", "SELECT 1\0; x"])
def test_what_is_no_query_is_refused(text: str) -> None:
    assert refused(text)


def test_size_has_bounds() -> None:
    assert refused("SELECT " + "1," * MAX_CHARACTERS + "1")


@pytest.mark.parametrize(
    "text",
    ["(" * 9000 + "1" + ")" * 9000, "NOT " * 4900 + "true", "ARRAY[" * 2800 + "1" + "]" * 2800, "1" + "+1" * 9000],
    ids=["parentheses", "not", "array", "plus"],
)
def test_depth_is_no_way_to_fail(text: str) -> None:
    with suppress(QueryRefused):
        assert check("SELECT " + text, TABLES).tables == ()


def test_a_refusal_says_what_is_refused_and_what_is_allowed() -> None:
    with pytest.raises(QueryRefused, match="function pg_sleep is not allowed") as caught:
        check("SELECT pg_sleep(1)", TABLES)
    assert "SELECT" in caught.value.hint
    with pytest.raises(QueryRefused, match="there is no table 'patient'") as caught:
        check("SELECT * FROM patient", TABLES)
    assert caught.value.hint == "tables: hospital, treatment"


def test_only_the_tables_that_are_named_are_opened() -> None:
    assert check("SELECT 1 FROM hospital a, hospital b", TABLES).tables == ("hospital",)
    assert check("WITH a AS (TABLE treatment) TABLE a", TABLES).tables == ("treatment",)
