from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgherd.errors import BadInput, BadRow, UnknownName
from pgherd.model.names import Name
from pgherd.model.schema import Bound, HashBound, ListBound, PartitionBy, Strategy
from pgherd.model.topology import GroupId, Level, Shard, ShardId
from pgherd.routing.hashing import hash_key, hash_rows
from pgherd.routing.route import Router
from pgherd.routing.types import SqlType, canonical_type

BY_REGION = PartitionBy(Strategy.LIST, ("region",))
BY_ID = PartitionBy(Strategy.HASH, ("id",))
TYPES = {"region": "text", "id": "bigint", "body": "text"}


def shard(name: str, *path: tuple[PartitionBy, Bound]) -> Shard:
    table = Name("public", "visit")
    return Shard(ShardId(name), table, Name("public", name), GroupId("g1"), tuple(Level(by, b) for by, b in path))


def hashed(modulus: int, prefix: str = "h", *above: tuple[PartitionBy, Bound]) -> list[Shard]:
    return [shard(f"{prefix}{r}", *above, (BY_ID, HashBound(modulus, r))) for r in range(modulus)]


def listed(**bounds: ListBound) -> list[Shard]:
    return [shard(name, (BY_REGION, bound)) for name, bound in bounds.items()]


def nested() -> Router:
    us = hashed(4, "us", (BY_REGION, ListBound(("New York", "Boston"))))
    eu = [shard("eu", (BY_REGION, ListBound(("Paris",))))]
    other = [shard("other", (BY_REGION, ListBound(default=True)))]
    return Router([*us, *eu, *other], TYPES)


def names(shards: Iterable[Shard]) -> list[str]:
    return [s.name for s in shards]


def test_a_table_of_one_piece_takes_every_row() -> None:
    whole = shard("visit")
    router = Router([whole], {})
    assert router.route({}) is whole
    [(taker, rows)] = router.route_many({"id": [1, 2, 3]})
    assert taker is whole
    assert rows.tolist() == [0, 1, 2]
    assert router.prune({"id": [1]}) == [whole]


def test_list_then_hash() -> None:
    router = nested()
    for number in range(50):
        remainder = hash_key(["bigint"], [number]) % 4
        assert router.route({"region": "Boston", "id": number}).name == f"us{remainder}"
    assert router.route({"region": "Paris"}).name == "eu"
    assert router.route({"region": "Lima", "id": 1}).name == "other"
    assert router.route({"region": None}).name == "other"


rows = st.lists(
    st.tuples(
        st.none() | st.sampled_from(["Boston", "Paris", "Lima", ""]), st.none() | st.integers(-(2**63), 2**63 - 1)
    )
)


@given(rows)
def test_many_rows_go_where_each_would_go(given_rows: list[tuple[str | None, int | None]]) -> None:
    router = nested()
    columns = {"region": [r for r, _ in given_rows], "id": [i for _, i in given_rows]}
    many = {int(row): s.name for s, taken in router.route_many(columns) for row in taken}
    assert many == {n: router.route({"region": r, "id": i}).name for n, (r, i) in enumerate(given_rows)}
    assert all((np.diff(taken) > 0).all() and len(taken) for _, taken in router.route_many(columns))


@given(rows)
def test_pruning_never_leaves_out_the_shard_of_a_row(given_rows: list[tuple[str | None, int | None]]) -> None:
    router = nested()
    for region, number in given_rows:
        home = router.route({"region": region, "id": number})
        assert home in router.prune({"region": [region]})
        assert home in router.prune({"id": ["not a number", number]})
        assert home in router.prune({"region": ["Paris", region], "id": [7, number]})


def test_pruning_leaves_out_what_cannot_match() -> None:
    router = nested()
    assert names(router.prune({"region": ["Paris"]})) == ["eu"]
    assert names(router.prune({"region": ["Paris", "Lima"]})) == ["eu", "other"]
    assert names(router.prune({"region": [None]})) == ["other"]
    assert names(router.prune({"region": []})) == []
    assert len(router.prune({"region": ["Boston"], "id": [5]})) == 1
    assert names(router.prune({"region": ["Boston"], "id": range(500)})) == ["us0", "us1", "us2", "us3"]
    assert len(router.prune({"id": [5]})) == 3
    assert len(router.prune({})) == len(router.prune({"body": ["x"]})) == 6


def test_a_composite_hash_is_pruned_only_when_every_column_is_constrained() -> None:
    by = PartitionBy(Strategy.HASH, ("id", "region"))
    router = Router([shard(f"h{r}", (by, HashBound(8, r))) for r in range(8)], TYPES)
    assert len(router.prune({"id": [1]})) == 8
    [found] = router.prune({"id": [1], "region": ["x"]})
    assert found == router.route({"id": 1, "region": "x"})
    assert len(router.prune({"id": range(100), "region": [str(i) for i in range(100)]})) == 8


def test_values_in_a_comparison_are_not_cut_to_the_column() -> None:
    router = Router(listed(ab=ListBound(("ab",)), rest=ListBound(default=True)), {"region": "varchar(2)"})
    assert router.route({"region": "ab  "}).name == "ab"  # stored without the blanks
    assert names(router.prune({"region": ["ab  "]})) == ["rest"]
    small = Router(listed(one=ListBound(("1",))), {"region": "smallint"})
    assert names(small.prune({"region": [70000]})) == []
    assert names(small.prune({"region": [1.5]})) == ["one"]  # the server's to judge


def test_a_text_is_no_sequence_of_values() -> None:
    with pytest.raises(BadInput, match="not one text"):
        nested().prune({"region": "Paris"})


@pytest.mark.parametrize(
    ("type_text", "bound", "values"),
    [
        ("integer", "5", [5, "5", 5.0, Decimal(5), np.int16(5)]),
        ("boolean", "true", [True, "t", "TRUE", np.bool_(True)]),
        ("date", "2024-02-29", [date(2024, 2, 29), "2024-02-29", np.datetime64("2024-02-29")]),
        (
            "uuid",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            [UUID("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"), "A0EEBC999C0B4EF8BB6D6BB9BD380A11"],
        ),
        ("timestamptz", "2024-01-01 09:00:00+09", [datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00Z"]),
        ("numeric(6,2)", "1.50", [Decimal("1.5"), "1.500"]),
        ("numeric", "NaN", [Decimal("NaN"), "nan"]),
        ("char(4)", "ab  ", ["ab", "ab "]),
        ("double precision", "-0", [0.0, -0.0, 0]),
        ("mood", "happy", ["happy", np.str_("happy")]),
    ],
)
def test_list_bounds_are_compared_as_the_columns_type_compares(type_text: str, bound: str, values: list[Any]) -> None:
    router = Router(listed(it=ListBound((bound,)), rest=ListBound(default=True)), {"region": type_text})
    for value in values:
        assert router.route({"region": value}).name == "it"
        assert [(s.name, len(r)) for s, r in router.route_many({"region": [value, value]})] == [("it", 2)]
        assert names(router.prune({"region": [value]}))[0] == "it"


def test_arrays_of_times_with_gaps_are_routed() -> None:
    shards = listed(day=ListBound(("2024-02-29",)), gap=ListBound((None,)))
    for unit in ("D", "s", "us", "ns"):
        days = np.array(["2024-02-29", "NaT"], f"M8[{unit}]")
        found = Router(shards, {"region": "date"}).route_many({"region": days})
        assert [(s.name, r.tolist()) for s, r in found] == [("day", [0]), ("gap", [1])]


def test_an_unknown_types_text_may_be_equal_to_another() -> None:
    router = Router(listed(a=ListBound(("10.0.0.1",)), rest=ListBound(default=True)), {"region": "inet"})
    assert names(router.prune({"region": ["10.0.0.1"]})) == ["a"]
    assert names(router.prune({"region": ["10.0.0.1/32"]})) == ["a", "rest"]


def test_no_partition_says_which_there_are() -> None:
    router = Router(listed(us=ListBound(("Boston", "New York")), eu=ListBound(("Paris",))), TYPES)
    with pytest.raises(BadRow) as e:
        router.route({"region": "Lima"})
    assert e.value.message == (
        "table visit, column region: no partition takes 'Lima'; there are partitions for 'Boston', 'New York', 'Paris'"
    )
    assert "FOR VALUES IN ('Lima')" in e.value.hint
    with pytest.raises(BadRow, match="row 2: no partition takes NULL"):
        router.route_many({"region": ["Paris", "Boston", None]})


def test_a_missing_remainder_is_named() -> None:
    router = Router([s for s in hashed(4) if s.name != f"h{hash_key(['bigint'], [1]) % 4}"], TYPES)
    with pytest.raises(BadRow, match="no partition takes remainder"):
        router.route({"id": 1})
    with pytest.raises(BadRow, match="row 1: no partition takes remainder"):
        router.route_many({"id": [None if hash_key(["bigint"], [1]) % 4 else 3, 1]})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BadRow, match="table visit: partition column region is missing") as e:
        nested().route({"id": 1})
    assert "None for NULL" in e.value.hint
    with pytest.raises(BadRow, match="partition column id is missing"):
        nested().route_many({"region": ["Paris", "Boston"]})
    with pytest.raises(BadRow, match="partition column region is missing"):
        nested().route_many({})
    assert [s.name for s, _ in nested().route_many({"region": ["Paris"]})] == ["eu"]


@pytest.mark.parametrize(
    ("type_text", "value", "says"),
    [
        ("bigint", 2**63, "out of range for bigint"),
        ("smallint", 40000, "out of range for smallint"),
        ("bigint", "five", "'five' is not a bigint"),
        ("bigint", 1.5, "1.5 is not a bigint"),
        ("bigint", True, "True is not a bigint"),
        ("bigint", float("nan"), "nan is not a bigint"),
        ("timestamptz", datetime(2024, 1, 1), "depends on the session's time zone"),
        ("timestamp", datetime(2024, 1, 1, tzinfo=UTC), "depends on the session's time zone"),
        ("date", datetime(2024, 1, 1, tzinfo=UTC), "depends on the session's time zone"),
        ("date", "infinity", "'infinity' is not a date"),
        ("timestamp", np.datetime64("2024-01-01T00:00:00.000000001"), "is not a timestamp"),
        ("uuid", 5, "5 is not a uuid"),
        ("uuid", "g" * 32, "is not a uuid"),
        ("text", b"x", "b'x' is not a text"),
        ("text", "a\0b", "holds a NUL character"),
        ("text", "\ud800", "is not a text"),
        ("varchar(3)", "abcd", "too long for varchar"),
        ("numeric", 0.1, "0.1 is not a numeric"),
        ("numeric(3,1)", "100", "out of range for numeric"),
        ("real", 1e300, "out of range for real"),
        ("boolean", 1, "1 is not a boolean"),
    ],
)
def test_a_value_that_does_not_fit_is_named(type_text: str, value: Any, says: str) -> None:
    router = Router(hashed(3), {"id": type_text})
    with pytest.raises(BadRow, match="table visit, column id: ") as e:
        router.route({"id": value})
    assert says in e.value.message
    assert e.value.hint
    with pytest.raises(BadRow, match="table visit, column id, row 1: ") as e:
        router.route_many({"id": [None, value]})
    assert says in e.value.message
    assert len(router.prune({"id": [value]})) >= 1


@pytest.mark.parametrize(("type_text", "hint"), [("mood", "enum"), ("jsonb", "built-in"), ("citext", "built-in")])
def test_a_hash_that_differs_from_server_to_server_is_refused(type_text: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"hash of type {type_text}") as e:
        Router(hashed(3), {"id": type_text})
    assert hint in e.value.hint


def test_citext_cannot_be_compared_here() -> None:
    with pytest.raises(BadInput, match="collation"):
        Router(listed(a=ListBound(("a",))), {"region": "citext"})


def test_a_router_needs_shards_and_the_types_of_its_keys() -> None:
    with pytest.raises(BadInput, match="without shards"):
        Router([], TYPES)
    with pytest.raises(UnknownName, match="partitioned by id"):
        Router(hashed(2), {"region": "text"})
    with pytest.raises(BadInput, match="form a tree"):
        Router([shard("visit"), *hashed(2)], TYPES)
    with pytest.raises(BadInput, match="different lengths"):
        nested().route_many({"region": ["Paris"], "id": [1, 2]})
    with pytest.raises(BadInput, match="partition bound of column region"):
        Router(listed(a=ListBound(("a",))), {"region": "bigint"})


def test_moduli_may_differ() -> None:
    shards = [
        shard("even", (BY_ID, HashBound(2, 0))),
        shard("one", (BY_ID, HashBound(4, 1))),
        shard("three", (BY_ID, HashBound(4, 3))),
    ]
    router = Router(shards, TYPES)
    for number in range(40):
        assert router.route({"id": number}).name == ("even", "one", "even", "three")[hash_key(["bigint"], [number]) % 4]


def test_integers_hash_alike_at_every_width() -> None:
    values = [-1, 0, 1, -(2**15), 2**15 - 1]
    assert len({tuple(hash_rows([t], [values]).tolist()) for t in ("smallint", "int4", "bigint")}) == 1


def test_columns_of_different_lengths_are_not_keys() -> None:
    with pytest.raises(BadInput, match="one length"):
        hash_rows(["bigint", "text"], [[1, 2], ["a"]])


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("int8", SqlType("bigint")),
        ("pg_catalog.int4", SqlType("integer")),
        ("INT", SqlType("integer")),
        ("character varying(20)", SqlType("varchar", (20,))),
        ("varchar", SqlType("varchar")),
        ("char", SqlType("bpchar", (1,))),
        ("bpchar", SqlType("bpchar")),
        ("character (3)", SqlType("bpchar", (3,))),
        ("timestamp with time zone", SqlType("timestamptz")),
        ("timestamp(3) with time zone", SqlType("timestamptz", (3,))),
        ("timestamp  without  time zone", SqlType("timestamp")),
        ("timestamptz(0)", SqlType("timestamptz", (0,))),
        ("time(3)", SqlType("time", (3,))),
        ("double precision", SqlType("double precision")),
        ("float(24)", SqlType("real")),
        ("float", SqlType("double precision")),
        ("decimal(10,-2)", SqlType("numeric", (10, -2))),
        ("bigint[]", SqlType("bigint[]")),
        ('"char"', SqlType('"char"')),
        ('app."Mood"', SqlType('app."Mood"')),
        ("time with time zone", SqlType("time with time zone")),
        ("interval day to second", SqlType("interval day to second")),
        ("vector(256)", SqlType("vector(256)")),
    ],
)
def test_type_names(text: str, canonical: SqlType) -> None:
    assert canonical_type(text) == canonical


def test_where_a_row_lives_settles_a_condition() -> None:
    """A condition that every row of the pruned shards meets needs no filter; anything unsure keeps it."""
    by = PartitionBy(Strategy.LIST, ("place",))
    shards = [
        Shard(ShardId(n), Name("public", "t"), Name("public", n), GroupId("g"), (Level(by, bound),))
        for n, bound in (
            ("a", ListBound(("New York", "Boston"))),
            ("b", ListBound(("Chicago",))),
            ("rest", ListBound(default=True)),
        )
    ]
    router = Router(shards, {"place": "text", "id": "bigint"})
    assert router.implies({"place": ["Chicago"]})
    assert router.implies({"place": ["Boston", "New York", "Chicago"]})
    assert not router.implies({"place": ["Boston"]})
    assert not router.implies({"place": ["Chicago", "Rome"]}), "the default shard has other rows too"
    assert not router.implies({"place": ["Chicago"], "id": [1]})
    assert not router.implies({"place": [None]})
