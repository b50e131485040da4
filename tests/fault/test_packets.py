"""What really goes over the wires: rows of a region appear on connections to that region's servers, and on no other."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import pgherd
from availability.replicated import wait_until
from capture import Capture, Stream, is_possible
from conftest import reachable
from pgherd import dialect, herdfile
from pgherd.cli.main import main
from pgherd.errors import ResidencyRefused
from pgherd.local.herd import LocalHerd
from pgherd.local.processes import Processes
from pgherd.model.placement import Label
from pgherd.sync import Herd

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not is_possible(), reason="listening on the loopback interface needs root on Linux"),
]
REGIONS = ("us-east", "us-west")
RUN = uuid.uuid4().hex
"""Others may run the same beside."""
SPACE = """
CREATE TABLESPACE {0} WITH (replica_placement = '{{"num_replicas": 1, "placement_blocks": [
    {{"cloud": "local", "region": "us-{0}", "zone": "*", "min_num_replicas": 1}}]{1}}}');
CREATE TABLE note_{0} PARTITION OF note FOR VALUES IN ('us-{0}') PARTITION BY HASH (id) TABLESPACE {0};
"""
SHARD = """
CREATE TABLE note_{0}_{1} PARTITION OF note_{0} FOR VALUES WITH (MODULUS 4, REMAINDER {1}) TABLESPACE {0};
"""
SCHEMA = """
CREATE TABLE note (id bigint NOT NULL, place text NOT NULL, words text, embedding vector(4), PRIMARY KEY (id, place))
    PARTITION BY LIST (place);
"""


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalHerd]:
    """Two groups in the east, one of them with standbys, one in the west; without TLS, or there is nothing to see."""
    found = LocalHerd(reachable(tmp_path) / "herd")
    groups = {
        "east": [Label.parse(f"us-east.{z}") for z in "abc"],
        "east2": [Label.parse("us-east.d")],
        "west": [Label.parse("us-west.a")],
    }
    try:
        found.up(groups=groups, tls=False)
        yield found
    finally:
        found.destroy()


class Callers(threading.Thread):
    """Which servers each region's servers call, looked at again and again: ports, from and to."""

    def __init__(self, local: LocalHerd) -> None:
        super().__init__(daemon=True)
        self._nodes: dict[str, list[Processes]] = {}
        for n in herdfile.read(local.home).nodes:
            self._nodes.setdefault(n.label.region, []).append(Processes(local.home / "nodes" / n.name))
        self._over = threading.Event()
        self.calls: dict[str, set[Stream]] = {region: set() for region in self._nodes}
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.05):
            open_now = [(c.pid, (c.laddr.port, c.raddr.port)) for c in psutil.net_connections("tcp4") if c.raddr]
            for region, nodes in self._nodes.items():
                pids = {pid for n in nodes for pid in n.pids()}
                self.calls[region] |= {ports for pid, ports in open_now if pid in pids}

    def end(self) -> dict[str, set[Stream]]:
        self._over.set()
        self.join()
        return self.calls


def marker(region: str) -> str:
    return f"<<pinned to {region}, {RUN}>>"


def rows(region: str, first: int, count: int) -> list[dict[str, object]]:
    return [
        {"id": i, "place": region, "words": f"{marker(region)} {i}", "embedding": [i, 1, 2, 3]}
        for i in range(first, first + count)
    ]


@pytest.mark.parametrize("strict", [False, True], ids=["open", "strict"])
def test_no_row_of_a_region_on_a_connection_to_another(local: LocalHerd, strict: bool) -> None:
    word = ', "strict": true' if strict else ""
    file = herdfile.read(local.home)
    with listening(local) as heard, pgherd.connect(home=local.home, patience_s=90) as herd:
        parts = [SPACE.format(r, word) + "".join(SHARD.format(r, i) for i in range(4)) for r in ("east", "west")]
        herd.execute(herd.plan(dialect.parse(SCHEMA + "".join(parts))))
        note = herd.table("note")
        for region in REGIONS:
            note.upsert(rows(region, 0, 400))
        search(herd)
        assert homes(local.home) == {"east", "east2"}
        over, written = threading.Event(), list[int]()
        writer = threading.Thread(target=write, args=(local.home, over, written))
        writer.start()
        try:
            for command in (["node", "drain", "east2"], ["rebalance"]):
                assert main([*command, "--home", str(local.home), "--json"]) == 0
            assert homes(local.home) == {"east", "east2"}
            fail_over(local)
            reached = len(written)
            wait_until(lambda: len(written) > reached + 3, 180)
        finally:
            over.set()
            writer.join()
        search(herd)
        assert len(note.search([1.0, 1, 2, 3], k=5, where={"place": "us-east"})) == 5
    for region in REGIONS:
        assert heard.strangers(region) == []
    servers = {p for stream in heard.carrying("us-east") for p in stream}
    assert len(servers & {n.port for n in file.nodes if n.group == "east"}) > 1, "standbys were heard, too"
    assert servers & {n.port for n in file.nodes if n.group == "east2"}
    assert heard.carrying("us-west")
    query = "SELECT words FROM note WHERE place = 'us-east' LIMIT 1"
    with listening(local) as heard, pgherd.connect(home=local.home, patience_s=90) as herd:
        if strict:
            with pytest.raises(ResidencyRefused, match="is strict"):
                herd.sql(query, region="us-west")
            assert herd.sql(query, region="us-east")  # so that there is something to hear
        else:
            assert herd.sql(query, region="us-west")
            time.sleep(0.5)  # the west's server keeps its link
    if strict:
        assert heard.carrying("us-east")
        assert heard.strangers("us-east") == []
    else:
        assert heard.strangers("us-east") != [], "whoever listens would hear a leak"
    assert heard.strangers("us-west") == []


class Heard:
    """What was said between which ports."""

    def __init__(self, file: herdfile.HerdFile) -> None:
        self.region_of = {n.port: n.label.region for n in file.nodes}
        self.streams: dict[Stream, bytes] = {}
        self.calls: dict[str, set[Stream]] = {}

    def carrying(self, region: str) -> list[Stream]:
        """The connections on which rows of the region went, by their ports, from and to."""
        return [s for s, data in self.streams.items() if marker(region).encode() in data]

    def strangers(self, region: str) -> list[Stream]:
        """Those that were not to a server of that region, or that a server of another region had made."""
        others = {s for r, calls in self.calls.items() if r != region for s in calls}
        return [
            (source, target)
            for source, target in self.carrying(region)
            if {self.region_of.get(source), self.region_of.get(target)} != {region, None}
            or {(source, target), (target, source)} & others
        ]


@contextmanager
def listening(local: LocalHerd) -> Iterator[Heard]:
    heard = Heard(herdfile.read(local.home))
    capture, callers = Capture(), Callers(local)
    try:
        yield heard
    finally:
        heard.streams, heard.calls = capture.end(), callers.end()
    assert capture.dropped == 0


def homes(home: Path) -> set[str]:
    """Where the east's shards are."""
    with pgherd.connect(home=home) as herd:
        topology = herd.topology
        return {s.home for s in topology.shards(topology.table("note")) if s.name.startswith("note_east")}


def search(herd: Herd) -> None:
    assert len(herd.table("note").search([1.0, 1, 2, 3], k=20)) == 20


def write(home: Path, over: threading.Event, written: list[int]) -> None:
    number = 1000
    with pgherd.connect(home=home, patience_s=90) as herd:
        while not over.is_set():
            for region in REGIONS:
                with suppress(pgherd.HerdError):
                    herd.table("note").upsert(rows(region, number, 5))
            written.append(number)
            number += 5


def fail_over(local: LocalHerd) -> None:
    """Kill the primary of the group with standbys, and wait for another."""
    from pgherd.availability.ground import Ground

    ground = Ground(local.home, "east")
    try:
        old = ground.primary()
        pid = local.postmaster(old.name).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ground.primary() != old, 180)
    finally:
        ground.close()
