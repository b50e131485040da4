"""A reader sees what is at home in its region and nothing else, whatever herd and schema; and nobody else sees less."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herds import a_herd, herds_with_schemas
from pgherd.errors import UnknownName
from pgherd.model.codec import topology_from_json, topology_to_json
from pgherd.model.names import Name
from pgherd.model.schema import Schema, TableKind
from pgherd.model.topology import Reader, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.plan import Traits
from pgherd.planning.readers import missing_groups, narrowed, plan_reader, reader_of


def applied(case: tuple[Topology, Schema, Traits]) -> Topology:
    topology, schema, traits = case
    return plan_apply(topology, schema, traits).result or topology


@settings(deadline=None, max_examples=40)
@given(herds_with_schemas(), st.data())
def test_a_reader_is_given_what_is_at_home_in_its_region_only(
    case: tuple[Topology, Schema, Traits], data: st.DataObject
) -> None:
    herd = applied(case)
    region = data.draw(st.sampled_from([g.primary.label.region for g in herd.groups]))
    plan = plan_reader(herd, Reader(region, "r", "s"), "secret", "secret too")
    inside = {g.name for g in herd.groups_of(region)}
    assert all(set(step.groups) <= inside for step in plan.steps)
    given_sql = next(s.sql for s in plan.steps if s.kind == "let_read")
    for table in herd.schema.tables:
        for shard in herd.shards(table):
            mine = table.kind is TableKind.REFERENCE or shard.home in inside
            assert (f"'{shard.relation.sql}'" in given_sql) is mine
        if table.kind is TableKind.DISTRIBUTED:
            assert f"'{table.name.sql}'" not in given_sql
    assert all("secret" not in str(s.as_json()) for s in plan.steps)


@settings(deadline=None, max_examples=40)
@given(herds_with_schemas(), st.data())
def test_a_narrowed_herd_has_no_shard_elsewhere(case: tuple[Topology, Schema, Traits], data: st.DataObject) -> None:
    herd = applied(case)
    region = data.draw(st.sampled_from([g.primary.label.region for g in herd.groups]))
    reader = Reader(region, "r", "s")
    seen = narrowed(herd, reader)
    inside = {g.name for g in herd.groups_of(region)}
    for table in seen.schema.tables:
        whole = herd.table(table.name)
        homes = {s.home for s in seen.shards(table)}
        assert homes <= inside
        missing = missing_groups(herd, reader, [table.name])
        if table.kind is not TableKind.REFERENCE:
            assert homes | set(missing) == {s.home for s in herd.shards(whole)}


@settings(deadline=None, max_examples=40)
@given(herds_with_schemas())
def test_a_topology_with_readers_is_kept_as_it_is(case: tuple[Topology, Schema, Traits]) -> None:
    herd = applied(case)
    names = tuple(t.name for t in herd.schema.tables)
    for tables in (None, (), names):
        made = plan_reader(herd, Reader(herd.groups[0].primary.label.region, "r", "s", tables), "x", "y").result
        assert made is not None
        assert topology_from_json(topology_to_json(made)).readers == made.readers


def test_unknown_regions_and_tables_are_refused() -> None:
    herd = a_herd("one", "two")
    with pytest.raises(UnknownName, match="no region 'three'"):
        plan_reader(herd, Reader("three", "r", "s"), "x", "y")
    with pytest.raises(UnknownName, match="region one has no reader"):
        reader_of(herd, "one")
    reader = Reader("one", "r", "s", (Name("public", "nothing"),))
    with pytest.raises(UnknownName, match="no table"):
        plan_reader(herd, reader, "x", "y")
