"""The scratch tables of a drill: lists that grow at their end, and rows, in a schema of their own on one group."""

from __future__ import annotations

from typing import Any

import psycopg

SCHEMA = "pgherd_drill"
ROWS_EACH = 10
"""How many rows each append writes besides, in its own transaction: all of them are there, or none."""
PER_LIST = 100
"""How many appends a list gets before the next one is begun: each rewrites its row."""

# A drill that was killed has left its schema; nobody else has one of that name.
CREATE = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.list (key bigint PRIMARY KEY, items bigint[] NOT NULL);
CREATE TABLE {SCHEMA}.row (value bigint NOT NULL, number int NOT NULL);
"""
DROP = f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"
APPEND = f"""
WITH besides AS (INSERT INTO {SCHEMA}.row SELECT $2::bigint, n FROM generate_series(1, {ROWS_EACH}) n)
INSERT INTO {SCHEMA}.list AS l VALUES ($1::bigint, ARRAY[$2::bigint])
ON CONFLICT (key) DO UPDATE SET items = l.items || excluded.items
RETURNING cardinality(items), left(pg_walfile_name(pg_current_wal_lsn()), 8)
"""
"""Where the value stands in its list, and the timeline of the server that says so (hexadecimal)."""
READ = f"SELECT array_to_string(items, ',') FROM {SCHEMA}.list WHERE key = $1::bigint"


def parse(text: str | None) -> tuple[int, ...]:
    """A list as READ gives it."""
    return tuple(map(int, text.split(","))) if text else ()


def final(connection: psycopg.Connection[Any]) -> dict[int, tuple[int, ...]]:
    """Every list, by key."""
    return {int(k): tuple(v) for k, v in connection.execute(f"SELECT key, items FROM {SCHEMA}.list").fetchall()}


def rows(connection: psycopg.Connection[Any]) -> dict[int, int]:
    """How many different rows there are of each append, by its value."""
    counted = f"SELECT value, count(DISTINCT number) FROM {SCHEMA}.row GROUP BY value"
    return {int(v): int(n) for v, n in connection.execute(counted).fetchall()}
