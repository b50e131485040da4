"""Growing is pure: it splits no more than evening out takes, and nothing that moves alone can mend."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herds import FLEET, a_herd
from pgherd import dialect
from pgherd.model.topology import Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.grow import LEAST_BYTES, UNEVEN, grow
from pgherd.planning.move import plan_moves
from pgherd.planning.rebalance import rebalance
from pgherd.planning.split import after_split, plan_splits
from test_rebalance import Case, check_moves, load, moved, shards, weighed

GIB = 1 << 30
ONE = "CREATE TABLE t (id int PRIMARY KEY); SELECT create_distributed_table('t', 'id', shard_count => {});"


def herd_of(text: str, servers: int, joining: int) -> Topology:
    old = plan_apply(a_herd(*["us-east"] * servers), dialect.parse(text), FLEET).result
    assert old is not None
    return replace(old, groups=a_herd(*["us-east"] * (servers + joining)).groups)


def grown(herd: Topology, sizes: dict[str, int]) -> tuple[Topology, dict[str, int], int]:
    """The herd afterwards, what its shards weigh then, and how many splits it took."""
    splits, moves = grow(herd, sizes)
    assert (splits, moves) == grow(copy.deepcopy(herd), dict(sizes))
    plan = plan_splits(herd, splits, FLEET)
    for split in splits:
        assert {herd.homes[name.sql] for name in split.shards} == {split.home}, "it is split where it is now"
        herd = after_split(herd, split)
        for name, (low, high) in zip(split.shards, split.halves, strict=True):
            size = sizes[name.sql]
            sizes = {**sizes, low.sql: size - size // 2, high.sql: size // 2}
    assert plan.result is None or plan.result == herd
    check_moves(herd, sizes, moves)
    assert len(plan_moves(herd, moves, FLEET).phases) == len(moves)
    return moved(herd, moves), sizes, len(splits)


def test_a_newcomer_to_a_herd_with_one_shard_a_group_gets_a_share() -> None:
    herd, sizes, splits = grown(herd_of(ONE.format(2), 2, 1), {"public.t_0": 40 * GIB, "public.t_1": 40 * GIB})
    assert splits == 3
    found = load(herd, sizes)
    assert max(found) <= UNEVEN * sum(found) / 3
    assert set(Counter(s.home for s in shards(herd))) == {"g1", "g2", "g3"}


@pytest.mark.parametrize("servers", range(2, 6))
@pytest.mark.parametrize("joining", range(1, 4))
def test_whoever_joins_the_herd_is_even_afterwards(servers: int, joining: int) -> None:
    herd = herd_of(ONE.format(servers), servers, joining)
    herd, sizes, splits = grown(herd, dict.fromkeys(herd.homes, 40 * GIB))
    found = load(herd, sizes)
    assert max(found) <= UNEVEN * sum(found) / len(found)
    assert splits <= 2 * (servers + joining)


def test_small_shards_are_split_only_so_that_each_group_has_one() -> None:
    herd, _, splits = grown(herd_of(ONE.format(2), 2, 2), {"public.t_0": 1 << 20, "public.t_1": 1 << 20})
    assert splits == 2
    assert sorted(Counter(s.home for s in shards(herd)).values()) == [1, 1, 1, 1]


def test_what_moves_alone_can_mend_is_not_split() -> None:
    herd = herd_of(ONE.format(6), 2, 1)
    sizes = dict.fromkeys(herd.homes, GIB)
    splits, moves = grow(herd, sizes)
    assert splits == ()
    assert moves == rebalance(herd, sizes)


def test_a_table_without_a_key_is_left_alone() -> None:
    text = ONE.format(2).replace("id int PRIMARY KEY", "id int")
    herd = herd_of(text, 2, 1)
    assert grow(herd, dict.fromkeys(herd.homes, GIB))[0] == ()


@settings(max_examples=60, deadline=None)
@given(weighed())
def test_growing_comes_to_an_end_and_is_never_worse(case: Case) -> None:
    herd, sizes = case
    before = max(load(moved(herd, rebalance(herd, sizes)), sizes))
    small = {n for n, b in sizes.items() if b < 2 * LEAST_BYTES}
    after, weights, _ = grown(herd, sizes)
    assert max(load(after, weights)) <= before
    for table in herd.schema.tables:  # small ones only where a table has fewer shards than groups
        halved = [s for s in herd.shards(table) if s.relation.sql in small and s.relation.sql not in after.homes]
        assert len(halved) < len(herd.groups)


def test_draws_weigh_something() -> None:
    """The strategy above makes herds that are split at all."""
    found: list[int] = []

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        herd, sizes = data.draw(weighed())
        found.append(len(grow(herd, sizes)[0]))

    look()
    assert any(found)
