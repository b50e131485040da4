from __future__ import annotations

import json

from pgherd import dialect
from pgherd.model.codec import topology_from_json, topology_to_json
from pgherd.model.names import Name
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName, Group, GroupId, Node, NodeId, Role, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.plan import Traits

EVERYTHING = """
CREATE TABLESPACE here WITH (replica_placement = '{"num_replicas": 1, "placement_blocks":
    [{"cloud": "local", "region": "us-east", "zone": "a", "min_num_replicas": 1, "leader_preference": 1}]}');
CREATE EXTENSION pg_trgm;
CREATE ROLE reader LOGIN PASSWORD 'correct horse battery staple';
CREATE TYPE mood AS ENUM ('it''s fine', 'NULL');
CREATE SCHEMA "Other schema";
CREATE TABLE "Other schema"."Döc" (
    id bigint GENERATED ALWAYS AS IDENTITY, region text COLLATE "C", m mood DEFAULT 'NULL', v halfvec(3),
    twice bigint GENERATED ALWAYS AS (id * 2) STORED, CONSTRAINT positive CHECK (id > 0),
    PRIMARY KEY (id, region), UNIQUE NULLS NOT DISTINCT (region, id)) PARTITION BY LIST (region);
CREATE TABLE "Other schema".a PARTITION OF "Other schema"."Döc" FOR VALUES IN ('a', NULL) TABLESPACE here
    SPLIT INTO 3 TABLETS;
CREATE TABLE "Other schema".rest PARTITION OF "Other schema"."Döc" DEFAULT PARTITION BY HASH (id);
CREATE INDEX near ON "Other schema"."Döc" USING hnsw (v halfvec_cosine_ops) WITH (m = 8) WHERE v IS NOT NULL;
CREATE VIEW seen AS SELECT id FROM "Other schema"."Döc";
GRANT SELECT ON seen TO reader;
CREATE TABLE kind (id int PRIMARY KEY); SELECT create_reference_table('kind');
CREATE TABLE note (id int PRIMARY KEY, kind int REFERENCES kind ON DELETE CASCADE);
"""


def a_topology() -> Topology:
    nodes = [
        Node(NodeId(r), "127.0.0.1", 5433 + i, Label("local", r, "a"), Role.PRIMARY)
        for i, r in enumerate(("us-east", "us-west"))
    ]
    groups = tuple(Group(GroupId(n.name), i, (n,)) for i, n in enumerate(nodes, 1))
    plan = plan_apply(Topology(1, EngineName.FLEET, groups), dialect.parse(EVERYTHING), Traits(False, True))
    assert plan.result is not None
    return plan.result


def test_every_kind_of_thing_survives_json() -> None:
    topology = a_topology()
    document = json.loads(json.dumps(topology_to_json(topology)))
    assert topology_from_json(document) == topology


def test_names_stay_names() -> None:
    found = topology_from_json(json.loads(json.dumps(topology_to_json(a_topology()))))
    table = found.table(Name("Other schema", "Döc"))
    assert type(table.name) is Name
    assert type(table.partitions[0].name) is Name
    assert {type(s.relation) for s in found.shards(table)} == {Name}
    assert type(found.engine) is EngineName


def test_a_password_is_kept_as_a_digest_only() -> None:
    text = json.dumps(topology_to_json(a_topology()))
    assert "correct horse" not in text
    assert "SCRAM" not in text
    assert "sha256:" in text


def test_the_same_topology_has_the_same_document() -> None:
    assert topology_to_json(a_topology()) == topology_to_json(a_topology())
