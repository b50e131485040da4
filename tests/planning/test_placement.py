"""plan_apply is pure, and keeps invariants 3 and 4: every shard has one home, and only where its tablespace allows."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herds import FLEET, REGIONS, SINGLE, a_herd, grown, herds_with_schemas, pinned
from pgherd import dialect
from pgherd.errors import ChangeRefused, PlacementUnsatisfied
from pgherd.model.codec import topology_from_json, topology_to_json
from pgherd.model.placement import Label, PlacementBlock, Tablespace
from pgherd.model.schema import Schema, TableKind
from pgherd.model.topology import Group, Node, NodeId, Role, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.placement import check_enlarged
from pgherd.planning.plan import Plan, Traits

Case = tuple[Topology, Schema, Traits]


def reached(plan: Plan) -> Topology:
    assert plan.result is not None
    return plan.result


@given(herds_with_schemas())
def test_the_same_input_gives_the_same_plan_and_is_left_alone(case: Case) -> None:
    herd, schema, traits = case
    before = copy.deepcopy((herd, schema))
    assert plan_apply(herd, schema, traits) == plan_apply(*copy.deepcopy((herd, schema)), traits)
    assert (herd, schema) == before


@given(herds_with_schemas())
def test_what_was_applied_is_not_planned_again(case: Case) -> None:
    herd, schema, traits = case
    plan = plan_apply(herd, schema, traits)
    assert plan.parent_generation == herd.generation
    assert [p.result.generation for p in plan.phases] == list(range(2, 2 + len(plan.phases)))
    assert plan_apply(reached(plan), schema, traits) == Plan(reached(plan).generation)


@given(herds_with_schemas())
def test_every_shard_has_one_home_and_its_tablespace_allows_it(case: Case) -> None:
    """Invariants 3 and 4, in the topology and in the steps that make it."""
    herd, schema, traits = case
    plan = plan_apply(herd, schema, traits)
    result = reached(plan)
    made = Counter((s.target, g) for s in plan.steps if s.kind == "create_shard" for g in s.groups)
    linked = Counter((s.target, g) for s in plan.steps if s.kind == "link_shard" for g in s.groups)
    for table in result.schema.tables:
        for shard in result.shards(table):
            home = result.group(shard.home)
            space = result.schema.tablespace(shard.tablespace) if shard.tablespace else None
            if space and traits.enforces_placement:
                assert all(space.allows(n.label) for n in home.nodes)
            if table.kind is TableKind.DISTRIBUTED:
                assert {g.name: made[shard.name, g.name] for g in herd.groups} == {
                    g.name: int(g == home) for g in herd.groups
                }
                assert {g.name: linked[shard.name, g.name] for g in herd.groups} == {
                    g.name: int(g != home) for g in herd.groups
                }
    assert set(result.homes) == {
        s.relation.sql for t in result.schema.tables if t.kind is not TableKind.REFERENCE for s in result.shards(t)
    }


@given(grown())
def test_shards_stay_where_they_are_when_a_schema_grows(case: tuple[Topology, Schema, Schema, Traits]) -> None:
    herd, schema, more, traits = case
    first = reached(plan_apply(herd, schema, traits))
    plan = plan_apply(first, more, traits)
    second = plan.result or first
    assert {name: second.homes[name] for name in first.homes} == first.homes
    assert not plan_apply(second, more, traits).phases


@given(herds_with_schemas())
def test_a_topology_survives_json(case: Case) -> None:
    herd, schema, traits = case
    for topology in (herd, reached(plan_apply(herd, schema, traits))):
        assert topology_from_json(json.loads(json.dumps(topology_to_json(topology)))) == topology


@given(herds_with_schemas())
def test_no_secret_is_in_a_result_or_a_shown_plan(case: Case) -> None:
    """Invariant 7, for plans."""
    herd, schema, traits = case
    plan = plan_apply(herd, schema, traits)
    shown = json.dumps(plan.as_json()) + json.dumps(topology_to_json(reached(plan)))
    assert "SCRAM" not in shown


@settings(max_examples=30)
@given(st.integers(1, 24), st.integers(1, 5))
def test_tables_with_equal_shard_counts_are_colocated(count: int, servers: int) -> None:
    herd = a_herd(*(REGIONS * 2)[:servers])
    text = "".join(
        f"CREATE TABLE {t} (id int PRIMARY KEY); SELECT create_distributed_table('{t}', 'id', shard_count => {count});"
        for t in ("a", "b")
    )
    result = reached(plan_apply(herd, dialect.parse(text), FLEET))
    homes = [[s.home for s in result.shards(t)] for t in result.schema.tables]
    assert homes[0] == homes[1]
    assert max(Counter(homes[0]).values()) - min(Counter(homes[0]).values()) <= 1


TWINS = """
CREATE TABLE first (id bigint PRIMARY KEY);
CREATE TABLE parent (id bigint, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parent_a PARTITION OF parent FOR VALUES IN ('a');
CREATE TABLE parent_b PARTITION OF parent FOR VALUES IN ('b');
CREATE TABLE child (id bigint, region text, parent bigint, PRIMARY KEY (id, region),
    FOREIGN KEY (parent, region) REFERENCES parent (id, region)) PARTITION BY LIST (region);
CREATE TABLE child_b PARTITION OF child FOR VALUES IN ('b');
CREATE TABLE child_a PARTITION OF child FOR VALUES IN ('a');
"""


def test_a_shard_goes_where_its_foreign_key_points() -> None:
    result = reached(plan_apply(a_herd("us-east", "us-central", "us-west"), dialect.parse(TWINS), FLEET))
    assert result.homes["public.child_a"] == result.homes["public.parent_a"]
    assert result.homes["public.child_b"] == result.homes["public.parent_b"]
    assert result.homes["public.parent_a"] != result.homes["public.parent_b"]


def pinned_table(space: Tablespace) -> Schema:
    schema = dialect.parse("CREATE TABLE t (id bigint PRIMARY KEY)")
    return replace(schema, tablespaces=(space,), items=(replace(schema.tables[0], tablespace=space.name),))


def test_a_tablespace_that_no_server_serves_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        PlacementUnsatisfied, match=r"'in_eu' wants local\.eu\.\*, and no server of this herd is there"
    ) as e:
        plan_apply(a_herd("us-east", "us-west"), pinned_table(pinned("eu")), FLEET)
    assert "g1 (local.us-east.a), g2 (local.us-west.a)" in e.value.hint


def test_more_replicas_than_a_group_has_are_refused() -> None:
    space = Tablespace("three", 3, (PlacementBlock("local", "us-east", "*", 3),))
    with pytest.raises(PlacementUnsatisfied, match="wants 3 replicas, more nodes than any group has there") as e:
        plan_apply(a_herd("us-east", "us-west"), pinned_table(space), FLEET)
    assert "pgherd up --replicas 3" in e.value.hint


def test_a_group_with_too_few_of_its_servers_there_is_told_of_with_their_number() -> None:
    nodes = tuple(Node(NodeId(z), "127.0.0.1", 5433, Label("local", "us-east", z), Role.STANDBY) for z in "bc")
    herd = a_herd("us-east", "us-west")
    east, west = herd.groups
    herd = replace(herd, groups=(replace(east, nodes=(*east.nodes, *nodes)), west))
    space = Tablespace("ha", 5, (PlacementBlock("local", "us-east", "a", 5),))
    told = r"'ha' wants 5 replicas in local\.us-east\.a, where group g1 has 1 of its 3 servers, and no group has more"
    with pytest.raises(PlacementUnsatisfied, match=told):
        plan_apply(herd, pinned_table(space), FLEET)


def test_more_replicas_than_a_home_has_are_refused_by_their_number() -> None:
    one = Tablespace("here", 1, (PlacementBlock("local", "us-east", "*", 1),))
    three = Tablespace("here", 3, (PlacementBlock("local", "us-east", "*", 3),))
    herd = reached(plan_apply(a_herd("us-east", "us-west"), pinned_table(one), FLEET))
    with pytest.raises(ChangeRefused, match=r"wants 3 replicas; group g1, the home of t, has 1 node") as e:
        plan_apply(herd, pinned_table(three), FLEET)
    assert "pgherd up --replicas 3" in e.value.hint


def test_a_group_gets_no_standby_where_its_tablespaces_allow_none() -> None:
    def with_standby(topology: Topology) -> tuple[Group, ...]:
        more = Node(NodeId("n"), "h", 1, Label("local", "us-east", "b"), Role.STANDBY)
        first, *others = topology.groups
        return (replace(first, nodes=(*first.nodes, more)), *others)

    for zone, allowed in (("*", True), ("a", False)):
        space = Tablespace("here", 1, (PlacementBlock("local", "us-east", zone, 1),))
        herd = reached(plan_apply(a_herd("us-east", "us-west"), pinned_table(space), FLEET))
        if allowed:
            check_enlarged(herd, with_standby(herd))
        else:
            with pytest.raises(PlacementUnsatisfied, match=r"'here' keeps .* can't have standbys in local\.us-east\.b"):
                check_enlarged(herd, with_standby(herd))


def test_one_server_records_tablespaces_and_says_so() -> None:
    plan = plan_apply(a_herd("anywhere"), pinned_table(pinned("eu")), SINGLE)
    assert reached(plan).homes == {"public.t": "g1"}
    assert "tablespaces are recorded" in plan.notes[0]


def test_a_policy_that_no_longer_allows_a_home_is_refused() -> None:
    """Invariant 3: the new policy would hold on paper only."""
    herd = a_herd("us-east", "us-west")
    result = reached(plan_apply(herd, pinned_table(pinned("us-east")), FLEET))
    moved = replace(pinned("us-west"), name="in_us-east")
    with pytest.raises(ChangeRefused, match="'in_us-east' no longer allows group g1, the home of t"):
        plan_apply(result, pinned_table(moved), FLEET)
