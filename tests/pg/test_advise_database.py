"""Advice on databases that exist: what it measures, what it must not do, and what it says when it can't."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgherd.advising import probe
from pgherd.advising.catalog import read_columns, read_server
from pgherd.advising.report import advice_on, measured
from pgherd.advising.session import looking
from pgherd.advising.survey import survey
from pgherd.cli.main import main
from pgherd.errors import BadInput, GroupUnavailable, ServerRefused

N, DIM = 6000, 32
SECRET = "heart-of-the-matter"
SCHEMA = f"""
CREATE EXTENSION vector;
CREATE TABLE doc (id bigint PRIMARY KEY, body text, v vector({DIM}), w vector({DIM}));
CREATE TABLE half (id bigint PRIMARY KEY, v vector({DIM}));
CREATE TABLE bits (id bigint PRIMARY KEY, v vector({DIM}));
CREATE TABLE lists (id bigint PRIMARY KEY, v halfvec({DIM}));
CREATE TABLE flags (id bigint PRIMARY KEY, v bit({DIM}));
CREATE TABLE parted (id bigint, place text, v vector({DIM})) PARTITION BY LIST (place);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a');
CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b');
CREATE TABLE empty (v vector(3));
CREATE TABLE sparse (v sparsevec(3));
CREATE TABLE closed (v vector(3));
"""
INDEXES = f"""
CREATE INDEX doc_v ON doc USING hnsw (v vector_cosine_ops) WITH (m = 8);
CREATE INDEX half_v ON half USING hnsw ((v::halfvec({DIM})) halfvec_l2_ops);
CREATE INDEX bits_v ON bits USING hnsw ((binary_quantize(v)::bit({DIM})) bit_hamming_ops);
CREATE INDEX lists_v ON lists USING ivfflat (v halfvec_l2_ops) WITH (lists = 20);
CREATE INDEX flags_v ON flags USING hnsw (v bit_hamming_ops);
CREATE INDEX parted_v ON parted USING hnsw (v vector_cosine_ops);
"""


def vectors() -> list[str]:
    rng = np.random.default_rng(5)
    families = rng.standard_normal((40, DIM))
    rows = families[rng.integers(0, 40, N)] + 0.4 * rng.standard_normal((N, DIM))
    return ["[" + ",".join(f"{x:.5f}" for x in row) + "]" for row in rows]


@pytest.fixture(scope="module")
def databases(pg_dsn: str) -> Iterator[dict[str, str]]:
    """DSNs: ``owner`` and ``reader`` of one full database, ``bare`` (no pgvector), ``none`` (no vectors)."""
    names = {k: f"{k}_{uuid.uuid4().hex[:8]}" for k in ("full", "bare", "none", "reader", "stranger")}
    with psycopg.connect(pg_dsn, autocommit=True) as admin:
        for key in ("full", "bare", "none"):
            admin.execute(f"CREATE DATABASE {names[key]}")
        for key in ("reader", "stranger"):
            admin.execute(f"CREATE ROLE {names[key]} LOGIN PASSWORD 'x'")
    found = {k: make_conninfo(pg_dsn, dbname=names[k]) for k in ("full", "bare", "none")}
    with psycopg.connect(found["none"]) as connection:
        connection.execute("CREATE EXTENSION vector")
    with psycopg.connect(found["full"], autocommit=True) as connection:
        connection.execute(SCHEMA)
        fill(connection)
        connection.execute(INDEXES)
        connection.execute("VACUUM (ANALYZE)")  # now, or autovacuum cuts off empty pages between two looks at the size
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {names['reader']}")
        connection.execute(f"REVOKE SELECT ON closed FROM {names['reader']}")
    for key in ("reader", "stranger"):
        found[key] = make_conninfo(found["full"], user=names[key], password="x", passfile="")
    yield found
    with psycopg.connect(pg_dsn, autocommit=True) as admin:
        for key in ("full", "bare", "none"):
            admin.execute(f"DROP DATABASE {names[key]} WITH (FORCE)")
        for key in ("reader", "stranger"):
            admin.execute(f"DROP ROLE {names[key]}")


def fill(connection: psycopg.Connection[Any]) -> None:
    rows = list(enumerate(vectors()))
    with connection.cursor() as cursor:
        with cursor.copy("COPY doc FROM STDIN") as copy:
            for i, v in rows:
                copy.write_row((i, f"{SECRET} {i}", v, v))
        for table in ("half", "bits", "lists"):
            with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                for i, v in rows:
                    copy.write_row((i, v))
        cursor.execute(f"INSERT INTO flags SELECT id, binary_quantize(v)::bit({DIM}) FROM half")
        cursor.execute("INSERT INTO parted SELECT id, chr(97 + (id % 2)::int), v FROM half")


@pytest.fixture(scope="module")
def report(databases: dict[str, str]) -> dict[str, Any]:
    """What an ordinary reader gets."""
    found = survey(databases["reader"], budget_s=60)
    advice = advice_on(found, memory=2**30, growth=10_000, qps=50)
    return advice.as_json() | {"measured": measured(found)}


def column(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in report["measured"]["columns"] if c["name"] == name)


def test_bytes_and_rows_are_as_the_server_has_them(databases: dict[str, str], report: dict[str, Any]) -> None:
    with psycopg.connect(databases["full"]) as connection:
        for table in ("doc", "half", "lists"):
            sql = "SELECT pg_table_size(%s::regclass), pg_relation_size(%s::regclass)"
            row = connection.execute(sql, [table, f"{table}_v"]).fetchone()
            assert row is not None
            c = column(report, f"{table}.v")
            assert c["rows"] == N
            assert c["indexes"][0]["bytes"] == row[1]
            maps = 6 * 8192  # free space and visibility maps are not counted
            assert c["heap_bytes"] + c["toast_bytes"] == pytest.approx(row[0], abs=maps)
    assert column(report, "parted.v")["rows"] == N
    assert column(report, "parted.v")["parts"] == 2


@pytest.mark.parametrize("name", ["doc.v", "half.v", "bits.v", "lists.v", "flags.v", "parted.v"])
def test_searches_are_made_through_the_index_there_is(report: dict[str, Any], name: str) -> None:
    c = column(report, name)
    assert [i["used"] for i in c["indexes"]] == [True]
    assert c["probe"]["questions"] >= 10
    assert 0 < c["probe"]["p50_ms"] <= c["probe"]["p95_ms"]
    assert c["probe"]["blocks_hit"] + c["probe"]["blocks_read"] > 0
    assert 0.2 < c["probe"]["recall"] <= 1
    assert "every row" in c["probe"]["recall_by"]


def test_a_column_without_index_is_said_to_be_read_whole(report: dict[str, Any]) -> None:
    c = column(report, "doc.w")
    assert c["indexes"] == []
    assert c["probe"]["index"] is None
    assert any(r.startswith("doc.w: there is no index") for r in report["reasons"])


def shown_in(text: str) -> list[str]:
    """The vectors of which ``text`` has three numbers or more (one of some 190,000 is in any text by chance)."""
    numbers = set(re.findall(r"-?\d+\.\d+", text))
    return [v for v in vectors() if len(numbers.intersection(v[1:-1].split(","))) >= 3]


def test_no_row_comes_out(report: dict[str, Any]) -> None:
    text = json.dumps(report)
    assert SECRET not in text
    assert shown_in(text) == []
    planted = vectors()[7]
    assert shown_in(text + json.dumps(json.loads(planted))) == [planted]


def test_what_could_not_be_seen_is_listed(report: dict[str, Any]) -> None:
    unseen = "\n".join(report["measured"]["unseen"])
    assert "closed.v: no SELECT on it" in unseen
    assert "memory and cores" in unseen
    assert "sparse.v: there is no advice on sparsevec" in unseen
    assert "empty.v" in unseen


def test_the_answer_is_as_from_numbers(report: dict[str, Any]) -> None:
    assert {x["name"] for x in report["limits"]} == {"memory"}
    assert report["engine"] == "single"
    assert len(report["engines"]) == 5
    assert report["answer"].startswith("Yes, soon: memory runs out in")
    assert all(f["formula"] for f in report["figures"])


def test_the_session_can_not_write(databases: dict[str, str]) -> None:
    with looking(databases["full"]) as connection:
        settings = connection.execute(
            "SELECT current_setting('statement_timeout') AS s, current_setting('lock_timeout') AS l"
        ).fetchone()
        assert settings == {"s": "30s", "l": "500ms"}
    with pytest.raises(ServerRefused, match="25006"), looking(databases["full"]) as connection:
        connection.execute("CREATE TABLE made (id int)")


def test_a_superuser_sees_the_machine(databases: dict[str, str]) -> None:
    found = survey(databases["full"], budget_s=1)
    assert found.server.memory
    assert found.server.cores
    assert found.server.disk
    assert advice_on(found).limits[0].name == "memory"


def test_growth_between_two_reports(
    databases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["advise", "--dsn", databases["full"], "--memory", "1GiB", "--budget-s", "1", "--json"]
    assert main(arguments) == 0
    earlier = tmp_path / "earlier.json"
    earlier.write_text(capsys.readouterr().out, encoding="utf-8")
    with psycopg.connect(databases["full"], autocommit=True) as connection:
        connection.execute("INSERT INTO empty SELECT '[1,2,3]' FROM generate_series(1, 500)")
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT 1")
    assert main([*arguments, "--since", str(earlier)]) == 0
    document = json.loads(capsys.readouterr().out)
    rates = column(document, "empty.v")["rates"]
    seconds = 500 * 86_400 / rates["rows_a_day"]
    assert 0 < seconds < 600
    assert "apart" in rates["source"]
    assert column(document, "half.v")["rates"]["rows_a_day"] == 0
    assert main([*arguments, "--since", str(Path(__file__))]) == 2
    assert "no report" in capsys.readouterr().out


def test_two_looks_in_one_run(databases: dict[str, str]) -> None:
    found = survey(databases["full"], sample_s=1, budget_s=1)
    assert all("two looks" in r.source and r.rows_a_day is not None for r in found.rates.values())


def test_large_tables_are_estimated_from_blocks(
    databases: dict[str, str], report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if reading the table once took a ninth of the time there is."""
    exact = column(report, "doc.v")["probe"]["recall"]
    with looking(databases["reader"]) as connection:
        read_server(connection, [])
        doc = next(c for c in read_columns(connection, []) if c.name == "doc.v")
        monkeypatch.setattr(probe, "SCAN_BYTES_A_S", (doc.heap_bytes + doc.toast_bytes) / 6.5)
        estimated = probe.probe(connection, doc, 58, [])
    assert estimated is not None
    assert "estimated from" in estimated.recall_by
    assert estimated.recall == pytest.approx(exact, abs=0.3)
    assert estimated.recall_error


@pytest.mark.parametrize("lost", [0.0, 0.1])
@pytest.mark.parametrize("missing", [0, 2, 10])
def test_an_estimate_is_near_the_truth(lost: float, missing: int) -> None:
    """Answers of 10 rows that miss some nearer ones, and some that are lost: a tenth of the rows is looked at."""
    rng = np.random.default_rng(3)
    ranks = [3000 if i < 200 * lost else 10 + missing for i in range(200)]
    recall, error, _ = probe.estimate([(1.0, int(rng.binomial(r, 0.1))) for r in ranks])
    assert recall == pytest.approx(np.mean([10 / r for r in ranks]), abs=0.1)
    assert 0 < error < 0.1


def test_what_is_wrong_with_a_dsn_is_said(databases: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="has no pgvector"):
        survey(databases["bare"])
    with pytest.raises(BadInput, match="has no table with vectors"):
        survey(databases["none"])
    with pytest.raises(BadInput, match="may not read any vectors") as refused:
        survey(databases["stranger"])
    assert "GRANT SELECT ON" in refused.value.hint
    with pytest.raises(GroupUnavailable, match="no server of the DSN answers"):
        survey("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(BadInput, match=r"refused the login: database .* does not exist"):
        survey(make_conninfo(databases["full"], dbname="nosuch"))
    with pytest.raises(BadInput, match="not a libpq connection string"):
        survey("a dsn=of no kind at all")
    with pytest.raises(BadInput, match="sample-s"):
        survey(databases["none"], sample_s=0)
