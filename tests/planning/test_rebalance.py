"""Rebalance and drain are pure, keep rows where they are allowed, and come to an end."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herds import FLEET, a_herd, herds, pinned, schemas
from pgherd import dialect
from pgherd.errors import ChangeRefused, PlacementUnsatisfied, UnknownName
from pgherd.model.schema import TableKind
from pgherd.model.topology import GroupId, Shard, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.move import plan_moves
from pgherd.planning.placement import serves
from pgherd.planning.rebalance import Move, drain, rebalance

Case = tuple[Topology, dict[str, int]]


def shards(herd: Topology) -> list[Shard]:
    return [s for t in herd.schema.tables if t.kind is TableKind.DISTRIBUTED for s in herd.shards(t)]


def moved(herd: Topology, moves: Iterable[Move]) -> Topology:
    homes = {n.sql: m.target for m in moves for n in m.shards}
    return replace(herd, homes={**herd.homes, **homes})


def load(herd: Topology, sizes: dict[str, int]) -> list[int]:
    """Bytes of every group."""
    found = Counter({g.name: 0 for g in herd.groups})
    for shard in shards(herd):
        found[shard.home] += sizes[shard.relation.sql]
    return sorted(found.values())


def check_moves(herd: Topology, sizes: dict[str, int], moves: tuple[Move, ...]) -> None:
    known = {s.relation: s for s in shards(herd)}
    names = [n for m in moves for n in m.shards]
    assert len(names) == len(set(names)), "a shard moves twice"
    for move in moves:
        assert move.source != move.target
        assert move.bytes == sum(sizes[n.sql] for n in move.shards)
        for name in move.shards:
            space = known[name].tablespace
            assert known[name].home == move.source
            assert serves(herd.group(move.target), herd.schema.tablespace(space) if space else None)


@st.composite
def weighed(draw: st.DrawFn) -> Case:
    """A herd with a schema, its shards anywhere that they are allowed, and their sizes."""
    herd = draw(herds)
    plan = plan_apply(herd, draw(schemas(herd)), FLEET)
    assert plan.result is not None
    homes = dict(plan.result.homes)
    for shard in shards(plan.result):
        space = plan.result.schema.tablespace(shard.tablespace) if shard.tablespace else None
        homes[shard.relation.sql] = draw(st.sampled_from([g.name for g in herd.groups if serves(g, space)]))
    herd = replace(plan.result, homes=homes)
    heavy = st.sampled_from((0, 1, 8192, 10**6, 10**9)) | st.integers(0, 10**10)
    return herd, {s.relation.sql: draw(heavy) for s in shards(herd)}


@given(weighed())
def test_a_rebalance_is_allowed_and_evens_out(case: Case) -> None:
    """Invariant 3; and no group gets heavier than the heaviest was, nor the lightest lighter."""
    herd, sizes = case
    before = copy.deepcopy(case)
    moves = rebalance(herd, sizes)
    assert moves == rebalance(*copy.deepcopy(case))
    assert case == before
    check_moves(herd, sizes, moves)
    for move in moves:
        after = moved(herd, [move])
        assert sum(b * b for b in load(after, sizes)) < sum(b * b for b in load(herd, sizes))
        assert load(after, sizes)[-1] <= load(herd, sizes)[-1]
        assert load(after, sizes)[0] >= load(herd, sizes)[0]
        herd = after


@given(weighed())
def test_rebalancing_again_and_again_comes_to_an_end(case: Case) -> None:
    herd, sizes = case
    bytes_moved = sum(sizes.values()) + 1
    for _ in range(len(sizes) + 2):
        moves = rebalance(herd, sizes)
        if not moves:
            return
        now = sum(m.bytes for m in moves)
        assert now < bytes_moved, "the second rebalance has no less to do than the first"
        herd, bytes_moved = moved(herd, moves), now
    raise AssertionError("it never ends")


@given(weighed(), st.data())
def test_a_drained_group_is_empty_or_the_reason_is_named(case: Case, data: st.DataObject) -> None:
    herd, sizes = case
    group = data.draw(st.sampled_from([g.name for g in herd.groups]))
    spaces = {s.tablespace: herd.schema.tablespace(s.tablespace) for s in shards(herd) if s.tablespace}
    local = [t for t in herd.schema.tables if t.kind is TableKind.LOCAL and herd.homes[t.name.sql] == group]
    stuck = [
        s
        for s in shards(herd)
        if s.home == group and not any(g.name != group and serves(g, spaces.get(s.tablespace)) for g in herd.groups)  # type: ignore[arg-type]
    ]
    if local or stuck:
        with pytest.raises(ChangeRefused) as refused:
            drain(herd, sizes, group)
        culprits = [str(t.name) for t in local] or [str(s.relation) for s in stuck]
        assert any(c in refused.value.message for c in culprits)
        assert group in refused.value.message
        return
    moves = drain(herd, sizes, group)
    assert moves == drain(*copy.deepcopy(case), group)
    check_moves(herd, sizes, moves)
    assert {m.source for m in moves} <= {group}
    assert not [s for s in shards(moved(herd, moves)) if s.home == group]


TIED = """
CREATE TABLE patient (id bigint PRIMARY KEY);
SELECT create_distributed_table('patient', 'id', shard_count => {n});
CREATE TABLE visit (id bigint, at date, PRIMARY KEY (id, at), FOREIGN KEY (id) REFERENCES patient (id));
SELECT create_distributed_table('visit', 'id', shard_count => {n});
CREATE TABLE note (id bigint, at date, body text, FOREIGN KEY (id, at) REFERENCES visit (id, at));
SELECT create_distributed_table('note', 'id', shard_count => {n});
CREATE TABLE alone (id bigint PRIMARY KEY);
SELECT create_distributed_table('alone', 'id', shard_count => {n});
"""


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(2, 4), st.data())
def test_shards_tied_by_foreign_keys_move_together(count: int, servers: int, data: st.DataObject) -> None:
    herd = plan_apply(a_herd(*["us-east"] * servers), dialect.parse(TIED.format(n=count)), FLEET).result
    assert herd is not None
    sizes = {s.relation.sql: data.draw(st.integers(0, 10**6)) for s in shards(herd)}
    group = data.draw(st.sampled_from([g.name for g in herd.groups]))
    for moves in (rebalance(herd, sizes), drain(herd, sizes, group)):
        after = moved(herd, moves)
        homes = [[s.home for s in after.shards(after.table(t))] for t in ("patient", "visit", "note")]
        assert homes[0] == homes[1] == homes[2]
        assert all(len(m.shards) in (1, 3) for m in moves)
        plan = plan_moves(herd, moves, FLEET)  # which looks for the counterparts of foreign keys, too
        assert len(plan.phases) == len(moves)
        assert plan.result is None or plan.result.homes == after.homes
    assert drain(herd, sizes, group) or not any(s.home == group for s in shards(herd))


def test_a_server_that_joins_gets_its_share() -> None:
    text = "CREATE TABLE t (id int PRIMARY KEY); SELECT create_distributed_table('t', 'id', shard_count => 6);"
    old = plan_apply(a_herd("us-east", "us-west"), dialect.parse(text), FLEET).result
    assert old is not None
    grown = replace(old, groups=a_herd("us-east", "us-west", "eu").groups)
    sizes = dict.fromkeys(old.homes, 100)
    moves = rebalance(grown, sizes)
    assert [m.target for m in moves] == ["g3", "g3"]
    assert load(moved(grown, moves), sizes) == [200, 200, 200]


def test_one_large_shard_stays_where_it_is() -> None:
    """Somewhere else it would be just as large."""
    text = "CREATE TABLE t (id int PRIMARY KEY); SELECT create_distributed_table('t', 'id', shard_count => 1);"
    herd = plan_apply(a_herd("us-east", "us-west"), dialect.parse(text), FLEET).result
    assert herd is not None
    assert rebalance(herd, {"public.t_0": 10**12}) == ()


def pinned_herd() -> Topology:
    schema = dialect.parse(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT create_distributed_table('t', 'id', shard_count => 4);"
    )
    table = replace(schema.tables[0], tablespace="in_us-east")
    schema = replace(schema, tablespaces=(pinned("us-east"),), items=(table,))
    herd = plan_apply(a_herd("us-east", "us-west"), schema, FLEET).result
    assert herd is not None
    return herd


def test_a_pinned_shard_never_leaves_its_region() -> None:
    """Invariant 3, even when somebody asks for it."""
    herd = pinned_herd()
    sizes = dict.fromkeys(herd.homes, 10**9)
    assert rebalance(herd, sizes) == ()
    with pytest.raises(ChangeRefused, match="shard t_0 may live in no other group than g1: tablespace 'in_us-east'"):
        drain(herd, sizes, GroupId("g1"))
    shard = shards(herd)[0].relation
    with pytest.raises(PlacementUnsatisfied, match="'in_us-east' doesn't allow group g2 for shard t_0"):
        plan_moves(herd, (Move((shard,), GroupId("g1"), GroupId("g2"), 1),), FLEET)


def test_a_group_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownName, match="atlantis"):
        drain(pinned_herd(), {}, GroupId("atlantis"))
