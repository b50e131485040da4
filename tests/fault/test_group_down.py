"""A group that does not answer: named in the error, left out if the caller says so, used again once it is back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgherd
from conftest import apply
from pgherd.errors import GroupUnavailable
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from pgherd.sync import Herd

SCHEMA = """
CREATE TABLESPACE one WITH (replica_placement='{"num_replicas": 1, "placement_blocks":
  [{"cloud": "local", "region": "one", "zone": "a", "min_num_replicas": 1}]}');
CREATE TABLESPACE two WITH (replica_placement='{"num_replicas": 1, "placement_blocks":
  [{"cloud": "local", "region": "two", "zone": "a", "min_num_replicas": 1}]}');
CREATE TABLE doc (id bigint, region text, v vector(2), body text DEFAULT 'a word', PRIMARY KEY (region, id))
  PARTITION BY LIST (region);
CREATE TABLE doc_one PARTITION OF doc FOR VALUES IN ('one') TABLESPACE one;
CREATE TABLE doc_two PARTITION OF doc FOR VALUES IN ('two') TABLESPACE two;
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHerd]:
    base = tmp_path_factory.mktemp("down")
    for directory in (base, *base.parents):
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    servers = LocalHerd(base / "herd")
    servers.up([Label.parse("one"), Label.parse("two")], EngineName.FLEET)
    try:
        yield servers
    finally:
        servers.destroy()


@pytest.fixture(scope="module")
def herd(servers: LocalHerd) -> Iterator[Herd]:
    with pgherd.connect(home=servers.home) as herd:
        apply(herd, SCHEMA)
        herd.table("doc").insert([{"id": i, "region": r, "v": [i, 1]} for i in range(5) for r in ("one", "two")])
        yield herd


@pytest.fixture
def two_is_down(servers: LocalHerd, herd: Herd) -> Iterator[Herd]:
    assert len(herd.table("doc").search([1, 1], k=20)) == 10  # connections to both are open
    servers.postmaster("two").kill()
    yield herd
    servers.up()


def test_the_error_names_the_group(two_is_down: Herd, servers: LocalHerd) -> None:
    table = two_is_down.table("doc")
    password = Path(servers.home / "pgpass").read_text().strip().rsplit(":", 1)[-1]
    for call in (
        lambda: table.search([1, 1]),
        lambda: table.search([1, 1], where={"region": "two"}),
        lambda: table.search([1, 1], hybrid="word"),
        lambda: table.get(("two", 1)),
        lambda: table.insert([{"id": 9, "region": r, "v": [1, 1]} for r in ("one", "two")]),
        lambda: table.upsert({"id": 9, "region": "two"}),
        lambda: table.delete({"region": "two"}),
        lambda: table.update("true", {"v": [-1, 1]}),
        lambda: two_is_down.sql("SELECT 1", region="two"),
    ):
        with pytest.raises(GroupUnavailable, match="group two does not answer") as caught:
            call()
        assert caught.value.retryable
        assert "pgherd up" in caught.value.hint
        assert isinstance(caught.value.__cause__, psycopg.Error)
        assert password not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert two_is_down.sql("SELECT count(*) AS n FROM doc_one WHERE v <> '[-1,1]'", region="one") == [{"n": 5}]


def test_partial_says_what_is_missing(two_is_down: Herd) -> None:
    hits = two_is_down.table("doc").search([1, 1], k=20, partial=True)
    assert (len(hits), hits.complete, hits.missing) == (5, False, ("two",))
    both = two_is_down.table("doc").search([1, 1], k=20, hybrid="word", partial=True)
    assert (len(both), both.complete, both.missing) == (5, False, ("two",))
    assert {h.group for h in both} == {"one"}
    assert both[0].score is not None
    assert both[0].score > 1 / 61
    assert {h.group for h in hits} == {"one"}
    assert [g.name for g in hits.groups if g.name not in hits.missing] == ["one"]
    document = hits.as_json()
    assert (document["complete"], document["missing"]) == (False, ["two"])
    only = two_is_down.table("doc").search([1, 1], partial=True, where={"region": "two"})
    assert (list(only), only.missing) == ([], ("two",))


def test_what_does_not_need_the_group_goes_on(two_is_down: Herd) -> None:
    table = two_is_down.table("doc")
    hits = table.search([1, 1], k=20, where={"region": "one"})
    assert (len(hits), hits.complete) == (5, True)
    assert table.upsert({"id": 1, "region": "one", "v": [1, 1]}) == 1
    assert table.get(("one", 1)) is not None


def test_the_same_client_goes_on_when_the_group_is_back(servers: LocalHerd, herd: Herd) -> None:
    table = herd.table("doc")
    for how in (lambda: servers.postmaster("two").kill(), lambda: servers.postmaster("two").stop("fast", 30)):
        assert len(table.search([1, 1], k=20)) == 10
        how()
        servers.up()
        # The very next call: connections that the restart broke are not handed out.
        assert len(table.search([1, 1], k=20)) == 10
        assert table.upsert([{"id": 1, "region": r, "v": [1, 1]} for r in ("one", "two")]) == 2


def test_a_server_that_dies_during_a_search_is_named(servers: LocalHerd, herd: Herd) -> None:
    table = herd.table("doc")
    terminate = "(SELECT pg_terminate_backend(pg_backend_pid())) IS NOT NULL"
    with pytest.raises(GroupUnavailable, match="group two does not answer while searching doc"):
        table.search([1, 1], where=f"region = 'two' AND {terminate}")
    hits = table.search([1, 1], k=20, where=f"region = 'one' OR {terminate}", partial=True)
    assert set(hits.missing) <= {"one", "two"}
    assert len(table.search([1, 1], k=20)) == 10


def test_a_frozen_server_holds_up_nobody_else(servers: LocalHerd, herd: Herd) -> None:
    table = herd.table("doc")
    postmaster = servers.postmaster("two")
    postmaster.signal(signal.SIGSTOP)
    try:
        assert len(table.search([1, 1], k=20, where={"region": "one"})) == 5
    finally:
        postmaster.signal(signal.SIGCONT)
    assert len(table.search([1, 1], k=20)) == 10
