from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pglast import parse_sql

from pgherd import dialect
from pgherd.errors import BadInput
from pgherd.rows.where import condition_of

SCHEMA = dialect.parse(
    """
    CREATE TABLE patient (id bigint, region text, code varchar(3), born date, note text, "odd %s" int, key uuid);
    """
)
TABLE = SCHEMA.tables[0]


def equal(where: Mapping[str, Any] | str, **params: Any) -> dict[str, list[Any]]:
    condition = condition_of(where, params if isinstance(where, str) else None, TABLE)
    return {k: list(v) for k, v in condition.equal.items()}


def text(where: Mapping[str, Any] | str, params: Mapping[str, Any] | None = None) -> str:
    return condition_of(where, params, TABLE).text


def test_no_condition_is_true() -> None:
    for where in (None, {}):
        condition = condition_of(where, None, TABLE)
        assert condition.trivial
        assert condition.text == "true"


def test_a_dict_means_equality_membership_and_null() -> None:
    condition = condition_of({"region": "x", "id": [1, 2, None], "note": None}, None, TABLE)
    assert condition.text == "region = %(pgherd_where_0)s AND id = ANY (%(pgherd_where_1)s::bigint[]) AND note IS NULL"
    assert condition.parameters == {"pgherd_where_0": "x", "pgherd_where_1": [1, 2]}
    assert condition.equal == {"region": ["x"], "id": [1, 2], "note": [None]}


def test_a_list_is_not_cut_to_the_column() -> None:
    assert text({"code": ["abcd"]}) == "code = ANY (%(pgherd_where_0)s::character varying[])"


def test_names_are_quoted_and_their_percent_signs_doubled() -> None:
    assert text({"odd %s": 1}) == '"odd %%s" = %(pgherd_where_0)s'


@pytest.mark.parametrize(
    ("where", "params", "expected"),
    [
        ("region = 'x'", {}, {"region": ["x"]}),
        ("'x' = region", {}, {"region": ["x"]}),
        ("patient.region = 'x'", {}, {"region": ["x"]}),
        ("other.region = 'x'", {}, {}),
        ("region IN ('x', 'y', NULL)", {}, {"region": ["x", "y"]}),
        ("region IN ('x', lower('Y'))", {}, {}),
        ("region = %(r)s AND id = %(i)s", {"r": "x", "i": 7}, {"region": ["x"], "id": [7]}),
        ("id = ANY (%(ids)s)", {"ids": [1, None, 2]}, {"id": [1, 2]}),
        ("id = ANY (%(ids)s)", {"ids": "{1,2}"}, {}),
        ("region = NULL", {}, {"region": []}),
        ("region = %(r)s", {"r": None}, {"region": []}),
        ("region IS NULL", {}, {"region": [None]}),
        ("region IS NOT NULL", {}, {}),
        ("region <> 'x'", {}, {}),
        ("region NOT IN ('x')", {}, {}),
        ("region = 'x' OR id = 1", {}, {}),
        ("NOT region = 'x'", {}, {}),
        ("(region = 'x' AND id > 3) AND note LIKE 'a%%'", {}, {"region": ["x"]}),
        ("id = 5 AND id = '5'", {}, {"id": [5]}),
        ("id IN (1, 2) AND id = 2", {}, {"id": [2]}),
        ("id = '5'::bigint", {}, {"id": ["5"]}),
        ("id = 5.6::int", {}, {}),
        ("code = 'abcd'::varchar(3)", {}, {}),
        ("code = 'abcd'::varchar", {}, {"code": ["abcd"]}),
        ("region = %(r)s::varchar(1)", {"r": "xy"}, {}),
        ("born = '2024-01-01 10:00'::date", {}, {}),
        ("id = 2.50", {}, {"id": ["2.50"]}),
        ("id = -1", {}, {"id": [-1]}),
        ("id = id", {}, {}),
        ("missing = 1", {}, {}),
        ("region = (SELECT 'x')", {}, {}),
        ("key = %(k)s", {"k": UUID(int=1)}, {"key": [UUID(int=1)]}),
        ("id = %(n)s", {"n": Decimal(3)}, {"id": [Decimal(3)]}),
    ],
)
def test_what_a_text_says_of_single_columns(where: str, params: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    assert equal(where, **params) == expected


def test_without_params_percent_signs_are_just_that() -> None:
    assert text("note LIKE '%(x)s 100%'") == "(note LIKE '%%(x)s 100%%'\n)"


def test_with_params_single_and_doubled_percent_signs_are_literal() -> None:
    assert text("note LIKE '%soup' AND id %% 2 = %(n)s", {"n": 1}) == "(note LIKE '%%soup' AND id %% 2 = %(n)s\n)"


def test_braces_and_comments_stay() -> None:
    assert text("note = '{}' -- {id}") == "(note = '{}' -- {id}\n)"
    assert text("note = 'a' /* ) */") == "(note = 'a' /* ) */\n)"


@pytest.mark.parametrize(
    "where",
    [
        "1=1) UNION SELECT 1 WHERE (1=1",
        "id = 1) OR (id = 2",
        "id = 1 UNION SELECT 2",
        "id = 1; DELETE FROM patient",
        "id = 1;",
        "id = 1 ORDER BY id",
        "id = 1 LIMIT 1",
        "id = 1 GROUP BY id",
        "id = 1 FOR UPDATE",
        "id = 1) --",
        "",
        "   ",
        "-- nothing",
        "id ==== 1 1",
        "id = $1",
        "id IN (SELECT n FROM t WHERE m = $2)",
        "id = %(x)s",
    ],
)
def test_anything_but_one_expression_is_refused(where: str) -> None:
    with pytest.raises(BadInput) as caught:
        condition_of(where, None, TABLE)
    assert caught.value.hint


def test_subselects_are_expressions() -> None:
    assert not condition_of("id IN (SELECT n FROM other WHERE m = %(m)s)", {"m": 1}, TABLE).equal


def test_numbered_parameters_are_not_mistaken_for_named_ones() -> None:
    with pytest.raises(BadInput, match=r"\$1"):
        condition_of("id = $1 AND region = %(r)s", {"r": "x"}, TABLE)
    with pytest.raises(BadInput, match=r"\$10001"):
        condition_of("id = $10001", {}, TABLE)


def test_a_parameter_without_a_value_is_named() -> None:
    with pytest.raises(BadInput, match=r"%\(r\)s, which has no value"):
        condition_of("region = %(r)s", {}, TABLE)


def test_unknown_columns_and_wrong_types_are_refused() -> None:
    with pytest.raises(BadInput, match="no column 'regio'") as caught:
        condition_of({"regio": 1}, None, TABLE)
    assert "region" in caught.value.hint
    with pytest.raises(BadInput, match="can't be read from list"):
        condition_of(["id = 1"], None, TABLE)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="params belong to a condition in SQL"):
        condition_of({"id": 1}, {"x": 1}, TABLE)


@pytest.mark.parametrize(
    "where", ["id = 1", "note LIKE 'a''b' -- c", "id = 1 AND region IN ('x', 'y')", "(id = 1) OR (id = 2)", "true"]
)
def test_what_is_sent_is_one_expression_for_the_server_too(where: str) -> None:
    statement = parse_sql("SELECT 1 FROM t WHERE " + text(where).replace("%%", "%") + " AND id IS NOT NULL")[0].stmt
    assert str(statement.whereClause.boolop).endswith("AND_EXPR: 0>") or statement.whereClause.boolop == 0
