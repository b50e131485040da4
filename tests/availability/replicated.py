"""One herd a session: group ``main`` of three nodes, group ``other`` of one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

import pgherd
from pgherd import herdfile
from pgherd.availability import keys
from pgherd.availability.rest import Rest
from pgherd.herdfile import HerdNode
from pgherd.local import machine
from pgherd.local.herd import LocalHerd
from pgherd.local.processes import Postmaster, Processes
from pgherd.model.placement import Label
from pgherd.sync import Herd

SCHEMA = """
CREATE TABLE entry (id bigint NOT NULL, place text NOT NULL, words text, embedding vector(4), PRIMARY KEY (id, place))
    PARTITION BY LIST (place);
CREATE TABLESPACE here WITH (replica_placement = '{"num_replicas": 3, "placement_blocks": [
    {"cloud": "local", "region": "us-east", "zone": "*", "min_num_replicas": 3}]}');
CREATE TABLESPACE there WITH (replica_placement = '{"num_replicas": 1, "placement_blocks": [
    {"cloud": "local", "region": "us-west", "zone": "*", "min_num_replicas": 1}]}');
CREATE TABLE entry_here PARTITION OF entry FOR VALUES IN ('here') TABLESPACE here;
CREATE TABLE entry_there PARTITION OF entry FOR VALUES IN ('there') TABLESPACE there;
CREATE TABLE moving (id bigint PRIMARY KEY, words text) PARTITION BY HASH (id) SPLIT INTO 2 TABLETS;
"""


def wait_until(what: Callable[[], object], timeout_s: float = 90) -> None:
    """Wait until ``what()`` is true; a server that doesn't answer is no answer yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(psycopg.Error, pgherd.HerdError):
            if what():
                return
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.05)


class Replicated:
    """The herd, and ways to break group ``main``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.local = LocalHerd(home)
        self.file = herdfile.read(home)
        self.nodes = [n for n in self.file.nodes if n.group == "main"]
        self._password = self.local.password()

    def connect(self, node: HerdNode | None = None, **options: object) -> psycopg.Connection:
        """A connection to one node, or to the group's primary."""
        nodes = [node] if node else self.nodes
        return psycopg.connect(
            host=",".join(n.host for n in nodes),
            port=",".join(str(n.port) for n in nodes),
            user=self.file.user,
            dbname=self.file.dbname,
            password=self._password,
            autocommit=True,
            connect_timeout=2,
            target_session_attrs="any" if node else "read-write",
            **options,
        )

    def primary(self) -> HerdNode:
        """Which node is primary now."""
        with self.connect() as connection:
            return next(n for n in self.nodes if n.port == connection.info.port)

    def rest(self, node: HerdNode) -> Rest:
        """A node's Patroni, as its machine's watcher asks it."""
        assert node.rest_port is not None
        return Rest(node.host, node.rest_port, machine.read(self.machine(node)).identity)

    def processes(self, node: HerdNode) -> Processes:
        return Processes(self.home / "nodes" / node.name)

    def postmaster(self, node: HerdNode) -> Postmaster:
        return self.local.postmaster(node.name)

    def machine(self, node: HerdNode) -> Path:
        return self.home / "machines" / node.machine

    def in_step(self) -> bool:
        """Whether both standbys hold every write, and are known to: either may take over."""
        with self.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
            row = connection.execute(query).fetchone()
            leader = next(n.name for n in self.nodes if n.port == connection.info.port)
        with closing(machine.read(self.machine(self.nodes[0])).store()) as store:
            return row == (2,) and len(keys.heirs(keys.sync(store, "main"), leader)) == 2

    def new_primary(self, old: HerdNode) -> HerdNode:
        """Wait for another primary than ``old``."""
        wait_until(lambda: self.primary() != old)
        return self.primary()

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_machine(self, node: HerdNode) -> None:
        """The node's machine with all that is on it: watcher, etcd, Patroni, server."""
        machine.kill_watcher(self.machine(node))
        self.kill([*Processes(self.machine(node)).pids(), *self.processes(node).pids()])


@pytest.fixture(scope="session")
def _replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    from conftest import apply, reachable  # which names this module as a plugin

    home = reachable(tmp_path_factory.mktemp("replicated")) / "herd"
    herd = LocalHerd(home)
    try:
        herd.up(groups={"main": [Label.parse(f"us-east.{z}") for z in "abc"], "other": [Label.parse("us-west")]})
        with pgherd.connect(home=home) as client:
            apply(client, SCHEMA)
        yield Replicated(home)
    finally:
        herd.destroy()


@pytest.fixture
def replicated(_replicated: Replicated) -> Replicated:
    """The herd, with all nodes in step."""
    wait_until(_replicated.in_step, 180)
    return _replicated


@pytest.fixture
def client(replicated: Replicated) -> Iterator[Herd]:
    """A client with patience for a busy machine."""
    with pgherd.connect(home=replicated.home, patience_s=60) as herd:
        yield herd
