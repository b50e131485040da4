"""What is kept of the herd on every node, when only what has changed was sent to it."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from conftest import apply
from pgherd.engines.servers import store
from pgherd.engines.servers.store import Record
from pgherd.model.codec import topology_to_json
from pgherd.model.difference import difference
from pgherd.planning.split import splits_of
from pgherd.sync import Herd

SCHEMA = (
    "CREATE TABLE {0} (id bigint PRIMARY KEY, t text); SELECT create_distributed_table('{0}', 'id', shard_count => 6);"
)
KEPT = "SELECT document FROM pgherd.topology ORDER BY generation DESC LIMIT 1"

leaves = st.none() | st.booleans() | st.integers(2, 5) | st.text("ab'\"\\ü", max_size=3)
keys = st.text("ab0/.~ü", min_size=1, max_size=2)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(keys, v, max_size=4), max_leaves=9)
pairs = st.lists(st.tuples(*[st.dictionaries(keys, values, max_size=4)] * 2), min_size=20, max_size=20)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs)
def test_a_server_makes_edits_as_the_client_means_them(single: Herd, cases: list[tuple[Any, Any]]) -> None:
    for old, new in cases:
        edits = Jsonb(difference(old, new))
        (made,) = single.sql("SELECT pgherd.patched(%s, %s) AS d", [Jsonb(old), edits])
        (wanted,) = single.sql("SELECT %s AS d", [Jsonb(new)])
        assert made == wanted


def test_schema_changes_and_splits_send_what_changed_and_every_node_has_it_all(fleet: Herd, monkeypatch: Any) -> None:
    sent: list[Record] = []
    of = Record.of

    def seen(*arguments: Any) -> Record:
        sent.append(of(*arguments))
        return sent[-1]

    monkeypatch.setattr(store.Record, "of", seen)
    tables = "".join(SCHEMA.format(f"t{i}") for i in range(8))
    apply(fleet, tables)
    apply(fleet, tables + "CREATE INDEX ON t1 (t);")
    fleet.execute(fleet._inner.engine.plan_splits(splits_of(fleet.topology, "t3_2", {})))
    apply(fleet, "CREATE TABLE more (id int PRIMARY KEY); SELECT create_reference_table('more');")
    assert [r.edits is not None for r in sent][-3:] == [True, True, True]
    for group in fleet.topology.groups:
        (kept,) = fleet.sql(KEPT, region=group.primary.label.region)
        assert kept["document"] == sent[-1].document == topology_to_json(fleet.topology)
