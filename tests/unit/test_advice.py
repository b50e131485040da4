from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgherd.cli.main import main
from pgherd.errors import BadInput
from pgherd.model.schema import VectorType
from pgherd.planning.advice import Advice, Workload, advise, bytes_of, count_of

GIB = 2**30
TEN_MILLION = Workload(10_000_000, 1536)


def figure(advice: Advice, name: str) -> float:
    return next(f.value for f in advice.figures if f.name.startswith(name))


def test_ten_million_vectors_of_1536_are_57_gib() -> None:
    advice = advise(TEN_MILLION)
    assert round(figure(advice, "vectors, raw") / GIB) == 57
    assert figure(advice, "disk") == figure(advice, "table") + figure(advice, "index")
    assert (advice.engine, advice.servers) == ("fleet", 2)
    assert [c.servers for c in advice.choices] == [2, 1, 1]
    assert any("halfvec" in r for r in advice.reasons)
    assert all(f.formula for f in advice.figures)


def test_what_fits_needs_one_server() -> None:
    advice = advise(replace(TEN_MILLION, memory=256 * GIB))
    assert (advice.engine, advice.servers) == ("single", 1)


@given(st.integers(1, 10**9), st.integers(1, 2000), st.sampled_from(list(VectorType)[:2]), st.integers(2, 64))
def test_memory_runs_out_where_it_says(rows: int, dim: int, kind: VectorType, m: int) -> None:
    advice = advise(Workload(rows, dim, kind, m, memory=GIB))
    full, usable = figure(advice, "rows that fill"), figure(advice, "memory for pages")
    assert (advice.servers == 1) == (figure(advice, "index") <= usable)
    if rows > 100_000 and full > 100_000:
        at_the_edge = advise(Workload(int(full), dim, kind, m, memory=GIB))
        assert figure(at_the_edge, "index") == pytest.approx(usable, rel=0.02)


@given(st.integers(0, 10**7), st.integers(1, 3000))
def test_more_rows_are_never_smaller(rows: int, dim: int) -> None:
    less = advise(Workload(rows + 1, dim))
    more = advise(Workload(rows + 50, dim))
    for name in ("table", "index", "disk"):
        assert figure(less, name) <= figure(more, name)


def test_too_many_dimensions_for_an_index_of_their_own_type() -> None:
    advice = advise(Workload(1000, 3000))
    assert "halfvec" in advice.choices[0].name
    assert "2,000" in advice.reasons[0]
    assert [c.name for c in advise(Workload(1000, 5000)).choices] == ["hnsw on binary_quantize"]
    with pytest.raises(BadInput, match="dim"):
        advise(Workload(1000, 16_001))


def test_searches_keep_cores_busy() -> None:
    measured = advise(replace(TEN_MILLION, qps=500, query_ms=4.0))
    assert figure(measured, "busy cores") == 2.0
    estimated = advise(replace(TEN_MILLION, qps=500))
    assert "estimate" in next(f.formula for f in estimated.figures if f.unit == "ms")
    assert not [f for f in advise(TEN_MILLION).figures if f.unit == "cores"]


@pytest.mark.parametrize(
    ("text", "count"), [("10M", 10**7), ("250k", 250_000), ("1.5B", 1_500_000_000), ("1_000", 1000), ("2,000", 2000)]
)
def test_counts_for_people(text: str, count: int) -> None:
    assert count_of(text) == count


@pytest.mark.parametrize(
    ("text", "count"), [("64GiB", 64 * GIB), ("64 GB", 64 * 10**9), ("512MiB", 2**29), ("100", 100), ("8g", 8 * 10**9)]
)
def test_sizes_for_people(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rows", "many", "--dim", "3"],
        ["--rows", "0", "--dim", "3"],
        ["--rows", "10", "--dim", "0"],
        ["--rows", "10", "--dim", "3", "--memory", "64XB"],
        ["--rows", "10", "--dim", "3", "--memory", "iB"],
        ["--rows", "10", "--dim", "3", "--type", "sparsevec"],
        ["--rows", "10", "--dim", "3", "--type", "text"],
        ["--rows", "10", "--dim", "3", "--m", "1"],
        ["--rows", "10", "--dim", "3", "--qps", "-1"],
        ["--rows", "10", "--dim", "3", "--qps", "nan"],
    ],
)
def test_bad_numbers_are_bad_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", *arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["hint"]


def test_the_command_prints_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["advise", "--rows", "10M", "--dim", "1536", "--qps", "500", "--memory", "64GiB"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "57.2 GiB" in text
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"figures", "choices", "engine", "servers", "reasons"}
    assert all(f["formula"] in text for f in document["figures"])
