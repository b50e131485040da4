import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pgherd import dialect
from pgherd.errors import BadInput, BadRow, DimensionMismatch
from pgherd.rows.batch import batches_of

TABLE = dialect.parse(
    """
    CREATE TABLE t (id bigint, body text, at timestamptz, v vector(2), w vector, s sparsevec(4), b bit(3),
                    twice bigint GENERATED ALWAYS AS (id * 2) STORED);
    """
).tables[0]


def test_one_batch_for_each_set_of_columns() -> None:
    batches = batches_of([{"id": 1}, {"id": 2, "body": "x"}, {"id": 3}, {"body": "y", "id": 4}], TABLE)
    assert sum(b.n for b in batches) == 4
    assert [list(b.rows()) for b in batches if list(b.columns) == ["id"]] == [[(1,), (3,)]]


def test_one_dict_is_one_row_and_nothing_is_nothing() -> None:
    assert [b.n for b in batches_of({"id": 1}, TABLE)] == [1]
    assert batches_of([], TABLE) == batches_of(iter(()), TABLE) == batches_of(pa.table({"id": []}), TABLE) == []


def test_dense_vectors_become_one_array() -> None:
    for given in ([1, 2], (1.0, 2), np.array([1, 2]), "[1, 2]", " [1,2] "):
        (batch,) = batches_of([{"v": given}, {"v": [3, 4]}], TABLE)
        made = batch.columns["v"]
        assert isinstance(made, np.ndarray)
        assert made.dtype == np.float32
        assert made.tolist() == [[1, 2], [3, 4]]


def test_vectors_with_nulls_or_of_several_lengths_stay_apart() -> None:
    (batch,) = batches_of([{"v": [1, 2], "w": [1]}, {"v": None, "w": [1, 2, 3]}], TABLE)
    assert batch.columns["v"][1] is None
    assert [len(x) for x in batch.columns["w"]] == [1, 3]


def test_other_vector_types_are_left_to_the_server() -> None:
    (batch,) = batches_of([{"s": "{1:2}/4", "b": "010"}], TABLE)
    assert list(batch.rows()) == [("{1:2}/4", "010")]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"nope": 1}, BadRow, "no column 'nope'"),
        ({"twice": 1}, BadRow, "'twice' of t is generated"),
        ([{"v": [1, 2]}, {"v": [1, 2, 3]}], DimensionMismatch, "row 1: 'v' has 3 dimensions, the column 2"),
        ({"v": [1]}, DimensionMismatch, "1 dimensions, the column 2"),
        ({"v": np.ones((1, 2))}, BadRow, "not a vector"),
        ({"v": "red"}, BadRow, "row 0: 'v' is not a vector"),
        ({"v": []}, DimensionMismatch, "0 dimensions"),
        ([{"v": [1, 2]}, {"v": [1, float("nan")]}], BadRow, "row 1: 'v' holds NaN"),
        ([{"v": None}, {"v": [1, float("inf")]}], BadRow, "row 1: 'v' holds NaN or infinity"),
        ("id,body", BadInput, "can't be read from str"),
        (b"x", BadInput, "can't be read from bytes"),
        (None, BadInput, "can't be read from NoneType"),
        ([{"id": 1}, 2], BadInput, "row 1 is int, not a dict"),
    ],
)
def test_bad_rows_are_refused_with_what_and_where(rows: object, error: type[BadInput], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        batches_of(rows, TABLE)
    assert caught.value.hint


def test_tables_of_every_library_read_alike() -> None:
    when = dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    vectors = [[1.0, 2.0], [3.0, 4.0]]
    arrow = pa.table(
        {"id": [1, 2], "body": ["x", None], "at": [when, None], "v": pa.array(vectors, pa.list_(pa.float64()))}
    )
    frame = pd.DataFrame({"id": [1, 2], "body": ["x", None], "at": [when, None], "v": vectors})
    for rows in (
        arrow,
        frame,
        pl.from_arrow(arrow),
        arrow.slice(0),
        pa.concat_tables([arrow.slice(0, 1), arrow.slice(1)]),
    ):
        (batch,) = batches_of(rows, TABLE)
        assert batch.n == 2
        assert [int(i) for i in batch.columns["id"]] == [1, 2]
        assert list(batch.columns["body"]) == ["x", None]
        assert list(batch.columns["at"]) == [when, None]
        assert np.asarray(batch.columns["v"]).tolist() == vectors


def test_pandas_missing_values_are_null() -> None:
    frame = pd.DataFrame({"id": pd.array([1, None], "Int64"), "body": ["x", pd.NA], "at": [pd.NaT, pd.NaT]})
    (batch,) = batches_of(frame, TABLE)
    assert list(batch.rows()) == [(1, "x", None), (None, None, None)]


def test_take_gives_the_rows_asked_for() -> None:
    (batch,) = batches_of([{"id": i, "v": [i, i]} for i in range(4)], TABLE)
    some = batch.take(np.array([1, 3]))
    assert (some.n, list(some.columns["id"]), np.asarray(some.columns["v"]).tolist()) == (2, [1, 3], [[1, 1], [3, 3]])
    assert batch.take(np.arange(4)) is batch
    assert batch.take(np.array([], np.intp)).n == 0
