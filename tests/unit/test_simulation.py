"""Herds on paper: the formulas against drawing lots, and the planner at a thousand groups."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgherd.cli.main import main
from pgherd.model.topology import Topology
from pgherd.planning.placement import serves
from pgherd.planning.rebalance import rebalance
from pgherd.planning.workload import Workload
from pgherd.simulation.churn import churn
from pgherd.simulation.latency import Hedged, LogNormal, Measured, hedged, quantile
from pgherd.simulation.simulate import Load, simulate
from pgherd.simulation.synthetic import Shape, groups_of, synthetic

WORK = Workload(10**6, 768)
SEARCH = LogNormal(2.0, 12.0)


@pytest.mark.parametrize("servers", [1, 4, 40])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_the_slowest_of_many_is_as_drawing_lots_has_it(servers: int, share: float) -> None:
    drawn = SEARCH.draw(np.random.default_rng(1), (100_000, servers)).max(axis=1)
    assert quantile(SEARCH, share, servers) == pytest.approx(np.quantile(drawn, share), rel=0.03)


@pytest.mark.parametrize("servers", [1, 4, 40])
def test_hedged_questions_are_as_drawing_lots_has_them(servers: int) -> None:
    again = hedged(SEARCH)
    rng = np.random.default_rng(2)
    first, second = (SEARCH.draw(rng, (100_000, servers)) for _ in range(2))
    drawn = np.minimum(first, again.after_ms + second).max(axis=1)
    for share in (0.5, 0.99):
        assert quantile(again, share, servers) == pytest.approx(np.quantile(drawn, share), rel=0.03)
    assert quantile(again, 0.99, servers) < quantile(SEARCH, 0.99, servers)
    assert np.mean(first > again.after_ms) == pytest.approx(0.05, abs=0.002)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1e4), min_size=2, max_size=50), st.integers(1, 500))
def test_measured_times_stay_within_what_was_measured(times: list[float], servers: int) -> None:
    known = Measured(times)
    for share in (0.1, 0.5, 0.99):
        assert min(times) * 0.999 <= quantile(known, share, servers) <= max(times) * 1.001
        assert quantile(known, share, servers) >= quantile(known, share) * 0.999
        assert quantile(Hedged(known, min(times)), share, servers) <= quantile(known, share, servers) * 1.001


def test_a_thousand_groups_and_ten_billion_rows() -> None:
    """The planner of real herds, on all of it: nothing but its moves is simulated."""
    shape = Shape(1000, shards=4000)
    topology, sizes = synthetic(shape, Workload(10**10, 768))
    assert len(topology.homes) == 4000
    assert sum(sizes.values()) == pytest.approx((WORK.table.bytes + WORK.index().bytes) * 10**4, rel=0.01)
    grown = replace(topology, groups=(*topology.groups, *groups_of(shape, 1001, 1000)))
    moves = rebalance(grown, sizes)
    assert len(moves) == 2000
    assert {m.target for m in moves} == {g.name for g in grown.groups[1000:]}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 40), st.integers(0, 9))
def test_rows_stay_in_their_regions_whatever_comes_and_goes(
    regions: int, replicas: int, each: int, shards: int, seed: int
) -> None:
    shape = Shape(regions * replicas * each, regions, replicas, shards * regions, seed)
    topology, sizes = synthetic(shape, WORK)
    check_allowed(topology)
    assert synthetic(shape, WORK) == (topology, sizes)
    events = {e.event: e for e in churn(topology, sizes, shape)}
    for event in events.values():
        assert event.uneven_after >= -1e-9
        if "more" in event.event:
            # More than a fair share would make those who get it the heaviest.
            assert event.bytes <= event.least_bytes * 1.05 + max(sizes.values()) * shape.groups
    if "1 group drained" in events:
        assert events["1 group drained"].bytes == events["1 group drained"].least_bytes


def check_allowed(topology: Topology) -> None:
    for table in topology.schema.tables:
        for shard in topology.shards(table):
            space = topology.schema.tablespace(shard.tablespace) if shard.tablespace else None
            assert serves(topology.group(shard.home), space)


def test_what_a_herd_of_ten_needs() -> None:
    found = simulate(Shape(10), WORK, Load(LogNormal(2, 10), qps=100, clients=20, rate=10**6, client_us=100))
    figures = {f.name: f for f in found.figures}
    assert figures["connections of a client"].value == 160
    assert figures["connections of a server"].value == 320
    assert figures["searches a second of one client"].value == 1000
    assert all(f.formula for f in found.figures)
    assert found.fanout[0].servers == 1
    assert found.fanout[-1].servers == 10
    assert any("pooler" in r for r in found.reasons)
    each = figures["bytes of a group"].value
    assert figures["time to fill a node"].value == pytest.approx(each / 10**6)


def test_the_command_shows_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fan.svg"
    arguments = ["advise", "--simulate", "--rows", "100M", "--dim", "768", "--nodes", "30", "--replicas", "3"]
    assert main([*arguments, "--regions", "2", "--plot", str(file)]) == 0
    text = capsys.readouterr().out
    assert "10 groups, 10 shards" in text
    assert "1 group drained" in text
    ET.fromstring(file.read_text(encoding="utf-8"))
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"groups", "shards", "figures", "churn", "fanout", "reasons"} <= set(document)
    assert [f["servers"] for f in document["fanout"]] == [1, 2, 4, 8, 10]
