"""The memory that an index build is given is what pgvector needs: its graph stays in memory, and little is wasted."""

from __future__ import annotations

import psycopg
import pytest

from pgherd import dialect
from pgherd.planning.building import Machine, Resources, build_memory_bytes, resources

MIB = 1 << 20


@pytest.mark.parametrize(
    ("column", "element", "m", "rows"),
    [
        ("vector(256)", "v vector_l2_ops", 16, 6000),
        pytest.param("vector(32)", "v vector_l2_ops", 40, 8000, marks=pytest.mark.long),
        ("vector(1024)", "(v::halfvec(1024)) halfvec_l2_ops", 8, 3000),
        ("vector(1024)", "(binary_quantize(v)::bit(1024)) bit_hamming_ops", 16, 6000),
    ],
)
def test_a_graph_fits_into_what_it_is_given(pg_dsn: str, column: str, element: str, m: int, rows: int) -> None:
    statement = f"CREATE INDEX built_v ON built USING hnsw ({element}) WITH (m = {m}, ef_construction = {2 * m})"
    schema = dialect.parse(f"CREATE TABLE built (id int, v {column}); {statement};")
    needed = build_memory_bytes(schema.indexes[0], schema.tables[0], rows)
    dim = column.partition("(")[2].rstrip(")")
    notices: list[str | None] = []
    with psycopg.connect(pg_dsn) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.execute(f"CREATE TABLE built (id int, v {column})")
        value = f"array(SELECT random() - 0.5 FROM generate_series(1, {dim}) WHERE i > 0)::vector"
        connection.execute(f"INSERT INTO built SELECT i, {value} FROM generate_series(1, {rows}) i")
        told = []
        for memory in (needed, needed // 2):
            notices.clear()
            connection.execute(f"SET LOCAL maintenance_work_mem = '{memory // 1024}kB'")
            connection.execute(statement)
            told.append([n for n in notices if n and "no longer fits" in n])
            connection.execute("DROP INDEX built_v")
        connection.rollback()
    assert told[0] == []
    assert len(told[1]) == 1, "half of it would not do, so there is no waste"


def test_builds_on_one_machine_share_it() -> None:
    machine = Machine(16 * 1024 * MIB, 12 * 1024 * MIB, 8)
    assert resources(machine, 1, 100 * MIB, 64 * MIB) == Resources(100 * MIB, 7)
    assert resources(machine, 2, 100 * 1024 * MIB, 64 * MIB) == Resources(4 * 1024 * MIB, 3)
    assert resources(machine, 16, 1024 * MIB, 64 * MIB) == Resources(512 * MIB, 0)
    assert resources(machine, 1, 0, 64 * MIB).memory_bytes == 64 * MIB, "never less than the server is set to"
    tight = Machine(16 * 1024 * MIB, 1024 * MIB, None)
    assert resources(tight, 1, 4096 * MIB, 64 * MIB) == Resources(768 * MIB, None)
