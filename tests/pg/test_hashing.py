"""The hash of every key, against the server's own functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgherd.routing.hashing import HASH_PARTITION_SEED, hash_key, hash_rows

MODULUS = 97
thorough = settings(deadline=None, max_examples=80)

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
instants = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28))
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
doubles = st.floats() | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 0.1])

TYPES: dict[str, st.SearchStrategy[Any]] = {
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**31, -(2**31) - 1, -(2**32), 2**63 - 1]),
    "boolean": st.booleans(),
    "text": text | st.sampled_from(["", " ", "é", "𝄞" * 3, "x" * 5000]),
    "varchar(60)": text,
    "char(62)": text.map(lambda t: t + "  ") | st.sampled_from(["", "   ", "a ", "a b  "]),
    "bytea": st.binary(max_size=40),
    "uuid": st.uuids(),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": instants,
    "timestamptz": st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28), timezones=zones),
    "interval": st.timedeltas(timedelta(days=-40000), timedelta(days=40000)),
    "real": st.floats(width=32),
    "double precision": doubles,
    "numeric": st.decimals(allow_nan=True, allow_infinity=True, places=None)
    .filter(lambda d: not d.is_snan() and str(d) != "-NaN" and (not d.is_finite() or abs(d.adjusted()) < 300)),
}  # fmt: skip


@pytest.fixture(scope="module")
def conn(pg_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pg_dsn, autocommit=True) as c:
        c.execute("DROP SCHEMA IF EXISTS hashing CASCADE; CREATE SCHEMA hashing; SET search_path = hashing")
        c.execute("SET timezone = 'Asia/Tokyo'")
        yield c
        c.execute("DROP SCHEMA hashing CASCADE")


def stored(conn: psycopg.Connection[Any], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[int]:
    """The remainder of each row, as the server routes it, asserted to be exactly one."""
    columns = sql.SQL(", ").join(sql.SQL(f"c{i} {t}") for i, t in enumerate(types))  # type: ignore[arg-type]
    names = sql.SQL(", ").join(sql.SQL(f"c{i}") for i in range(len(types)))  # type: ignore[arg-type]
    slots = sql.SQL(", ").join([sql.Placeholder()] * (len(types) + 1))
    with conn.transaction(force_rollback=True), conn.cursor() as cur:
        cur.execute(sql.SQL("CREATE TABLE t (row_no int, {}) PARTITION BY HASH ({})").format(columns, names))
        cur.execute(sql.SQL("CREATE TABLE given (row_no int, {})").format(columns))
        cur.executemany(sql.SQL("INSERT INTO given VALUES ({})").format(slots), [(i, *r) for i, r in enumerate(rows)])
        cur.execute(
            sql.SQL(
                "SELECT row_no, r FROM given, generate_series(0, {m} - 1) AS r "
                "WHERE satisfies_hash_partition('hashing.t'::regclass, {m}, r, {names}) ORDER BY row_no"
            ).format(m=sql.Literal(MODULUS), names=names)
        )
        found = cur.fetchall()
    assert [n for n, _ in found] == list(range(len(rows)))
    return [r for _, r in found]


def check(conn: psycopg.Connection[Any], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    remainders = stored(conn, types, rows)
    one_by_one = [hash_key(types, row) for row in rows]
    assert [h % MODULUS for h in one_by_one] == remainders
    assert hash_rows(types, [list(c) for c in zip(*rows, strict=True)]).tolist() == one_by_one


@pytest.mark.parametrize("type_text", TYPES)
@thorough
@given(data=st.data())
def test_a_column_of_values_hashes_as_on_the_server(
    conn: psycopg.Connection[Any], type_text: str, data: st.DataObject
) -> None:
    values = data.draw(st.lists(TYPES[type_text], min_size=1, max_size=80))
    check(conn, [type_text], [(v,) for v in values])


@thorough
@given(data=st.data())
def test_composite_keys_with_nulls_hash_as_on_the_server(conn: psycopg.Connection[Any], data: st.DataObject) -> None:
    types = data.draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=4))
    row = st.tuples(*(st.none() | TYPES[t] for t in types))
    check(conn, types, data.draw(st.lists(row, min_size=1, max_size=40)))


def test_all_64_bits_are_the_servers(conn: psycopg.Connection[Any]) -> None:
    words = ["x" * n + "é" * (n % 3) for n in range(400)]
    numbers = [n * 0x9E3779B97F4A7C15 % 2**64 - 2**63 for n in range(400)]
    rows = conn.execute(
        "SELECT hashtextextended(w, %(seed)s), hashint8extended(n, %(seed)s) "
        "FROM unnest(%(w)s::text[], %(n)s::bigint[]) WITH ORDINALITY AS u(w, n, i) ORDER BY i",
        {"seed": HASH_PARTITION_SEED, "w": words, "n": numbers},
    ).fetchall()
    for type_text, values, server in (("text", words, [r[0] for r in rows]), ("bigint", numbers, [r[1] for r in rows])):
        combined = [(h + 0x49A0F4DD15E5A8E3) % 2**64 for h in server]
        assert hash_rows([type_text], [values]).tolist() == combined


def test_modifiers_cut_and_round_as_an_assignment_does(conn: psycopg.Connection[Any]) -> None:
    moments = [datetime(2024, 1, 1, 0, 0, 0, us) for us in (0, 499, 500, 501, 1500, 999_999)]
    moments += [m.replace(year=1969) for m in moments]
    check(conn, ["timestamp(3)"], [(m,) for m in moments])
    check(conn, ["timestamp(0) without time zone"], [(m,) for m in moments])
    check(conn, ["time(2)"], [(m.time(),) for m in moments])
    check(conn, ["numeric(6,2)"], [(Decimal(t),) for t in ("1.005", "-1.005", "1.004", "0.004", "9999.994", "12", "0")])
    check(conn, ["numeric(6,-2)"], [(Decimal(t),) for t in ("149", "150", "-150", "49", "12345678")])
    check(conn, ["varchar(3)"], [("ab ",), ("ab     ",), ("é€x   ",)])
    check(conn, ["char"], [("a   ",), ("",), ("b",)])
    check(conn, ["real"], [(0.1,), (1 / 3,), (16777217.0,), (-0.0,)])


def test_text_forms_hash_as_the_values_that_they_name(conn: psycopg.Connection[Any]) -> None:
    forms: dict[str, list[str]] = {
        "bigint": ["5", " -7 ", "+9"],
        "boolean": ["t", "FALSE", "yes", "off", "1"],
        "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}"],
        "date": ["2024-02-29", "1969-12-31"],
        "time": ["04:05:06.789", "23:59"],
        "timestamp": ["2024-02-29", "2024-02-29 04:05", "2024-02-29T04:05:06.789", "2024-02-29 04:05:06+05"],
        "timestamptz": ["2024-02-29 04:05:06+05", "2024-02-29T04:05:06.789Z", "2024-02-29 04:05-03:30"],
        "bytea": ["\\x00ff10"],
        "numeric": ["1.500", "1e10", "NaN", "-Infinity"],
        "double precision": ["1.5", "NaN", "-0", "infinity"],
    }
    for type_text, values in forms.items():
        check(conn, [type_text], [(v,) for v in values])


def test_arrays_hash_as_the_same_values_in_lists(conn: psycopg.Connection[Any]) -> None:
    count = 300
    arrays: list[tuple[str, np.ndarray[Any, Any]]] = [
        ("bigint", np.arange(count) * 10**15 - 10**17),
        ("integer", np.arange(count, dtype=np.uint16)),
        ("boolean", np.arange(count) % 3 == 0),
        ("date", np.datetime64("1999-12-01") + np.arange(count)),
        ("timestamp", np.datetime64("1999-12-31T23:59:59", "us") + np.arange(count) * 12345),
        ("double precision", np.linspace(-1, 1, count)),
        ("real", np.linspace(-1, 1, count)),
        ("text", np.array([f"w{i}" for i in range(count)])),
        ("text", np.array([f"w{i}" for i in range(count)], object)),
        ("uuid", np.array([UUID(int=i**9) for i in range(count)], object)),
    ]
    for type_text, array in arrays:
        hashes = hash_rows([type_text], [array])
        assert hashes.tolist() == hash_rows([type_text], [array.tolist()]).tolist()
        assert [int(h) % MODULUS for h in hashes] == stored(conn, [type_text], [(v,) for v in array.tolist()])


def test_not_a_time_is_null(conn: psycopg.Connection[Any]) -> None:
    days = np.array(["2024-01-01", "NaT"], "M8[D]")
    assert [int(h) % MODULUS for h in hash_rows(["date"], [days])] == stored(
        conn, ["date"], [(date(2024, 1, 1),), (None,)]
    )
    assert hash_key(["date"], [days[1]]) == 0


def test_time_of_day_is_hashed_without_its_date(conn: psycopg.Connection[Any]) -> None:
    check(conn, ["time without time zone", "date"], [(time(1, 2, 3, 4), date(2000, 1, 1)), (time.max, date.min)])
