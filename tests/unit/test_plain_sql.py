"""What has to be true of a server for plain SQL to be recorded, and what pgherd's own servers are given for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgherd import dialect
from pgherd.audit.pinned import pinned_shards
from pgherd.audit.probes import logs, trail
from pgherd.audit.world import Facts, Seen, World
from pgherd.engines.plainsql import why_not_recorded
from pgherd.errors import BadSchema
from pgherd.local import settings
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName, Group, GroupId, Node, NodeId, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.plan import Traits

PGHERDS = {
    "pgaudit.log": "read, write, ddl, role",
    "pgaudit.log_relation": "on",
    "pgaudit.log_statement": "off",
    "log_line_prefix": "%m [%p] %u@%d %h ",
    "log_destination": "stderr",
}
"""What sessions have on a server that pgherd runs, in the database of a herd with a trail."""
SCHEMA = """
CREATE TABLESPACE east WITH (replica_placement = '{"num_replicas": 1, "placement_blocks":
    [{"cloud": "local", "region": "us-east", "zone": "a", "min_num_replicas": 1}]}');
CREATE TABLE doc (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE doc_e PARTITION OF doc FOR VALUES IN ('e') TABLESPACE east;
SELECT audit_trail('on');
"""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"pgaudit.log": "all"}, None),
        ({"pgaudit.log": "ALL, -misc"}, None),
        ({"log_line_prefix": "%m ", "log_destination": "stderr,jsonlog"}, None),
        ({"pgaudit.log": None}, "pgaudit is not loaded"),
        ({"pgaudit.log": "none"}, "pgaudit.log is none"),
        ({"pgaudit.log": "write, ddl"}, "pgaudit.log is write, ddl"),
        ({"pgaudit.log": "all, -read"}, "pgaudit.log is all, -read"),
        ({"pgaudit.log_relation": "off"}, "tables are not named"),
        ({"log_line_prefix": "%m "}, "roles are not named"),
    ],
)
def test_whether_a_server_records_what_plain_sql_does(change: dict[str, str | None], why: str | None) -> None:
    found = why_not_recorded({**PGHERDS, **change})
    assert found == why or (found and why and found.endswith(why))


def audited(server: dict[str, str], *of_roles: tuple[str, str, str, str]) -> set[tuple[str, str]]:
    """(kind, severity) of what an audit finds; ``of_roles``: settings by database, role, name and value."""
    node = Node(NodeId("e"), "127.0.0.1", 5432, Label("local", "us-east", "a"))
    groups = (Group(GroupId("e"), 1, (node,)),)
    empty = Topology(1, EngineName.FLEET, groups)
    topology = plan_apply(empty, dialect.parse(SCHEMA), Traits(keys_on_parent=False, enforces_placement=True)).result
    assert topology is not None
    rows = {"settings": [{"name": n, "setting": v} for n, v in server.items()]}
    rows["role_settings"] = [dict(zip(("database", "role", "name", "setting"), r, strict=True)) for r in of_roles]
    seen = Seen(groups[0], node, facts=Facts(rows), databases={"app": Facts()})
    world = World(topology, pinned_shards(topology), [seen], "app")
    findings = (*logs.probe(world).findings, *trail.probe(world).findings)
    return {(f.kind, f.severity.value) for f in findings}


RISK, NOTE = ("log_settings", "risk"), ("plain_sql", "note")
OWN = [("app", "everybody", name, value) for name, value in PGHERDS.items() if name.startswith("pgaudit")]


def test_pgaudit_without_texts_is_no_leak() -> None:
    assert audited(PGHERDS, *OWN) == set()


@pytest.mark.parametrize(
    ("server", "of_roles", "found"),
    [
        ({"pgaudit.log_statement": "on"}, (), {RISK}),
        ({"pgaudit.log": "none", "pgaudit.log_statement": "on"}, (), {NOTE}),
        ({}, (("every database", "app", "pgaudit.log_statement", "on"),), {RISK}),
        ({}, (("app", "app", "pgaudit.log", "none"),), {NOTE}),
        (
            {"pgaudit.log_statement": "on", "pgaudit.log": "none"},
            (("other", "app", "pgaudit.log", "all"),),
            {RISK, NOTE},
        ),
    ],
)
def test_pgaudit_with_texts_is_one_and_without_statements_no_trail(
    server: dict[str, str], of_roles: tuple[tuple[str, str, str, str], ...], found: set[tuple[str, str]]
) -> None:
    assert audited({**PGHERDS, **server}, *of_roles) == found


def test_pgaudit_is_loaded_beside_what_is_loaded_already(tmp_path: Path) -> None:
    assert settings.audited(tmp_path)["shared_preload_libraries"] == "pgaudit"
    conf = tmp_path / "postgresql.conf"
    conf.write_text("#shared_preload_libraries = 'a'\nshared_preload_libraries = 'b'\nport = 1\n")
    assert settings.audited(tmp_path)["shared_preload_libraries"] == "b, pgaudit"
    conf.write_text("shared_preload_libraries 'pg_stat_statements,pgaudit'  # both\n")
    assert settings.audited(tmp_path)["shared_preload_libraries"] == "pg_stat_statements, pgaudit"
    text = settings.text(5433, 1, more=settings.audited(tmp_path))
    assert "shared_preload_libraries = 'pg_stat_statements, pgaudit'\n" in text
    assert "%u@%d %h" in text
    assert "shared_preload_libraries" not in settings.text(5433, 1), "where PostgreSQL has no pgaudit"


@pytest.mark.parametrize(
    "text",
    ["SELECT audit_trail('yes')", "SELECT audit_trail()", "SELECT audit_trail('on'); SELECT audit_trail('off');"],
)
def test_a_trail_is_asked_for_in_one_of_three_words(text: str) -> None:
    with pytest.raises(BadSchema, match="audit"):
        dialect.parse(text)


def test_what_a_file_does_not_mention_stays() -> None:
    first = dialect.parse("SELECT pgherd.audit_trail('questions');")
    herd = Topology(1, EngineName.FLEET, (), first)
    traits = Traits(keys_on_parent=False, enforces_placement=True)
    assert plan_apply(herd, first, traits).steps == ()
    result = plan_apply(herd, dialect.parse("CREATE SCHEMA more;"), traits).result
    assert result is not None
    assert result.schema.trail == "questions"
    off = plan_apply(result, dialect.parse("SELECT audit_trail('off');"), traits).result
    assert off is not None
    assert off.schema.trail is None
