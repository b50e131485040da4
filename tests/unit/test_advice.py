from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgherd.cli.main import main
from pgherd.errors import BadInput
from pgherd.model.schema import VectorType
from pgherd.planning.advice import Advice, Way, advise
from pgherd.planning.quantity import bytes_of, count_of
from pgherd.planning.workload import Machine, Workload

GIB = 2**30
TEN_MILLION = Workload(10_000_000, 1536)
SERVER = Machine()


def figure(advice: Advice, name: str) -> float:
    return next(f.value for f in advice.figures if f.name.startswith(name))


def test_ten_million_vectors_of_1536_are_57_gib() -> None:
    advice = advise([TEN_MILLION], SERVER)
    assert round(figure(advice, "vectors, raw") / GIB) == 57
    assert figure(advice, "disk") == figure(advice, "table") + figure(advice, "index")
    assert (advice.engine, advice.servers) == ("fleet", 2)
    assert [c.servers for c in advice.choices] == [2, 1, 1]
    assert any("halfvec" in r for r in advice.reasons)
    assert all(f.formula for f in advice.figures)


def test_what_fits_needs_one_server() -> None:
    advice = advise([TEN_MILLION], Machine(256 * GIB))
    assert (advice.engine, advice.servers) == ("single", 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**9), st.integers(1, 2000), st.sampled_from(list(VectorType)[:2]), st.integers(2, 64))
def test_memory_runs_out_where_it_says(rows: int, dim: int, kind: VectorType, m: int) -> None:
    advice = advise([Workload(rows, dim, kind, m)], Machine(GIB))
    full, usable = figure(advice, "rows that fill"), figure(advice, "memory for pages")
    assert (advice.servers == 1) == (figure(advice, "index") <= usable)
    if rows > 100_000 and full > 100_000:
        at_the_edge = advise([Workload(int(full), dim, kind, m)], Machine(GIB))
        assert figure(at_the_edge, "index") == pytest.approx(usable, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**7), st.integers(1, 3000))
def test_more_rows_are_never_smaller(rows: int, dim: int) -> None:
    less = advise([Workload(rows + 1, dim)], SERVER)
    more = advise([Workload(rows + 50, dim)], SERVER)
    for name in ("table", "index", "disk"):
        assert figure(less, name) <= figure(more, name)


def test_too_many_dimensions_for_an_index_of_their_own_type() -> None:
    advice = advise([Workload(1000, 3000)], SERVER)
    assert "halfvec" in advice.choices[0].name
    assert "2,000" in advice.reasons[0]
    assert [c.name for c in advise([Workload(1000, 5000)], SERVER).choices] == ["hnsw on binary_quantize"]
    with pytest.raises(BadInput, match="dim"):
        advise([Workload(1000, 16_001)], SERVER)


def test_searches_keep_cores_busy() -> None:
    measured = advise([replace(TEN_MILLION, qps=500, query_ms=4.0)], SERVER)
    assert figure(measured, "busy cores") == 2.0
    estimated = advise([replace(TEN_MILLION, qps=500)], SERVER)
    assert "estimate" in next(f.formula for f in estimated.figures if f.unit == "ms")
    assert not [f for f in advise([TEN_MILLION], SERVER).figures if f.unit == "cores"]


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
        ["--rows", "10", "--dim", "3", "--cores", "0"],
        ["--rows", "10", "--dim", "3", "--disk", "0"],
        ["--rows", "10", "--dim", "3", "--lists", "0"],
        ["--rows", "10", "--dim", "3", "--growth", "some"],
        ["--rows", "10", "--dim", "3", "--sample-s", "5"],
        ["--rows", "10", "--dim", "3", "--plot", "/there is no such directory/x.svg"],
        ["--rows", "10"],
        [],
        ["--dsn", "postgresql://127.0.0.1:1/none", "--rows", "10"],
        ["--dsn", "postgresql://127.0.0.1:1/none", "--since", "/there is no such file"],
        ["--dsn", "this is no dsn"],
        ["--rows", "10", "--dim", "3", "--simulate", "--nodes", "1001"],
        ["--rows", "10", "--dim", "3", "--simulate", "--nodes", "5", "--replicas", "2"],
        ["--rows", "10", "--dim", "3", "--simulate", "--nodes", "2", "--regions", "3"],
        ["--rows", "11B", "--dim", "3", "--simulate"],
        ["--rows", "10", "--dim", "3", "--simulate", "--latency", "5"],
        ["--rows", "10", "--dim", "3", "--simulate", "--latency", "9,5"],
        ["--rows", "10", "--dim", "3", "--simulate", "--shards", "0"],
        ["--rows", "10", "--dim", "3", "--simulate", "--rate", "0"],
        ["--dsn", "postgresql://127.0.0.1:1/none", "--simulate"],
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
    keys = {"answer", "figures", "choices", "limits", "ways", "engine", "servers", "engines", "reasons"}
    assert set(document) == keys
    assert [e["name"] for e in document["engines"]] == ["single", "fleet", "citus", "yugabytedb", "multimaster"]
    assert all(f["formula"] in text for f in document["figures"])


def way(advice: Advice, name: str) -> Way:
    return next(w for w in advice.ways if w.name.startswith(name))


def test_what_runs_out_first_is_named_with_its_day() -> None:
    """A server whose index has a tenth of its room left, and grows by a hundredth of it a day."""
    index = 1000 * GIB
    work = Workload(10**6, 768, growth=10**4, index_bytes=index, table_bytes=index, qps=10, query_ms=10.0)
    advice = advise([work], Machine(int(index * 1.1 / 0.75), disk=10 * index, cores=1))
    days = {x.name: x.days for x in advice.limits}
    assert days["memory"] == pytest.approx(10, rel=0.01)
    assert days["disk"] == pytest.approx((8 - 2) / 0.02)
    assert days["CPU"] == pytest.approx((0.7 - 0.1) / 0.001)
    assert advice.answer.startswith("Yes, soon: memory runs out in 10 days")
    assert way(advice, "sharded").days == pytest.approx(100 * (way(advice, "sharded").servers * 1.1 - 1), rel=0.01)
    assert way(advice, "sharded").days > 365  # type: ignore[operator]
    assert way(advice, "placed").cores == pytest.approx(0.1 / way(advice, "placed").servers)
    assert way(advice, "1 read replica").cores == pytest.approx(0.05)


def test_nothing_that_grows_never_runs_out() -> None:
    still = advise([Workload(1000, 3)], SERVER)
    assert [x.days for x in still.limits] == [None]
    assert "No need to distribute now" in still.answer
    assert advise([TEN_MILLION], SERVER).answer.startswith("Yes, now: memory has run out; hnsw on a halfvec")


def test_without_memory_there_is_no_answer_but_figures() -> None:
    advice = advise([TEN_MILLION], Machine(None))
    assert "give --memory" in advice.answer
    assert figure(advice, "index") > 0
    assert [c.servers for c in advice.choices] == [0, 0, 0]


def test_several_columns_share_one_memory() -> None:
    one = Workload(10**6, 768, name="a.v", index_bytes=30 * GIB)
    both = advise([one, replace(one, name="b.v")], SERVER)
    assert both.choices[0].index.bytes == 60 * GIB
    assert both.servers == 2
    assert [f.name for f in both.figures if f.name.startswith("b.v")]


def test_a_measured_index_goes_before_a_formula() -> None:
    advice = advise([replace(TEN_MILLION, index_bytes=5 * GIB, table_bytes=GIB)], SERVER)
    assert figure(advice, "disk") == 6 * GIB
    assert advice.choices[1].index.bytes > 5 * GIB  # worked out, since nobody has measured that one


def test_over_time_as_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "bytes.svg"
    arguments = ["advise", "--rows", "10M", "--dim", "1536", "--growth", "50k", "--plot", str(file)]
    assert main(arguments) == 0
    texts = [
        t.text or "" for t in ET.fromstring(file.read_text(encoding="utf-8")).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "memory for pages of one server" in texts
    assert "hnsw on binary_quantize" in texts
