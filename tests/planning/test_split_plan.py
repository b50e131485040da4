"""Splits are pure, keep every row in one place, and are what a schema file asked for all along."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herds import FLEET, SINGLE, a_herd
from pgherd import dialect
from pgherd.dialect.render import render
from pgherd.errors import ChangeRefused, UnknownName
from pgherd.model.codec import topology_from_json, topology_to_json
from pgherd.model.names import MAX_IDENTIFIER_BYTES
from pgherd.model.schema import HashBound
from pgherd.model.topology import Shard, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.rebalance import tied_shards
from pgherd.planning.split import after_split, plan_splits, split_of, splits_of
from pgherd.routing.route import Router

SPACES = "".join(
    f'CREATE TABLESPACE {r} WITH (replica_placement = \'{{"num_replicas": 1, "placement_blocks": '
    f'[{{"cloud": "local", "region": "{r}", "zone": "*", "min_num_replicas": 1}}]}}\');'
    for r in ("east", "west")
)
TIED = """
CREATE TABLE patient (id bigint PRIMARY KEY, v vector(3));
SELECT create_distributed_table('patient', 'id', shard_count => 3);
CREATE INDEX patient_3 ON patient USING hnsw (v vector_l2_ops);
CREATE TABLE patient_6 (id bigint PRIMARY KEY, n int);
SELECT create_distributed_table('patient_6', 'id', shard_count => 3);
CREATE TABLE visit (id bigint REFERENCES patient ON DELETE CASCADE, at int, PRIMARY KEY (id, at));
SELECT create_distributed_table('visit', 'id', colocate_with => 'patient');
"""
LISTED = (
    SPACES
    + """
CREATE TABLE doc (id bigint, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE doc_east PARTITION OF doc FOR VALUES IN ('east') PARTITION BY HASH (id) TABLESPACE east;
CREATE TABLE doc_east_0 PARTITION OF doc_east FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE doc_east_1 PARTITION OF doc_east FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE doc_west PARTITION OF doc FOR VALUES IN ('west') TABLESPACE west SPLIT INTO 2 TABLETS;
CREATE TABLE doc_rest PARTITION OF doc DEFAULT;
"""
)


def applied(text: str, *regions: str) -> Topology:
    result = plan_apply(a_herd(*regions), dialect.parse(text), FLEET).result
    assert result is not None
    return result


def names(herd: Topology, table: str) -> list[str]:
    return [str(s.relation) for s in herd.shards(herd.table(table))]


def hashed(herd: Topology) -> list[tuple[Shard, ...]]:
    return [u for u in tied_shards(herd) if isinstance(u[0].path[-1].bound, HashBound)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from((TIED, LISTED)), st.lists(st.integers(0, 10**6), max_size=8), st.data())
def test_splits_in_any_order_keep_each_row_in_one_place(text: str, choices: list[int], data: st.DataObject) -> None:
    first = herd = applied(text, "east", "west")
    for choice in choices:
        units = hashed(herd)
        unit = units[choice % len(units)]
        split = split_of(herd, unit, {s.relation.sql: 10 for s in unit})
        assert split.bytes == 10 * len(unit)
        before, herd = herd, after_split(herd, split)
        assert herd.generation == before.generation + 1
        plan = plan_splits(before, (split,), FLEET)  # which looks for the counterparts of foreign keys, too
        assert plan.result == herd
        new = [half.sql for pair in split.halves for half in pair]
        assert set(new).isdisjoint(before.homes)
        assert {herd.homes[n] for n in new} == {split.home}
    every = [n.name for t in herd.schema.tables for n in (s.relation for s in herd.shards(t))]
    assert len(every) == len(set(every)) == len(herd.homes)
    for table in herd.schema.tables:
        router = Router(herd.shards(table), {c.name: c.type for c in table.columns})
        old = Router(first.shards(first.table(table.name)), {c.name: c.type for c in table.columns})
        for key in data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)):
            row = {"id": key, "region": data.draw(st.sampled_from(("east", "west", "else")))}
            shard = router.route(row)
            was = old.route(row)
            assert shard.home == was.home
            assert shard.tablespace == was.tablespace
            assert router.prune({c: [row[c]] for c in row}) == [shard]
    assert plan_apply(herd, dialect.parse(text), FLEET).phases == ()
    assert plan_apply(herd, dialect.parse(render(herd.schema)), FLEET).phases == ()
    assert topology_from_json(topology_to_json(herd)) == herd
    homes = [[s.home for s in herd.shards(t)] for t in herd.schema.tables if t.name.name in ("patient", "visit")]
    assert homes[:1] == homes[1:]


def test_a_name_that_is_taken_gets_a_digest() -> None:
    herd = applied(TIED, "east", "west")
    plan = plan_splits(herd, splits_of(herd, "patient_0", {}), FLEET)
    assert plan.result is not None
    first, second = names(plan.result, "patient")[:2]
    assert second == "patient_6_3"
    assert first != "patient_6_0"
    assert names(plan.result, "patient_6")[0] == "patient_6_0"
    assert names(plan.result, "visit")[:2] == ["visit_6_0", "visit_6_3"]


def test_long_names_stay_apart() -> None:
    long = "x" * 60
    text = f"CREATE TABLE {long}a (id int PRIMARY KEY);"
    text += f"SELECT create_distributed_table('{long}a', 'id', shard_count => 1);"
    herd = applied(text, "east")
    for _ in range(6):
        splits = splits_of(herd, f"{long}a", {})
        herd = plan_splits(herd, splits, FLEET).result or herd
    every = names(herd, f"{long}a")
    assert len(set(every)) == 64
    assert max(len(n) for n in every) <= MAX_IDENTIFIER_BYTES


def test_a_larger_count_in_the_file_splits_and_only_as_far_as_it_says() -> None:
    herd = applied(TIED, "east", "west")
    more = TIED.replace("'id', shard_count => 3", "'id', shard_count => 6", 1)
    plan = plan_apply(herd, dialect.parse(more), FLEET)
    assert plan.result is not None
    assert len(plan.phases) == 3
    assert len(names(plan.result, "patient")) == len(names(plan.result, "visit")) == 6
    assert len(names(plan.result, "patient_6")) == 3
    assert plan_apply(plan.result, dialect.parse(more), FLEET).phases == ()
    split = plan_splits(herd, splits_of(herd, "visit_1", {}), FLEET).result
    assert split is not None
    plan = plan_apply(split, dialect.parse(more), FLEET)
    assert len(plan.phases) == 2
    again = more + "CREATE TABLE note (id bigint REFERENCES patient, n int, PRIMARY KEY (id, n));"
    again += "SELECT create_distributed_table('note', 'id', shard_count => 6);"
    plan = plan_apply(split, dialect.parse(again), FLEET)
    assert plan.result is not None
    assert len(plan.phases) == 3
    assert len(names(plan.result, "note")) == 6


@pytest.mark.parametrize(
    ("count", "hint"), [(4, "ask for 3 or 6"), (5, "ask for 3 or 6"), (7, "6 or 12"), (9, "6 or 12")]
)
def test_another_count_is_refused_with_the_nearest_that_work(count: int, hint: str) -> None:
    herd = applied(TIED, "east", "west")
    other = TIED.replace("'id', shard_count => 3", f"'id', shard_count => {count}", 1)
    with pytest.raises(ChangeRefused, match="has 3 shards and the schema now asks for") as refused:
        plan_apply(herd, dialect.parse(other), FLEET)
    assert hint in str(refused.value.hint)


def test_a_new_table_that_references_a_split_one_is_made_like_it() -> None:
    herd = applied(TIED, "east", "west")
    herd = plan_splits(herd, splits_of(herd, "patient_1", {}), FLEET).result or herd
    note = "CREATE TABLE note (id bigint REFERENCES patient, n int, PRIMARY KEY (id, n));"
    note += "SELECT create_distributed_table('note', 'id', shard_count => 3);"
    after = plan_apply(herd, dialect.parse(TIED + note), FLEET).result
    assert after is not None
    bounds = [[s.path for s in after.shards(after.table(t))] for t in ("patient", "note")]
    assert bounds[0] == bounds[1]
    assert plan_apply(after, dialect.parse(TIED + note), FLEET).phases == ()


def test_what_can_not_be_split_is_refused() -> None:
    herd = applied(
        LISTED + "CREATE TABLE log (id bigint, n int); SELECT create_distributed_table('log', 'id', shard_count => 2);"
        "CREATE TABLE plain (id int PRIMARY KEY); CREATE TABLE kind (id int PRIMARY KEY);"
        "SELECT create_reference_table('kind');",
        "east",
        "west",
    )
    for name, said in (
        ("doc_rest", "LIST partition"),
        ("log", "has no primary key"),
        ("log_1", "has no primary key"),
        ("plain", "has no hash shards"),
        ("kind", "has no hash shards"),
    ):
        with pytest.raises(ChangeRefused, match=said):
            splits_of(herd, name, {})
    with pytest.raises(UnknownName, match="nothing_0"):
        splits_of(herd, "nothing_0", {})
    with pytest.raises(UnknownName):
        splits_of(herd, "doc_east_7", {})
    assert [len(s.shards) for s in splits_of(herd, "doc", {})] == [1, 1, 1, 1]
    with pytest.raises(ChangeRefused, match="one server"):
        plan_splits(herd, splits_of(herd, "doc", {}), SINGLE)


def test_halves_stay_in_their_tablespace() -> None:
    herd = applied(LISTED, "east", "west")
    herd = plan_splits(herd, splits_of(herd, "doc", {}), FLEET).result or herd
    by_space = {s.home: s.tablespace for s in herd.shards(herd.table("doc")) if s.tablespace}
    assert by_space == {"g1": "east", "g2": "west"}
    more = replace(dialect.parse(LISTED.replace("SPLIT INTO 2", "SPLIT INTO 8")))
    plan = plan_apply(herd, more, FLEET)
    assert plan.result is not None
    assert len(plan.phases) == 4
    assert sum("doc_west" in n for n in names(plan.result, "doc")) == 8
