"""What is read from the keys that Patroni keeps in etcd."""

from __future__ import annotations

import json
from typing import cast

import pytest

from pgherd.availability import keys
from pgherd.dcs import NAMESPACE, Entry, Store

LEADER, MEMBER, INITIALIZE, SYNC = (f"{NAMESPACE}main/{k}" for k in ("leader", "members/b", "initialize", "sync"))


class Kept:
    """Keys at their revisions."""

    def __init__(self, *entries: Entry) -> None:
        self._entries = {e.key: e for e in entries}

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)


def kept(elected_at: int, said_at: int, *, role: str = "primary", state: str = "running") -> Store:
    said = json.dumps({"role": role, "state": state})
    found = Kept(Entry(LEADER, "b", 90, elected_at), Entry(MEMBER, said, said_at, 10), Entry(INITIALIZE, "1", 1, 1))
    return cast("Store", found)


def test_what_a_leader_said_before_it_was_elected_does_not_count() -> None:
    """A primary that died and was elected again has said so in its earlier life, and etcd keeps that for a while."""
    assert keys.primary_runs(kept(50, 51), "main", since_elected=True)
    assert not keys.primary_runs(kept(50, 49), "main", since_elected=True)
    assert keys.primary_runs(kept(50, 49), "main")


@pytest.mark.parametrize("since_elected", [False, True])
def test_nobody_copies_from_a_leader_that_is_no_running_primary(since_elected: bool) -> None:
    for role, state in (("replica", "running"), ("primary", "starting"), ("primary", "stopped")):
        found = kept(50, 51, role=role, state=state)
        assert not keys.primary_runs(found, "main", since_elected=since_elected)
    assert not keys.primary_runs(cast("Store", Kept()), "main", since_elected=since_elected)


@pytest.mark.parametrize("names", [("a", "a"), ("a", None), (None, "a"), (None, None)])
def test_nobody_follows_a_primary_while_its_own_name_is_all_there_is(names: tuple[str | None, str | None]) -> None:
    assert not keys.is_followed(elected(*names), "main", "a")


@pytest.mark.parametrize("names", [("b", "a"), ("b", "b"), ("a", "b"), (None, "b")])
def test_a_successor_that_has_died_since_was_one(names: tuple[str | None, str | None]) -> None:
    assert keys.is_followed(elected(*names), "main", "a")


def elected(leader: str | None, in_sync_key: str | None) -> Store:
    entries = [Entry(LEADER, leader, 90, 90)] if leader else []
    entries += [Entry(SYNC, json.dumps({"leader": in_sync_key, "sync_standby": None}), 90, 1)] if in_sync_key else []
    return cast("Store", Kept(*entries))
