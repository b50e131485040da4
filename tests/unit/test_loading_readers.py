from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgherd.errors import BadInput
from pgherd.loading.arrowfile import ArrowReader
from pgherd.loading.convert import convert
from pgherd.loading.csvfile import CsvReader
from pgherd.loading.jsonlfile import JsonlReader
from pgherd.loading.records import Chunk, Reader, Reject
from pgherd.loading.source import Format, open_source
from pgherd.model.schema import Column


def _read(reader: Reader, after: int = 0, rows: int = 100) -> list[Chunk]:
    try:
        return list(reader.chunks(after, rows))
    finally:
        reader.close()


def _csv(path: Path, data: bytes | str, after: int = 0, rows: int = 100) -> list[Chunk]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return _read(CsvReader(open_source(path, "csv")), after, rows)


def _rows(chunks: list[Chunk]) -> Iterator[tuple[int, dict[str, Any]]]:
    for chunk in chunks:
        for part in chunk.parts:
            for i, line in enumerate(part.lines):
                yield line, part.row(i)


def _rejects(chunks: list[Chunk]) -> list[Reject]:
    return [r for c in chunks for r in c.rejects]


def test_csv_quotes_newlines_and_nulls(tmp_path: Path) -> None:
    text = '\ufeffa,b\r\n1,"x ""y"", z"\r\n2,"two\r\nlines"\r\n\r\n3,\r\n4,""\r\n"",,'.replace('"",,', '"",5')
    assert list(_rows(_csv(tmp_path / "f.csv", text))) == [
        (2, {"a": "1", "b": 'x "y", z'}),
        (3, {"a": "2", "b": "two\r\nlines"}),
        (6, {"a": "3", "b": None}),
        (7, {"a": "4", "b": ""}),
        (8, {"a": "", "b": "5"}),
    ]


cells = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=12), st.integers(1, 5))
def test_csv_gives_what_was_written_wherever_it_is_taken_up(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str | None, str | None]], rows: int
) -> None:
    def field(value: str | None) -> str:
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(("a,b\n" + "".join(",".join(map(field, r)) + "\n" for r in table)).encode())
    chunks = _read(CsvReader(open_source(path)), rows=rows)
    assert [tuple(r.values()) for _, r in _rows(chunks)] == table
    assert not _rejects(chunks)
    for i, chunk in enumerate(chunks):
        again = _read(CsvReader(open_source(path)), chunk.lines_done, rows)
        assert list(_rows(again)) == list(_rows(chunks[i + 1 :]))


def test_an_unclosed_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    chunks = _csv(tmp_path / "f.csv", 'a,b\n1,"open\n2,"x"\n3,y\n4,"open to the end\n5,z\n')
    assert list(_rows(chunks)) == [(3, {"a": "2", "b": "x"}), (4, {"a": "3", "b": "y"}), (6, {"a": "5", "b": "z"})]
    assert [(r.line, r.row) for r in _rejects(chunks)] == [(2, '1,"open'), (5, '4,"open to the end')]
    assert chunks[-1].lines_done == 6


def test_csv_rejects_wrong_widths_and_other_encodings_by_line(tmp_path: Path) -> None:
    chunks = _csv(tmp_path / "f.csv", b"a,b\n1\n2,3,4\n5,caf\xe9\n6,caf\xc3\xa9\n")
    assert list(_rows(chunks)) == [(5, {"a": "6", "b": "café"})]
    assert [(r.line, r.message, r.row) for r in _rejects(chunks)] == [
        (2, "1 fields, the header has 2", "1"),
        (3, "3 fields, the header has 2", "2,3,4"),
        (4, "the text is not UTF-8", "5,caf\\xe9"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\n1,2\n", "no header"),
        (b"a,,c\n", "no header"),
        (b"a,b,a\n", "names 'a' twice"),
        (b"caf\xe9,b\n", "not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "not UTF-8"),
        (b'"a,b\n', "header of f.csv can't be read"),
        (b"PAR1 and more", "not csv but parquet"),
        (b"", "is empty"),
    ],
)
def test_csv_files_that_are_none(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        _csv(tmp_path / "f.csv", data)


def test_gzipped_text_is_read_and_taken_up_too(tmp_path: Path) -> None:
    path = tmp_path / "f.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n2\n3\n"))
    assert [r for _, r in _rows(_read(CsvReader(open_source(path)), after=2))] == [{"a": "2"}, {"a": "3"}]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInput, match="can't be read after line"):
        _read(CsvReader(open_source(path)))


def test_jsonl_groups_rows_by_the_columns_they_must_have(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"id": 1, "n": "a"}\n\n{"id": 2}\n{"n": 3, "id": 3, "at": 1}\n[1]\n{"id":\n{"id": "\xe9"}\n')
    (chunk,) = _read(JsonlReader(open_source(path), frozenset({"n"})))
    assert [(p.lines, p.columns) for p in chunk.parts] == [
        ([1, 3], {"id": [1, 2], "n": ["a", None]}),
        ([4], {"n": [3], "id": [3], "at": [1]}),
    ]
    assert chunk.parts[0].row(1) == {"id": 2}, "what the file says, not what was filled up"
    assert [r.line for r in chunk.rejects] == [5, 6, 7]
    assert chunk.lines_done == 7
    path.write_text("[{}]")
    with pytest.raises(BadInput, match="one JSON array"):
        _read(JsonlReader(open_source(path), frozenset()))


def test_formats_are_told_by_suffix_or_by_name(tmp_path: Path) -> None:
    for name, form in {"a.CSV": "csv", "a.ndjson": "jsonl", "a.v2.json.gz": "jsonl"}.items():
        (tmp_path / name).write_text("{}")
        assert open_source(tmp_path / name).format == form
    (tmp_path / "a").write_text("{}")
    assert open_source(tmp_path / "a", "jsonl").format is Format.JSONL
    for wanted in (None, "xml"):
        with pytest.raises(BadInput, match="format"):
            open_source(tmp_path / "a", wanted)
    with pytest.raises(BadInput, match="No such file"):
        open_source(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="not a parquet file"):
        open_source(tmp_path / "a", "parquet")


def test_a_file_that_changes_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a\n1\n")
    before = open_source(path)
    assert open_source(path).identity == before.identity
    path.write_text("a\n2\n")
    assert open_source(path).identity != before.identity


def _arrow_table(n: int) -> Any:
    flat = pa.array(np.arange(n * 3, dtype=np.float32))
    return pa.table({"id": np.arange(n), "v": pa.FixedSizeListArray.from_arrays(flat, 3), "t": ["x"] * n})


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrows"])
def test_arrow_files_give_vectors_as_arrays_from_any_row_on(tmp_path: Path, suffix: str) -> None:
    path, table = tmp_path / f"f.{suffix}", _arrow_table(25)
    if suffix == "parquet":
        pa.parquet.write_table(table, path, row_group_size=10)
    elif suffix == "feather":
        pa.feather.write_feather(table, path, chunksize=10)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, 10)
    for after in (0, 4, 10, 24, 25):
        chunks = _read(ArrowReader(open_source(path), frozenset({"v"})), after, 8)
        rows = list(_rows(chunks))
        assert [line for line, _ in rows] == list(range(after + 1, 26))
        assert [r["v"] for _, r in rows] == [[3.0 * i, 3.0 * i + 1, 3.0 * i + 2] for i in range(after, 25)]
        assert all(isinstance(c.parts[0].columns["v"], np.ndarray) for c in chunks)


def test_damaged_arrow_files(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(BadInput, match="not a readable parquet"):
        ArrowReader(open_source(path), frozenset())
    path = tmp_path / "f.feather"
    path.write_bytes(b"ARROW1 but no more")
    with pytest.raises(BadInput, match="not a readable arrow"):
        ArrowReader(open_source(path), frozenset())


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("bigint", " 42 ", 42),
        ("real", "1e3", 1000.0),
        ("numeric(5,2)", "1.239", "1.239"),
        ("boolean", "yes", True),
        ("varchar(3)", "abc", "abc"),
        ("date", "2024-02-29", "2024-02-29"),
        ("timestamptz", "2024-02-29 10:00", datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ("timestamp", "2024-02-29T10:00:00Z", datetime(2024, 2, 29, 10)),
        ("jsonb", '{"a": [1]}', '{"a": [1]}'),
        ("text[]", "{a,b}", "{a,b}"),
        ("sparsevec(3)", "{1:2}/3", "{1:2}/3"),
    ],
)
def test_texts_of_every_type_are_read(kind: str, text: str, value: Any) -> None:
    found, problems = convert(Column("c", kind), [text, None], json_values=False)
    assert not problems
    assert [str(v) if kind.startswith("numeric") and v is not None else v for v in found] == [value, None]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bigint", "1_000"),
        ("bigint", "9223372036854775808"),
        ("smallint", 1.5),
        ("integer", True),
        ("real", "1e300"),
        ("boolean", "maybe"),
        ("boolean", 1),
        ("uuid", "not-a-uuid"),
        ("date", "31/12/2024"),
        ("date", date),
        ("timestamptz", "noon"),
        ("numeric(3,1)", "1234"),
        ("varchar(3)", "abcd"),
        ("text", "nul \0"),
        ("text", {"a": 1}),
        ("text", "\ud800"),
        ("bytea", "xyz"),
        ("jsonb", "{a: 1}"),
        ("jsonb", "NaN"),
        ("inet", {"a": 1}),
        ("vector(3)", "[1,2]"),
        ("vector(3)", "1,2,3"),
        ("vector(3)", "[1,2,x]"),
        ("vector(3)", "[1,2,NaN]"),
        ("vector(3)", [1, 2, 1e39]),
        ("vector(3)", {"a": 1}),
        ("vector", []),
        ("halfvec(1)", [70000]),
    ],
)
def test_bad_values_are_found_among_good_ones(kind: str, value: Any) -> None:
    good = {"vector(3)": "[1,2,3]", "vector": [1.0], "halfvec(1)": [1.0]}.get(kind)
    found, problems = convert(Column("c", kind), [good, value, good], json_values=False)
    assert list(problems) == [1]
    assert problems[1][1].startswith("column c: ")
    assert found[1] is None or isinstance(found, np.ndarray)


def test_json_strings_are_strings_in_jsonl_and_json_text_elsewhere() -> None:
    column = Column("c", "jsonb")
    assert convert(column, ["[1]", {"a": 1}], json_values=True)[0] == ['"[1]"', '{"a": 1}']
    assert convert(column, ["[1]", {"a": 1}], json_values=False)[0] == ["[1]", '{"a": 1}']


def test_vectors_become_one_array() -> None:
    found, problems = convert(Column("c", "vector(2)"), ["[1,.5]", [3, 4]], json_values=True)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 0.5], [3, 4]]
    assert not problems


def test_nulls_and_ragged_lists_of_arrow_stay_arrays() -> None:
    from pgherd.rows.batch import arrow_values

    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64())):
        found = arrow_values(pa.array([[1.0, 2.0], None, [3.0]], kind), True)
        assert [None if v is None else v.tolist() for v in found] == [[1, 2], None, [3]]
    assert arrow_values(pa.array([[1.1], [2.2]]), False) == [[1.1], [2.2]], "float8[] is not a vector"


def test_big_fields_pass(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["a"], ["x" * 300_000]])
    ((_, row),) = _rows(_read(CsvReader(open_source(path))))
    assert len(row["a"]) == 300_000
    assert json.dumps(row)
