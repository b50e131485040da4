"""What a fleet adds to plain Postgres, seen through any of its nodes with an ordinary driver."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import apply
from pgherd import dialect, herdfile
from pgherd.errors import BadInput, BadSchema, ChangeRefused
from pgherd.sync import Herd

REGIONS = "".join(
    f"""CREATE TABLESPACE {r} WITH (replica_placement = '{{"num_replicas": 1, "placement_blocks":
    [{{"cloud": "local", "region": "us-{r}", "zone": "a", "min_num_replicas": 1}}]}}');"""
    for r in ("east", "central", "west")
)
DOC = (
    REGIONS
    + """
CREATE TABLE doc (id bigint GENERATED ALWAYS AS IDENTITY, region text, title text, v vector(2),
    PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE doc_e PARTITION OF doc FOR VALUES IN ('e') TABLESPACE east;
CREATE TABLE doc_c PARTITION OF doc FOR VALUES IN ('c') PARTITION BY HASH (id) TABLESPACE central;
CREATE TABLE doc_w PARTITION OF doc FOR VALUES IN ('w') TABLESPACE west;
CREATE INDEX ON doc USING hnsw (v vector_l2_ops);
"""
)
HOMES = {"e": "us-east", "c": "us-central", "w": "us-west"}


@pytest.fixture
def nodes(fleet: Herd, tmp_path: Path) -> Iterator[dict[str, psycopg.Connection[Any]]]:
    """A connection to every node, by group."""
    file = herdfile.read(tmp_path)
    opened = {n.group: psycopg.connect(file.dsn(tmp_path, n.group), autocommit=True) for n in file.nodes}
    yield opened
    for connection in opened.values():
        connection.close()


def scans(connection: psycopg.Connection[Any], query: str) -> set[str]:
    """The relations that a query would read, and F where it would ask another server."""
    (plan,) = connection.execute("EXPLAIN (FORMAT json) " + query).fetchone()  # type: ignore[call-overload,misc]
    found = set()

    def visit(node: dict[str, Any]) -> None:
        if "Relation Name" in node and node["Node Type"] != "ModifyTable":
            found.add(("F " if node["Node Type"] == "Foreign Scan" else "") + node["Relation Name"])
        for below in node.get("Plans", []):
            visit(below)

    visit(plan[0]["Plan"])
    return found


def test_a_query_for_one_region_touches_one_server(fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]) -> None:
    apply(fleet, DOC)
    for here, connection in nodes.items():
        for region, home in HOMES.items():
            mark = "" if here == home else "F "
            leaves = {"c": {f"{mark}doc_c_{i}" for i in range(3)}}.get(region, {f"{mark}doc_{region}"})
            for query in ("SELECT * FROM doc WHERE region = '{}'", "DELETE FROM doc WHERE region = '{}' AND id > 0"):
                assert scans(connection, query.format(region)) == leaves
            found = scans(connection, f"SELECT id FROM doc WHERE region = '{region}' ORDER BY v <-> '[1,2]' LIMIT 1")
            assert found == leaves


def test_the_filter_runs_at_the_home(fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]) -> None:
    apply(fleet, DOC)
    query = "SELECT id FROM doc WHERE region = 'w' AND title = 'x' AND v <-> '[1,2]' < 1"
    (plan,) = nodes["us-east"].execute("EXPLAIN (VERBOSE, FORMAT json) " + query).fetchone()  # type: ignore[misc]
    remote = plan[0]["Plan"]["Remote SQL"]
    assert "title = 'x'" in remote
    assert "OPERATOR(public.<->)" in remote


def test_ids_never_collide_whatever_node_gives_them(fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]) -> None:
    apply(
        fleet, DOC + "CREATE SEQUENCE ticket; CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);"
    )
    for table in (
        "INSERT INTO doc (region) VALUES ('{}') RETURNING id",
        "INSERT INTO note DEFAULT VALUES RETURNING id",
    ):
        ids = [
            row[0]
            for _ in range(3)
            for connection in nodes.values()
            for region in HOMES
            for row in connection.execute(table.format(region)).fetchall()  # type: ignore[call-overload]
        ]
        assert len(set(ids)) == 27
    tickets = [c.execute("SELECT nextval('ticket')").fetchone() for _ in range(3) for c in nodes.values()]
    assert len(set(tickets)) == 9


def test_every_node_searches_all_of_them(fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]) -> None:
    apply(fleet, DOC)
    for i, region in enumerate("ecw" * 5):
        nodes["us-central"].execute(
            "INSERT INTO doc (region, title, v) VALUES (%s, %s, %s)", [region, str(i), f"[{i},0]"]
        )
    query = "SELECT title, home FROM pgherd.search_doc('[7.2,0]', k => 3)"
    for connection in nodes.values():
        found = connection.execute(query).fetchall()
        assert found == [("7", "us-central"), ("8", "us-west"), ("6", "us-east")]


def test_a_lone_write_to_a_reference_table_is_refused_on_any_node(
    fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]
) -> None:
    apply(fleet, "CREATE TABLE kind (id int PRIMARY KEY); SELECT create_reference_table('kind');")
    fleet.sql("INSERT INTO kind VALUES (1)")
    for connection in nodes.values():
        for statement in ("INSERT INTO kind VALUES (2)", "UPDATE kind SET id = 3", "DELETE FROM kind", "TRUNCATE kind"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="on every node at once") as e:
                connection.execute(statement)  # type: ignore[call-overload]
            assert "all copies in one commit" in (e.value.diag.message_hint or "")
        assert connection.execute("SELECT id FROM kind").fetchall() == [(1,)]


def test_a_statement_that_would_make_copies_differ_is_refused(
    fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]
) -> None:
    apply(
        fleet,
        "CREATE TABLE kind (id int PRIMARY KEY, u uuid DEFAULT gen_random_uuid());"
        "SELECT create_reference_table('kind');",
    )
    fleet.table("kind").insert([{"id": 1}])
    for statement in ("INSERT INTO kind (id) VALUES (2)", "UPDATE kind SET u = gen_random_uuid()"):
        with pytest.raises(BadInput, match="other rows on every node"):
            fleet.sql(statement)
    rows = {str(c.execute("SELECT * FROM kind").fetchall()) for c in nodes.values()}
    assert len(rows) == 1
    with pytest.raises(ChangeRefused, match="another value on every node"):
        apply(
            fleet,
            "CREATE TABLE kind (id int PRIMARY KEY, u uuid DEFAULT gen_random_uuid(), at timestamptz DEFAULT now());"
            "SELECT create_reference_table('kind');",
        )


def test_a_grant_on_all_tables_opens_no_way_around_policies(
    fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]
) -> None:
    role = "r" + uuid.uuid4().hex[:10]
    apply(
        fleet,
        DOC
        + f"""CREATE ROLE {role}; ALTER TABLE doc ENABLE ROW LEVEL SECURITY;
        CREATE POLICY east ON doc USING (region = 'e'); CREATE POLICY only_short ON doc AS RESTRICTIVE FOR UPDATE
        USING (true) WITH CHECK (length(doc.title) < 5);
        GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role};""",
    )
    nodes["us-east"].execute("INSERT INTO doc (region, title) SELECT unnest('{e,c,w}'::text[]), 'a'")
    try:
        for here, connection in nodes.items():
            connection.execute(f"SET ROLE {role}")  # type: ignore[call-overload]
            assert connection.execute("SELECT DISTINCT region FROM doc").fetchall() == [("e",)]
            assert connection.execute("SELECT count(*) FROM doc_c").fetchone() == (0,)
            for region, home in HOMES.items():
                statement = f"SELECT * FROM doc_{region}" if region != "c" else "SELECT * FROM doc_c_0"
                if here != home:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement)  # type: ignore[call-overload]
                elif region != "e":
                    assert connection.execute(statement).fetchall() == []  # type: ignore[call-overload]
            for statement in (
                "INSERT INTO doc (region) VALUES ('w')",
                "INSERT INTO doc (region) VALUES ('c')",
                "UPDATE doc SET title = 'too long'",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                    connection.execute(statement)  # type: ignore[call-overload]
            connection.execute("INSERT INTO doc (region) VALUES ('e')")
            connection.execute("UPDATE doc SET title = 'b'")
            connection.execute("RESET ROLE")
        assert nodes["us-west"].execute("SELECT region, count(*) FROM doc GROUP BY 1 ORDER BY 1").fetchall() == [
            ("c", 1),
            ("e", 4),
            ("w", 1),
        ]
    finally:
        for connection in nodes.values():
            connection.execute("RESET ROLE")
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")  # type: ignore[call-overload]


def test_the_secret_of_links_is_for_superusers_only(fleet: Herd, nodes: dict[str, psycopg.Connection[Any]]) -> None:
    """Invariant 7: whoever reads the catalogs, or a plan, learns no password."""
    connection = nodes["us-east"]
    options = "SELECT umoptions FROM pg_user_mappings WHERE srvname LIKE 'pgherd%'"
    (stored,) = connection.execute(options).fetchone()  # type: ignore[misc]
    secret = next(o for o in stored if o.startswith("password="))
    role = "r" + uuid.uuid4().hex[:10]
    connection.execute(f"CREATE ROLE {role}")  # type: ignore[call-overload]
    try:
        connection.execute(f"SET ROLE {role}")  # type: ignore[call-overload]
        assert connection.execute(options).fetchall() == [(None,)] * 3
        assert secret.partition("=")[2] not in str(connection.execute("SELECT * FROM pgherd.topology").fetchall())
        for call in ("dblink_connect('x', 'pgherd_us-west')", "send('pgherd_us-west', 'SELECT 1')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT pgherd.{call}")  # type: ignore[call-overload]
    finally:
        connection.execute("RESET ROLE")
        connection.execute(f"DROP ROLE {role}")  # type: ignore[call-overload]


def test_what_a_fleet_cannot_keep_is_refused_before_anything_happens(fleet: Herd) -> None:
    generation = fleet.topology.generation
    with pytest.raises(BadSchema, match="row-level security on note: it is whole on one node"):
        apply(fleet, "CREATE TABLE note (id int PRIMARY KEY); ALTER TABLE note ENABLE ROW LEVEL SECURITY;")
    assert fleet.plan(dialect.parse("")).phases == ()
    assert fleet.topology.generation == generation
