"""Advice from pg_stat_statements: how many searches there are and what one takes, where the server counts them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from conftest import reachable
from pgherd import herdfile
from pgherd.advising.survey import survey
from pgherd.local.herd import LocalHerd
from pgherd.model.topology import EngineName

CALLS = 60


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A DSN of a server of its own, which loads pg_stat_statements at its start, and has counted some searches."""
    local = LocalHerd(reachable(tmp_path_factory.mktemp("counted")) / "herd")
    try:
        local.up(None, EngineName.SINGLE)
        dsn = herdfile.read(local.home).dsn(local.home)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        local.down()
        local.up()
        dsn = herdfile.read(local.home).dsn(local.home)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "CREATE SCHEMA counts; CREATE EXTENSION pg_stat_statements SCHEMA counts; CREATE EXTENSION vector"
            )
            connection.execute("CREATE TABLE doc (id bigint, v vector(4)); CREATE TABLE other (id bigint, v vector(4))")
            for table in ("doc", "other"):
                connection.execute(
                    f"INSERT INTO {table} SELECT i, ARRAY[i % 7, i % 11, i % 13, 1]::vector"
                    " FROM generate_series(1, 2000) i"
                )
                connection.execute(f"CREATE INDEX ON {table} USING hnsw (v vector_l2_ops); ANALYZE {table}")
            connection.execute("SELECT counts.pg_stat_statements_reset()")
            for i in range(CALLS):
                table = "other" if i % 4 == 0 else "doc"
                connection.execute(f"SELECT id FROM {table} ORDER BY v <-> %s::vector LIMIT 5", [f"[{i},1,2,3]"])
            connection.execute("SELECT count(*) FROM doc WHERE v <-> '[1,2,3,4]' < 2")
            connection.execute("CREATE ROLE passer LOGIN PASSWORD 'x'; GRANT SELECT ON doc, other TO passer")
            connection.execute("GRANT USAGE ON SCHEMA counts TO passer; SELECT pg_stat_force_next_flush()")
        yield dsn
    finally:
        local.destroy()


def test_searches_are_counted_and_shared_out(counted: str) -> None:
    found = survey(counted, budget_s=5)
    with psycopg.connect(counted) as connection:
        row = connection.execute(
            "SELECT sum(calls), sum(total_exec_time) / sum(calls) FROM counts.pg_stat_statements"
            " WHERE query LIKE 'SELECT id FROM % ORDER BY %'"
        ).fetchone()
    assert row is not None
    assert row[0] == CALLS
    assert found.search_ms == pytest.approx(row[1])
    assert not [u for u in found.unseen if "pg_stat_statements" in u]
    rates = {c.name: found.rates[c.name] for c in found.columns}
    assert rates["doc.v"].searches_a_s == pytest.approx(3 * rates["other.v"].searches_a_s)
    assert "as pg_stat_statements has counted them" in rates["doc.v"].source


def test_what_other_roles_asked_is_hidden_from_a_stranger(counted: str) -> None:
    stranger = psycopg.conninfo.make_conninfo(counted, user="passer", password="x", passfile="")
    found = survey(stranger, budget_s=5)
    assert found.search_ms is None
    assert any("GRANT pg_read_all_stats" in u for u in found.unseen), found.unseen
    assert not [r for r in found.rates.values() if "pg_stat_statements has counted" in r.source]
