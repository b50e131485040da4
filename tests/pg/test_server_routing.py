"""Routing and pruning, against the server's own: a real partitioned table says where each row went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgherd.model.names import Name
from pgherd.model.schema import HashBound, ListBound, PartitionBy, Strategy
from pgherd.model.topology import GroupId, Level, Shard, ShardId
from pgherd.routing.route import Router

SCHEMA = """
CREATE SCHEMA routing;
SET search_path = routing;
CREATE TABLE visit (region varchar(12), id bigint, at date) PARTITION BY LIST (region);
CREATE TABLE us PARTITION OF visit FOR VALUES IN ('Boston', 'New York') PARTITION BY HASH (id, at);
CREATE TABLE us0 PARTITION OF us FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE us1 PARTITION OF us FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE us3 PARTITION OF us FOR VALUES WITH (MODULUS 4, REMAINDER 3);
CREATE TABLE eu PARTITION OF visit FOR VALUES IN ('Zürich', NULL);
CREATE TABLE rest PARTITION OF visit DEFAULT PARTITION BY LIST (at);
CREATE TABLE leap PARTITION OF rest FOR VALUES IN ('2024-02-29');
CREATE TABLE other PARTITION OF rest DEFAULT;
"""
TYPES = {"region": "varchar(12)", "id": "bigint", "at": "date"}


def shards() -> list[Shard]:
    by_region, by_key = PartitionBy(Strategy.LIST, ("region",)), PartitionBy(Strategy.HASH, ("id", "at"))
    by_day = PartitionBy(Strategy.LIST, ("at",))
    us, rest = Level(by_region, ListBound(("Boston", "New York"))), Level(by_region, ListBound(default=True))
    paths = {
        "us0": (us, Level(by_key, HashBound(2, 0))),
        "us1": (us, Level(by_key, HashBound(4, 1))),
        "us3": (us, Level(by_key, HashBound(4, 3))),
        "eu": (Level(by_region, ListBound(("Zürich", None))),),
        "leap": (rest, Level(by_day, ListBound(("2024-02-29",)))),
        "other": (rest, Level(by_day, ListBound(default=True))),
    }
    table = Name("routing", "visit")
    return [Shard(ShardId(n), table, Name("routing", n), GroupId("g"), p) for n, p in paths.items()]


@pytest.fixture(scope="module")
def conn(pg_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pg_dsn, autocommit=True) as c:
        c.execute(SCHEMA)
        yield c
        c.execute("DROP SCHEMA routing CASCADE")


rows = st.lists(
    st.tuples(
        st.sampled_from([None, "Boston", "New York", "Zürich", "zürich", "Lima", "", "Boston      "]),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.sampled_from(["2024-02-29", "1999-12-31", "2024-02-28"]) | st.dates(),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=40)
@given(rows)
def test_rows_go_where_the_server_puts_them(conn: psycopg.Connection[Any], given_rows: list[tuple[Any, ...]]) -> None:
    router = Router(shards(), TYPES)
    with conn.transaction(force_rollback=True), conn.cursor() as cur:
        cur.execute("ALTER TABLE visit ADD COLUMN row_no int")
        cur.executemany("INSERT INTO visit VALUES (%s, %s, %s, %s)", [(*r, i) for i, r in enumerate(given_rows)])
        server = dict(cur.execute("SELECT row_no, tableoid::regclass::text FROM visit").fetchall())
    columns = {name: [r[i] for r in given_rows] for i, name in enumerate(TYPES)}
    routed = {int(i): s.name for s, taken in router.route_many(columns) for i in taken}
    assert routed == server
    assert {i: router.route(dict(zip(TYPES, r, strict=True))).name for i, r in enumerate(given_rows)} == server


@settings(deadline=None, max_examples=60)
@given(given_rows=rows, named=st.sets(st.sampled_from(sorted(TYPES)), min_size=1))
def test_pruning_keeps_every_shard_that_holds_a_match(
    conn: psycopg.Connection[Any], given_rows: list[tuple[Any, ...]], named: set[str]
) -> None:
    router = Router(shards(), TYPES)
    constraints = {c: [r[i] for r in given_rows[:3]] for i, c in enumerate(TYPES) if c in named}
    wanted = " AND ".join(
        f"(coalesce({c} = ANY(%({c})s::text[]::{TYPES[c]}[]), false) OR {c} IS NULL AND %({c}_null)s)"
        for c in constraints
    )
    parameters: dict[str, Any] = {c: [str(v) for v in values if v is not None] for c, values in constraints.items()}
    parameters |= {f"{c}_null": None in values for c, values in constraints.items()}
    with conn.transaction(force_rollback=True), conn.cursor() as cur:
        cur.executemany("INSERT INTO visit VALUES (%s, %s, %s)", given_rows)
        query = f"SELECT DISTINCT tableoid::regclass::text FROM visit WHERE {wanted}"
        holders = {name for (name,) in cur.execute(query, parameters)}  # type: ignore[call-overload]
    assert holders <= {s.name for s in router.prune(constraints)}


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.lists(st.integers(0, 10**6), max_size=9), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_rows_go_where_the_server_puts_them_after_any_splits(
    conn: psycopg.Connection[Any], count: int, splits: list[int], keys: list[int]
) -> None:
    """Mixed moduli, by random sequences of splits; pruning finds the one shard of a key."""
    bounds = [HashBound(count, r) for r in range(count)]
    for choice in splits:
        old = bounds.pop(choice % len(bounds))
        bounds += [HashBound(2 * old.modulus, old.remainder), HashBound(2 * old.modulus, old.remainder + old.modulus)]
    by = PartitionBy(Strategy.HASH, ("id",))
    table = Name("routing", "split")
    found = [
        Shard(ShardId(f"s{i}"), table, Name("routing", f"s{i}"), GroupId("g"), (Level(by, b),))
        for i, b in enumerate(bounds)
    ]
    router = Router(found, {"id": "bigint"})
    with conn.transaction(force_rollback=True), conn.cursor() as cur:
        cur.execute("CREATE TABLE split (id bigint) PARTITION BY HASH (id)")
        for shard, bound in zip(found, bounds, strict=True):
            cur.execute(f"CREATE TABLE {shard.name} PARTITION OF split {bound.sql}")  # type: ignore[call-overload]
        cur.executemany("INSERT INTO split VALUES (%s)", [(k,) for k in keys])
        server = dict(cur.execute("SELECT id, tableoid::regclass::text FROM split").fetchall())
    assert {keys[i]: s.name for s, taken in router.route_many({"id": keys}) for i in taken} == server
    assert {k: router.route({"id": k}).name for k in keys} == server
    assert {k: s.name for k in keys for s in router.prune({"id": [k]})} == server
