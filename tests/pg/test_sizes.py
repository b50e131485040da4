"""Predicted bytes against what PostgreSQL and pgvector really use."""

from __future__ import annotations

import psycopg
import pytest

from pgherd.model.schema import VectorType
from pgherd.planning.sizes import heap_bytes, hnsw_bytes, ivfflat_bytes


@pytest.mark.parametrize(
    ("kind", "dim", "rows", "m"),
    [
        ("vector", 256, 20_000, 8),
        ("vector", 100, 6_000, 16),
        ("vector", 768, 6_000, 16),
        ("vector", 768, 3_000, 8),
        ("vector", 2000, 1_500, 16),
        ("vector", 1536, 3_000, 16),
        ("halfvec", 768, 6_000, 16),
        ("halfvec", 1536, 3_000, 8),
        ("bit", 512, 6_000, 16),
        ("vector", 3, 6_000, 40),
        ("vector", 64, 20_000, 16),
        ("vector", 384, 6_000, 32),
        ("halfvec", 3000, 1_500, 16),
        ("bit", 2000, 6_000, 8),
    ],
)
def test_sizes_are_within_a_tenth(pg_dsn: str, kind: str, dim: int, rows: int, m: int) -> None:
    value = f"array(SELECT random() - 0.5 FROM generate_series(1, {dim}) WHERE i > 0)"
    opclass = "halfvec_l2_ops" if kind == "halfvec" else "vector_l2_ops"
    if kind == "bit":
        value, opclass = (
            f"array_to_string(array(SELECT (random() < 0.5)::int FROM generate_series(1, {dim}) WHERE i > 0), '')",
            "bit_hamming_ops",
        )
    with psycopg.connect(pg_dsn) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
        connection.execute(f"CREATE TABLE sized (id bigint, v {kind}({dim}))")
        connection.execute(f"INSERT INTO sized SELECT i, ({value})::{kind}({dim}) FROM generate_series(1, {rows}) i")
        connection.execute(
            f"CREATE INDEX sized_v ON sized USING hnsw (v {opclass}) WITH (m = {m}, ef_construction = {2 * m})"
        )
        found = connection.execute("SELECT pg_table_size('sized'), pg_relation_size('sized_v')").fetchone()
        connection.rollback()
    assert found is not None
    predicted = (
        heap_bytes(rows, dim, VectorType(kind), 8).bytes,
        hnsw_bytes(rows, dim, VectorType(kind), m).bytes,
    )
    assert predicted == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize(
    ("column", "rows", "index", "element"),
    [
        ("vector(64)", 20_000, ("ivfflat", "vector", 50), "v vector_l2_ops"),
        ("vector(768)", 4_000, ("ivfflat", "vector", 20), "v vector_cosine_ops"),
        ("vector(2000)", 1_500, ("ivfflat", "vector", 10), "v vector_l2_ops"),
        ("halfvec(256)", 6_000, ("ivfflat", "halfvec", 100), "v halfvec_l2_ops"),
        ("halfvec(3000)", 1_500, ("ivfflat", "halfvec", 10), "v halfvec_l2_ops"),
        ("bit(1024)", 6_000, ("ivfflat", "bit", 20), "v bit_hamming_ops"),
        ("vector(768)", 4_000, ("hnsw", "halfvec", 16), "(v::halfvec(768)) halfvec_cosine_ops"),
        ("vector(3000)", 1_500, ("hnsw", "halfvec", 16), "(v::halfvec(3000)) halfvec_l2_ops"),
        ("vector(768)", 4_000, ("hnsw", "bit", 16), "(binary_quantize(v)::bit(768)) bit_hamming_ops"),
        ("vector(3000)", 1_500, ("hnsw", "bit", 32), "(binary_quantize(v)::bit(3000)) bit_hamming_ops"),
        ("vector(768)", 4_000, ("ivfflat", "halfvec", 20), "(v::halfvec(768)) halfvec_l2_ops"),
    ],
)
def test_ivfflat_and_expressions_are_within_a_tenth(
    pg_dsn: str, column: str, rows: int, index: tuple[str, str, int], element: str
) -> None:
    method, stored, parameter = index
    dim = int(column.partition("(")[2].rstrip(")"))
    numbers = f"array(SELECT random() - 0.5 FROM generate_series(1, {dim}) WHERE i > 0)::vector"
    value = f"binary_quantize({numbers})" if column.startswith("bit") else numbers
    option = "lists" if method == "ivfflat" else "m"
    with psycopg.connect(pg_dsn) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
        connection.execute(f"CREATE TABLE sized (id bigint, v {column})")
        connection.execute(f"INSERT INTO sized SELECT i, ({value})::{column} FROM generate_series(1, {rows}) i")
        extra = ", ef_construction = 64" if method == "hnsw" else ""
        connection.execute(
            f"CREATE INDEX sized_v ON sized USING {method} ({element}) WITH ({option} = {parameter}{extra})"
        )
        found = connection.execute("SELECT pg_relation_size('sized_v')").fetchone()
        connection.rollback()
    assert found is not None
    predict = ivfflat_bytes if method == "ivfflat" else hnsw_bytes
    assert predict(rows, dim, VectorType(stored), parameter).bytes == pytest.approx(found[0], rel=0.1)
