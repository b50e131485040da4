"""Rows on their way home and back, on every engine."""

from __future__ import annotations

import datetime as dt
import ipaddress
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from pgvector import Vector
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from conftest import apply
from pgherd.errors import BadInput, BadRow, DimensionMismatch, ServerRefused
from pgherd.sync import Herd

REGIONS = """
CREATE TABLESPACE east WITH (replica_placement='{"num_replicas": 1, "placement_blocks":
  [{"cloud": "local", "region": "us-east", "zone": "a", "min_num_replicas": 1}]}');
CREATE TABLESPACE west WITH (replica_placement='{"num_replicas": 1, "placement_blocks":
  [{"cloud": "local", "region": "us-west", "zone": "a", "min_num_replicas": 1}]}');
"""
PATIENT = (
    REGIONS
    + """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE patient (
  id bigint, region text, name text NOT NULL CHECK (name <> 'bad'), mood mood DEFAULT 'happy', data jsonb,
  added int NOT NULL DEFAULT 7, shouted text GENERATED ALWAYS AS (upper(name)) STORED, stay interval, v vector(3),
  PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE patient_east PARTITION OF patient FOR VALUES IN ('east') TABLESPACE east;
CREATE TABLE patient_west PARTITION OF patient FOR VALUES IN ('west') TABLESPACE west;
"""
)
DOC = "CREATE TABLE doc (id bigint PRIMARY KEY, body text, n int, v vector(2));" + (
    "SELECT create_distributed_table('doc', 'id', shard_count => 4)"
)
TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE kind (
  id bigint PRIMARY KEY, a smallint, b int, c real, d double precision, e numeric(12, 3), f text, g varchar(4),
  h char(3), i boolean, j bytea, k uuid, l date, m timestamptz, n timestamp, o time, p interval, q json, r jsonb,
  s mood, t positive, u inet, w int4range, x tstzrange, y int[], z text[], aa mood[], bb bit(4), cc halfvec(2),
  dd sparsevec(5), ee jsonb[], ff varbit(6), gg vector(2), hh macaddr, ii money);
SELECT create_distributed_table('kind', 'id');
"""
UTC = dt.UTC
FULL: dict[str, Any] = {
    "a": 3,
    "b": -4,
    "c": 0.5,
    "d": 1e-7,
    "e": Decimal("12.345"),
    "f": 'text \\ "with" \t all {braces}, %s',
    "g": "four",
    "h": "abc",
    "i": True,
    "j": b"\x00\xff",
    "k": UUID(int=7),
    "l": dt.date(2024, 2, 29),
    "m": dt.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "n": dt.datetime(2024, 1, 2, 3, 4, 5),
    "o": dt.time(23, 59, 59),
    "p": dt.timedelta(days=3, seconds=4),
    "q": {"a": [1, {"b": None}]},
    "r": ["x", 1.5, True],
    "s": "sad",
    "t": 5,
    "u": ipaddress.ip_address("10.0.0.1"),
    "w": Range(1, 5),
    "x": Range(dt.datetime(2024, 1, 1, tzinfo=UTC), None),
    "y": [1, None, 3],
    "z": ["a,b", 'c"d', "{e}", None],
    "aa": ["happy", "sad"],
    "bb": "0110",
    "cc": [1.5, -2],
    "dd": "{1:1.5,5:2}/5",
    "ee": [Jsonb({"a": 1}), None],
    "ff": "101",
    "gg": [1, 2],
    "hh": "08:00:2b:01:02:03",
    "ii": "12.30",
}


def row(i: int, region: str = "east", **more: Any) -> dict[str, Any]:
    return {"id": i, "region": region, "name": f"n{i}", "v": [i, 1, 0], **more}


def count(herd: Herd, table: str) -> int:
    found = herd.sql(f"SELECT count(*) AS n FROM {table}")
    return int(found[0]["n"])


def plain(found: dict[str, Any] | None) -> dict[str, Any]:
    """A row read back, vectors as lists."""
    assert found is not None
    return {k: v.to_list() if isinstance(v, Vector) else v for k, v in found.items()}


@pytest.mark.parametrize("how", ["insert", "upsert"])
def test_every_type_comes_back_as_it_went(herd: Herd, how: str) -> None:
    apply(herd, TYPES)
    write = getattr(herd.table("kind"), how)
    assert write([{"id": i, **FULL} for i in range(5)]) == 5
    assert write([{"id": 10 + i, **dict.fromkeys(FULL)} for i in range(2)]) == 2
    want = """SELECT a = 3, b = -4, c = 0.5, d = 1e-7, e = 12.345, f = %(f)s, g = 'four', h = 'abc', i,
      j = '\\x00ff', k = %(k)s, l = '2024-02-29', m = '2024-01-02 03:04:05.678901+00', n = '2024-01-02 03:04:05',
      o = '23:59:59', p = '3 days 4 seconds', q::jsonb = '{"a": [1, {"b": null}]}', r = '["x", 1.5, true]', s = 'sad',
      t = 5, u = '10.0.0.1', w = '[1,5)', x = '[2024-01-01 00:00+00,)', y = '{1,NULL,3}', z = %(z)s::text[],
      aa = '{happy,sad}', bb = B'0110', cc = '[1.5,-2]', dd = '{1:1.5,5:2}/5', ee = ARRAY['{"a": 1}', NULL]::jsonb[],
      ff = B'101', gg = '[1,2]', hh = '08:00:2b:01:02:03', ii = 12.30::money FROM kind WHERE id = 3"""
    same = herd.sql(want, {"f": FULL["f"], "k": FULL["k"], "z": FULL["z"]})
    assert [list(r.values()) for r in same] == [[True]] or all(same[0].values()), same
    empty = herd.table("kind").get(11)
    assert empty is not None
    assert set(empty.values()) == {11, None}


def test_search_and_get_read_every_type_alike(herd: Herd) -> None:
    apply(herd, TYPES)
    table = herd.table("kind")
    table.insert({"id": 1, **FULL})
    columns = [c.name for c in table.definition.columns if not c.vector]
    hit = table.search([1, 2], k=1, column="gg", columns=columns)[0]
    got = table.get(1)
    assert got is not None
    assert hit.row == {c: got[c] for c in columns}


def test_arrow_pandas_and_polars_tables(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    arrow = pa.table(
        {
            "id": pa.array(range(6), pa.int64()),
            "body": pa.array(["a", None, "c", "d", "e", "f"]),
            "n": pa.array([1, 2, None, 4, 5, 6], pa.int32()),
            "v": pa.array(vectors.tolist(), pa.list_(pa.float32(), 2)),
        }
    )
    assert table.upsert(arrow) == 6
    whole = herd.sql("SELECT id, body, n, v::text FROM doc ORDER BY id")
    assert whole[1] == {"id": 1, "body": None, "n": 2, "v": "[2,3]"}
    assert whole[2]["n"] is None
    frame = pd.DataFrame({"id": range(6), "body": ["a", None, "c", "d", "e", "f"], "v": list(vectors)})
    frame["n"] = pd.array([1, 2, None, 4, 5, 6], "Int64")
    for rows in (frame, pl.from_arrow(arrow)):
        herd.sql("DELETE FROM doc")
        assert table.insert(rows) == 6
        assert herd.sql("SELECT id, body, n, v::text FROM doc ORDER BY id") == whole


def test_numpy_arrays_and_scalars(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")
    rows = [{"id": np.int64(i), "n": np.int32(i), "body": np.str_("x"), "v": np.ones(2)} for i in range(4)]
    assert table.upsert(rows) == 4
    assert table.insert({"id": 9, "v": np.float16([1, 2])}) == 1
    assert herd.sql("SELECT sum(n) AS n FROM doc") == [{"n": 6}]
    assert [h.row["id"] for h in table.search(np.array([1, 2]), k=1, metric="l2")] == [9]


def test_rows_of_different_columns_in_one_batch(herd: Herd) -> None:
    apply(herd, PATIENT)
    table = herd.table("patient")
    rows = [row(1), row(2, added=9), {"id": 3, "region": "west", "name": "c"}, row(4, mood="sad", data={"k": [1]})]
    assert table.upsert(rows) == 4
    found = herd.sql("SELECT id, added, mood, data, shouted FROM patient ORDER BY id")
    assert found == [
        {"id": 1, "added": 7, "mood": "happy", "data": None, "shouted": "N1"},
        {"id": 2, "added": 9, "mood": "happy", "data": None, "shouted": "N2"},
        {"id": 3, "added": 7, "mood": "happy", "data": None, "shouted": "C"},
        {"id": 4, "added": 7, "mood": "sad", "data": {"k": [1]}, "shouted": "N4"},
    ]
    assert table.upsert({"id": 4, "region": "east", "name": "d"}) == 1
    assert plain(table.get(("east", 4)))["data"] == {"k": [1]}, "a column that is left out keeps its value"


def test_no_rows_are_no_work(herd: Herd) -> None:
    apply(herd, DOC)
    assert herd.table("doc").upsert([]) == herd.table("doc").insert([]) == 0


def test_of_rows_with_one_key_in_a_batch_the_last_wins(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")
    assert table.upsert([{"id": i % 3, "n": i} for i in range(10)]) == 3
    assert herd.sql("SELECT id, n FROM doc ORDER BY id") == [{"id": 0, "n": 9}, {"id": 1, "n": 7}, {"id": 2, "n": 8}]
    with pytest.raises(ServerRefused, match="duplicate key"):
        table.insert([{"id": 5}, {"id": 5}])
    assert table.get(5) is None


@pytest.mark.parametrize("how", ["insert", "upsert"])
def test_one_bad_row_anywhere_and_nothing_is_written(herd: Herd, how: str) -> None:
    apply(herd, PATIENT)
    write = getattr(herd.table("patient"), how)
    good = [row(i, "east") for i in range(5)] + [row(i, "west") for i in range(5)]
    for bad, error in (
        (row(9, "west", name="bad"), ServerRefused),
        (row(9, "west", name=None), ServerRefused),
        (row(9, "mars"), BadRow),
        (row(9, "west", v=[1, 2]), DimensionMismatch),
        (row(9, "west", v=[1, 2, float("nan")]), BadRow),
        ({"id": 9, "name": "x"}, BadRow),
        (row(9, nam="x"), BadRow),
        (row(9, shouted="X"), BadRow),
    ):
        with pytest.raises(error):
            write([*good, bad])
        assert count(herd, "patient") == 0, bad


def test_without_atomic_each_group_commits_by_itself(fleet: Herd) -> None:
    apply(fleet, PATIENT)
    with pytest.raises(ServerRefused):
        fleet.table("patient").insert([row(1), row(2), row(3, "west", name="bad")], atomic=False)
    assert count(fleet, "patient") in (0, 2), "a group's rows are still all there or none"
    assert fleet.table("patient").upsert([row(i, r) for i in range(3) for r in ("east", "west")], atomic=False) == 6
    assert count(fleet, "patient") == 6


def test_what_is_wrong_with_a_row_is_said(herd: Herd) -> None:
    apply(herd, PATIENT)
    table = herd.table("patient")
    with pytest.raises(BadRow, match="partition column region is missing") as caught:
        table.insert({"id": 1, "name": "x"})
    assert "give region" in caught.value.hint
    with pytest.raises(BadRow, match="primary key column 'region' of patient is missing"):
        table.upsert({"id": 1, "name": "x"})
    with pytest.raises(BadRow, match="no partition takes 'mars'; there are partitions for 'east', 'west'"):
        table.insert(row(1, "mars"))
    with pytest.raises(DimensionMismatch, match="'v' has 2 dimensions, the column 3") as caught:
        table.insert(row(1, v=[1, 2]))
    assert "model" in caught.value.hint
    with pytest.raises(BadRow, match="row 1: 'v' holds NaN or infinity"):
        table.insert([row(1), row(2, v=[1, float("inf"), 2])])
    with pytest.raises(BadRow, match="not a vector"):
        table.insert(row(1, v="three"))
    with pytest.raises(BadInput, match="rows can't be read from int"):
        table.insert(3)
    with pytest.raises(BadInput, match="row 1 is list, not a dict"):
        table.insert([row(1), [1]])


def test_texts_longer_than_their_column_are_refused_not_cut(herd: Herd) -> None:
    apply(herd, TYPES)
    table = herd.table("kind")
    table.upsert({"id": 1, "g": "four", "bb": "0110"})
    for change in ({"g": "fivex"}, {"h": "four"}, {"bb": "01101"}, {"e": Decimal("1e10")}, {"t": -1}):
        with pytest.raises(ServerRefused):
            table.upsert({"id": 1, **change})
        with pytest.raises(ServerRefused):
            table.update({"id": 1}, change)
    assert herd.sql("SELECT id FROM kind WHERE g = 'four' AND bb = B'0110'") == [{"id": 1}]
    assert table.delete({"g": ["fourteen"]}) == 0


def test_values_of_several_types_in_one_column(herd: Herd) -> None:
    apply(herd, TYPES)
    values = [1, 2.5, Decimal("3.25"), "4"]
    assert herd.table("kind").upsert([{"id": i, "d": v, "e": v} for i, v in enumerate(values)]) == 4
    assert herd.sql("SELECT d FROM kind ORDER BY id") == [{"d": 1}, {"d": 2.5}, {"d": 3.25}, {"d": 4}]


def test_identity_and_defaults(herd: Herd) -> None:
    apply(
        herd,
        "CREATE TABLE note (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, body text, at timestamptz NOT NULL"
        " DEFAULT now()); SELECT create_distributed_table('note', 'id', shard_count => 4)",
    )
    table = herd.table("note")
    assert table.insert([{"body": f"b{i}"} for i in range(20)]) == 20
    assert table.upsert({"body": "more"}) == 1
    ids = [r["id"] for r in herd.sql("SELECT id FROM note WHERE at IS NOT NULL")]
    assert len(set(ids)) == 21
    assert all(table.get(i) for i in ids[:5]), "each is where its id says"


def test_update_and_delete_by_dict_and_by_sql(herd: Herd) -> None:
    apply(herd, PATIENT)
    table = herd.table("patient")
    table.upsert([row(i, r, data={"i": i}) for i in range(6) for r in ("east", "west")])
    assert table.update({"region": "east", "id": [1, 2]}, {"name": "x", "mood": "sad", "data": {"new": [1]}}) == 2
    assert table.update("patient.id > %(n)s AND name NOT LIKE '%x'", {"v": [9, 9, 9], "name": "y"}, {"n": 3}) == 4
    assert table.update("data @> '{\"i\": 3}'", {"data": None, "v": None}) == 2
    assert table.update({"region": "mars"}, {"name": "z"}) == 0
    found = herd.sql(
        "SELECT count(*) FILTER (WHERE shouted = 'X') AS x, count(*) FILTER (WHERE v IS NULL) AS v,"
        " count(*) FILTER (WHERE v = '[9,9,9]') AS nine FROM patient"
    )
    assert found == [{"x": 2, "v": 2, "nine": 4}]
    assert table.delete({"region": "west", "id": 0}) == 1
    assert table.delete("id = 5 -- all of them") == 2
    assert table.delete("region = 'east'") == 5
    assert table.delete("true") == 4
    assert count(herd, "patient") == 0


def test_a_bad_change_is_refused(herd: Herd) -> None:
    apply(herd, PATIENT)
    table = herd.table("patient")
    for changes, message in (
        ({}, "changes nothing"),
        ({"nam": 1}, "no column 'nam'"),
        ({"shouted": "X"}, "generated"),
        ({"v": [1]}, "1 dimensions"),
    ):
        with pytest.raises(BadInput, match=message):
            table.update({"id": 1}, changes)


def test_a_changed_partition_key_moves_the_row_whole(herd: Herd) -> None:
    apply(herd, PATIENT)
    table = herd.table("patient")
    exact = {"deep": {"number": 1}, "list": [None, "ü"]}
    table.insert([row(1, data=exact, mood=None, added=3, v=[0.1, 1e-7, 3]), row(2, data=None, v=None), row(3)])
    herd.sql("UPDATE patient SET stay = '1 mon 2 days', data = '{\"n\": 0.10000000000000000000000001}' WHERE id = 1")
    before = herd.sql("SELECT id, name, mood, data::text, added, shouted, stay::text, v::text FROM patient ORDER BY id")
    assert table.update({"id": [1, 2]}, {"region": "west"}) == 2
    assert herd.sql("SELECT region FROM patient ORDER BY id") == [{"region": r} for r in ("west", "west", "east")]
    assert before == herd.sql(
        "SELECT id, name, mood, data::text, added, shouted, stay::text, v::text FROM patient ORDER BY id"
    )
    assert plain(table.get(("west", 1)))["shouted"] == "N1"
    assert table.get(("east", 1)) is None
    assert table.update({"id": 3}, {"region": "west", "name": "new", "v": [1, 2, 3], "data": {"a": 1}}) == 1
    moved = plain(table.get(("west", 3)))
    assert (moved["shouted"], moved["v"], moved["data"]) == ("NEW", [1, 2, 3], {"a": 1})
    with pytest.raises(BadRow, match="no partition takes 'mars'"):
        table.update({"id": 3}, {"region": "mars"})
    with pytest.raises(ServerRefused, match="duplicate key"):
        table.update({"region": "west"}, {"region": "west", "id": 1})
    assert count(herd, "patient") == 3


def test_a_hash_key_can_change_too(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")
    table.insert([{"id": i, "n": i} for i in range(8)])
    assert table.update({"id": 3}, {"id": 103}) == 1
    assert plain(table.get(103))["n"] == 3
    assert table.get(3) is None


def test_only_the_shards_that_match_are_touched(herd: Herd) -> None:
    apply(herd, PATIENT)
    table = herd.table("patient")
    table.insert([row(1), row(1, "west")])
    # A division by zero happens in whichever shard is looked at.
    with pytest.raises(ServerRefused, match="division by zero"):
        table.delete("id = 1 AND 1 / (length(region) - 4) = 1")
    herd.sql("DELETE FROM patient WHERE region = 'west'")
    table.insert(row(2, "west", name="zero"))
    for where in ({"region": "east"}, "region = 'east'", "region IN ('east')"):
        assert table.update(where, {"added": 1}) == 1
    assert herd.sql("SELECT sum(added) AS s FROM patient") == [{"s": 8}]


def test_get_takes_a_value_a_tuple_or_a_dict(herd: Herd) -> None:
    apply(herd, PATIENT + "CREATE TABLE plain (id int PRIMARY KEY, b text); CREATE TABLE heap (b text);")
    table = herd.table("patient")
    table.insert([row(1), row(1, "west", name="w")])
    assert plain(table.get(("west", 1)))["name"] == "w"
    assert plain(table.get({"id": 1, "region": "east"}))["name"] == "n1"
    assert table.get(("west", 2)) is None
    for key in ("west", ("west",), ("west", 1, 2), {"id": 1}):
        with pytest.raises(BadInput, match=r"key of patient is \(region, id\)"):
            table.get(key)
    assert herd.table("plain").get(1) is None
    with pytest.raises(BadInput, match="no primary key"):
        herd.table("heap").get(1)
    with pytest.raises(BadInput, match="no primary key"):
        herd.table("heap").upsert({"b": "x"})
    assert herd.table("heap").insert([{"b": "x"}] * 3) == 3


ODD = '"Odd %s {} ""Table"'


def test_names_that_need_quoting(herd: Herd) -> None:
    columns = '"Id %(x)s" bigint PRIMARY KEY, "select" text, "a b" vector(2)'
    key = "'\"Id %(x)s\"'"
    apply(herd, f"CREATE TABLE {ODD} ({columns}); SELECT create_distributed_table('{ODD}', {key});")
    table = herd.table(ODD)
    assert table.upsert([{"Id %(x)s": i, "select": f"s{i}", "a b": [i, 1]} for i in range(4)]) == 4
    assert table.update({"Id %(x)s": 2}, {"select": "%s {}"}) == 1
    assert table.update({"select": "s3"}, {"Id %(x)s": 33}) == 1
    assert plain(table.get(2))["select"] == "%s {}"
    hits = table.search([9, 1], k=4, where={"select": ["s3", "s1"]}, metric="l2")
    assert [h.row["Id %(x)s"] for h in hits] == [33, 1]
    page = table.search([9, 1], k=1, metric="l2").next
    assert [h.row["Id %(x)s"] for h in table.search([9, 1], k=1, metric="l2", after=page)] == [2]
    assert table.delete('"Id %(x)s" IN (0, 1)') == 2


def test_reference_tables_are_the_same_everywhere(fleet: Herd) -> None:
    apply(
        fleet,
        "CREATE TABLE country (code text PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(),"
        " r float DEFAULT random(), stay interval, tags text[], data jsonb); SELECT create_reference_table('country')",
    )
    table = fleet.table("country")
    rows = [{"code": c, "tags": ["a", c], "data": {"c": c}} for c in ("fr", "it", "fr")]
    assert table.upsert(rows) == 2
    assert table.insert({"code": "de"}) == 1
    fleet.sql("UPDATE country SET stay = %s WHERE code = 'de'", ["1 mon"])
    assert table.upsert({"code": "de", "data": {"n": 1}}) == 1
    assert table.update({"code": "it"}, {"tags": []}) == 1
    assert table.delete("code = 'fr'") == 1
    copies = [
        fleet.sql("SELECT code, at::text, r::text, stay::text, tags, data FROM country ORDER BY 1", region=g.name)
        for g in fleet.topology.groups
    ]
    assert copies[0] == copies[1] == copies[2]
    assert [r["code"] for r in copies[0]] == ["de", "it"]
    assert copies[0][0]["stay"] == "1 mon"


def test_sql_takes_both_styles_of_parameters_and_any_region(herd: Herd) -> None:
    apply(herd, DOC)
    assert herd.sql("SELECT %s::int + %s::int AS n, '100%%' AS p", [1, 2]) == [{"n": 3, "p": "100%"}]
    assert herd.sql("SELECT %(a)s::text AS t", {"a": "x"}) == [{"t": "x"}]
    assert herd.sql("SELECT '100%' AS p") == [{"p": "100%"}]
    assert herd.sql("CREATE TEMP TABLE t (a int)") == []
    for group in herd.topology.groups:
        assert herd.sql("SELECT count(*) AS n FROM doc", region=group.primary.label.region) == [{"n": 0}]
    with pytest.raises(BadInput, match="no region 'mars'") as caught:
        herd.sql("SELECT 1", region="mars")
    assert herd.topology.groups[0].primary.label.region in caught.value.hint
    with pytest.raises(ServerRefused, match="42P01") as refused:
        herd.sql("SELECT * FROM nowhere")
    assert isinstance(refused.value.__cause__, psycopg.errors.UndefinedTable)


def test_a_transaction_left_open_by_sql_is_not_found_by_the_next(herd: Herd) -> None:
    apply(herd, DOC)
    herd.sql("BEGIN")
    herd.table("doc").insert({"id": 1})
    assert herd.sql("SELECT count(*) AS n, now() = statement_timestamp() AS fresh FROM doc") == [
        {"n": 1, "fresh": True}
    ]


def test_errors_do_not_show_other_values(herd: Herd) -> None:
    apply(herd, PATIENT)
    table = herd.table("patient")
    table.insert(row(1))
    with pytest.raises(ServerRefused) as caught:
        table.insert(row(1, data={"password": "hunter2"}))
    with pytest.raises(ServerRefused) as second:
        table.insert(row(2, name="bad", data={"password": "hunter2"}))
    for error in (caught.value, second.value):
        assert "hunter2" not in str(error) + error.hint
        assert isinstance(error.__cause__, psycopg.Error)


@pytest.mark.long
def test_a_server_that_takes_nothing_for_seconds_is_waited_for(single: Herd) -> None:
    apply(single, "CREATE TABLE slow (id bigint PRIMARY KEY, v vector(256));")
    single.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF NEW.id = 100 THEN PERFORM pg_sleep(9); END IF; RETURN NEW; END$$"
    )
    single.sql("CREATE TRIGGER wait BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION wait()")
    rows = [{"id": i, "v": v} for i, v in enumerate(np.random.default_rng(0).random((20_000, 256), np.float32))]
    assert single.table("slow").insert(rows) == 20_000
