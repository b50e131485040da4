"""Every node refuses statements that would let pinned rows out, from anybody; pgherd's own plans go through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from conftest import apply
from pgherd import dialect, herdfile
from pgherd.engines.failures import LEAK
from pgherd.errors import ResidencyRefused
from pgherd.model.names import Name
from pgherd.planning.rebalance import Move
from pgherd.status import status_of
from pgherd.sync import Herd

BLOCK = '{"num_replicas": 1, "placement_blocks": [%s]}'
PLACE = '{"cloud": "local", "region": "%s", "zone": "*", "min_num_replicas": 1}'
SCHEMA = f"""
CREATE TABLESPACE east WITH (replica_placement = '{BLOCK % (PLACE % "us-east")}');
CREATE TABLESPACE west WITH (replica_placement = '{BLOCK % (PLACE % "us-west")}');
CREATE TABLE doc (id bigint, region text, title text, v vector(2), PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE doc_e PARTITION OF doc FOR VALUES IN ('e') TABLESPACE east;
CREATE TABLE docs_w PARTITION OF doc FOR VALUES IN ('w') TABLESPACE west SPLIT INTO 1 TABLETS;
CREATE TABLE word (id int PRIMARY KEY, text text);
SELECT create_reference_table('word');
CREATE TABLE free (id bigint PRIMARY KEY, note text);
"""
ROWS = [{"id": i, "region": r, "title": f"{r}{i}", "v": [float(i), 0.0]} for i in range(4) for r in "ew"]
Nodes = dict[str, psycopg.Connection[Any]]


@pytest.fixture
def nodes(fleet: Herd, tmp_path: Path) -> Iterator[Nodes]:
    apply(fleet, SCHEMA)
    fleet.table("doc").insert(ROWS)
    file = herdfile.read(tmp_path)
    opened = {n.label.region: psycopg.connect(file.dsn(tmp_path, n.group), autocommit=True) for n in file.nodes}
    yield opened
    for connection in opened.values():
        connection.close()


ELSEWHERE = "host '127.0.0.1', port '1'"
REFUSED = [  # where, statement, what the error names
    ("us-west", "CREATE PUBLICATION p FOR TABLE docs_w_0", "docs_w_0"),
    ("us-west", "CREATE PUBLICATION p FOR TABLE doc", "docs_w_0"),
    ("us-west", "CREATE PUBLICATION p FOR TABLE doc WITH (publish_via_partition_root)", "docs_w_0"),
    ("us-west", "CREATE PUBLICATION p FOR TABLES IN SCHEMA public", "docs_w_0"),
    ("us-west", "CREATE PUBLICATION p FOR ALL TABLES", "docs_w_0"),
    ("us-west", "CREATE PUBLICATION pgherd_p FOR TABLE docs_w_0", "docs_w_0"),
    ("us-east", "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)", "doc"),
    ("us-east", f"CREATE SERVER x FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({ELSEWHERE})", "doc"),
    ("us-east", "ALTER SERVER pgherd_us_west OPTIONS (SET host 'elsewhere')", "doc"),
    ("us-east", "CREATE USER MAPPING FOR CURRENT_USER SERVER pgherd_us_west", "doc"),
    ("us-east", "IMPORT FOREIGN SCHEMA public LIMIT TO (docs_w_0) FROM SERVER pgherd_us_west INTO pgherd", "doc"),
    ("us-east", "CREATE FOREIGN DATA WRAPPER w", "doc"),
    (
        "us-central",
        "CREATE FOREIGN TABLE x (id bigint) SERVER pgherd_us_west OPTIONS (table_name 'docs_w_0')",
        "docs_w_0",
    ),
    ("us-central", "CREATE FOREIGN TABLE x (id bigint) SERVER pgherd_us_west OPTIONS (table_name 'doc')", "doc"),
    ("us-east", "CREATE FOREIGN TABLE x (id bigint) SERVER pgherd_us_west OPTIONS (table_name 'view')", "docs_w_0"),
    ("us-east", "CREATE TABLE x AS SELECT * FROM doc", "docs_w_0"),
    ("us-east", "CREATE TABLE x AS TABLE docs_w_0", "docs_w_0"),
    ("us-east", "CREATE TEMP TABLE x AS SELECT title FROM doc WHERE region = 'w'", "docs_w_0"),
    ("us-central", "SELECT max(title) AS t INTO x FROM doc", "_"),
    ("us-central", "CREATE MATERIALIZED VIEW x AS SELECT * FROM doc WHERE region = 'w'", "docs_w_0"),
    ("us-east", "DO $$ BEGIN EXECUTE 'CREATE TABLE x AS SELECT count(*) FROM docs_w_0'; END $$", "docs_w_0"),
    ("us-west", "ALTER TABLE docs_w_0 SET TABLESPACE elsewhere", "docs_w_0"),
    ("us-west", "CREATE INDEX ON docs_w_0 (title) TABLESPACE elsewhere", "docs_w_0"),
    ("us-west", "REINDEX (TABLESPACE elsewhere) TABLE docs_w_0", "doc"),
    ("us-west", "DO $$ BEGIN EXECUTE 'REINDEX (TABLE' || 'SPACE elsewhere) TABLE docs_w_0'; END $$", "docs_w_0"),
    ("us-west", "CREATE TABLE x TABLESPACE elsewhere AS SELECT * FROM doc WHERE region = 'w'", "docs_w_0"),
    ("us-west", "ALTER TABLE docs_w DETACH PARTITION docs_w_0", "docs_w_0"),
    ("us-west", "ALTER TABLE doc DETACH PARTITION docs_w", "docs_w_0"),
    ("us-west", "ALTER TABLE docs_w_0 RENAME TO mine", "docs_w_0"),
    ("us-west", "ALTER TABLE docs_w_0 SET SCHEMA pgherd", "docs_w_0"),
    ("us-central", "CREATE TABLE mine PARTITION OF doc DEFAULT", "mine"),
    ("us-central", "DROP FOREIGN TABLE doc_e; CREATE TABLE doc_e PARTITION OF doc FOR VALUES IN ('e')", "doc_e"),
]
LET_THROUGH = [
    ("us-west", "CREATE PUBLICATION p FOR TABLE word"),
    ("us-west", "CREATE TABLE x AS SELECT * FROM docs_w_0"),
    ("us-east", "CREATE TABLE x AS SELECT * FROM doc WHERE region = 'e'"),
    ("us-east", "CREATE MATERIALIZED VIEW x AS SELECT * FROM doc_e"),
    ("us-central", "CREATE TABLE x (more int, LIKE word)"),
    ("us-central", "CREATE TEMP TABLE x AS SELECT * FROM word"),
    ("us-east", "CREATE INDEX ON free (note)"),
    ("us-west", "REINDEX TABLE docs_w_0"),
    ("us-east", "ALTER TABLE free ADD COLUMN more int"),
    ("us-east", "CREATE VIEW x AS SELECT * FROM doc"),
]


@pytest.fixture
def elsewhere(nodes: Nodes, tmp_path: Path) -> Iterator[None]:
    """A tablespace in PostgreSQL's sense on one server: its files are in the data directory's own file system."""
    connection = nodes["us-west"]
    connection.execute("SET allow_in_place_tablespaces = on")
    connection.execute("CREATE TABLESPACE elsewhere LOCATION ''")
    yield
    connection.execute("DROP TABLESPACE elsewhere")


def refusal(connection: psycopg.Connection[Any], statement: str) -> psycopg.Error | None:
    """What the node says to a statement, which is undone."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)  # type: ignore[call-overload]
    except psycopg.Error as error:
        return error
    return None


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE docs_w DETACH /**/ PARTITION docs_w_0 concurrently",
        "CREATE INDEX CONCURRENTLY odd ON docs_w_0 (title) TABLESPACE elsewhere",
        "REINDEX (TABLESPACE elsewhere) TABLE CONCURRENTLY docs_w_0",
        "REINDEX (TABLESPACE elsewhere) SCHEMA public",
    ],
)
def test_what_commits_on_its_way_is_refused_before_it_begins(nodes: Nodes, elsewhere: None, statement: str) -> None:
    if statement.startswith("REINDEX") and nodes["us-west"].info.server_version < 170000:
        pytest.skip("PostgreSQL has event triggers for REINDEX from version 17 on")
    with pytest.raises(psycopg.Error) as refused:
        nodes["us-west"].execute(statement)  # type: ignore[call-overload]
    assert refused.value.sqlstate == LEAK
    pending = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)"
    outside = "SELECT EXISTS (SELECT FROM pg_class WHERE reltablespace > 1664)"
    assert [nodes["us-west"].execute(q).fetchone() for q in (pending, outside)] == [(False,)] * 2  # type: ignore[call-overload]
    nodes["us-west"].execute("CREATE INDEX CONCURRENTLY fine ON docs_w_0 (title)")
    nodes["us-west"].execute("REINDEX INDEX CONCURRENTLY fine")


def test_what_would_let_pinned_rows_out_is_refused(nodes: Nodes, elsewhere: None) -> None:
    for where, statement, named in REFUSED:
        if "REINDEX" in statement and nodes[where].info.server_version < 170000:
            continue
        error = refusal(nodes[where], statement.replace("pgherd_us_west", server_of(nodes, "us-west")))
        assert error, f"{statement} was let through"
        assert error.sqlstate == LEAK, f"{statement}: {error}"
        assert named in str(error.diag.message_primary)
        assert "must stay in region us-" in str(error.diag.message_primary)
        assert error.diag.message_hint


def server_of(nodes: Nodes, region: str) -> str:
    row = nodes[region].execute("SELECT quote_ident('pgherd_' || group_name) FROM pgherd.self").fetchone()
    assert row
    return str(row[0])


def test_everything_else_is_not(nodes: Nodes) -> None:
    for where, statement in LET_THROUGH:
        with nodes[where].transaction(force_rollback=True):
            nodes[where].execute(statement)  # type: ignore[call-overload]


def test_what_a_transaction_read_before_counts(nodes: Nodes) -> None:
    statements = "DECLARE c CURSOR FOR SELECT * FROM docs_w_0; CREATE TABLE x AS SELECT 1 AS one"
    assert "what this transaction has read to region us-east" in str(refusal(nodes["us-east"], statements))


def test_a_materialized_view_without_rows_gets_none_later(nodes: Nodes) -> None:
    connection = nodes["us-east"]
    connection.execute("CREATE MATERIALIZED VIEW later AS SELECT * FROM doc WITH NO DATA")
    with pytest.raises(psycopg.Error, match="REFRESH MATERIALIZED VIEW would copy"):
        connection.execute("REFRESH MATERIALIZED VIEW later")


@pytest.fixture
def owner(nodes: Nodes) -> Iterator[psycopg.Connection[Any]]:
    """Who owns the database, the herd's tables and schema public on one server, and is no superuser."""
    admin = nodes["us-west"]
    database = admin.info.dbname
    name = sql.Identifier("owner_of_" + database)
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(name))
    admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), name))
    for table in ("doc", "docs_w", "docs_w_0"):
        admin.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(table), name))
    info = admin.info
    connection = psycopg.connect(
        host=info.host, port=info.port, dbname=database, user="owner_of_" + database, password="secret", autocommit=True
    )
    yield connection
    connection.close()
    admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(name))
    admin.execute(sql.SQL("DROP OWNED BY {}").format(name))
    admin.execute(sql.SQL("DROP ROLE {}").format(name))


def test_an_owner_cannot_pretend_to_be_a_plan_nor_disable_the_guard(owner: psycopg.Connection[Any]) -> None:
    owner.execute("SET pgherd.plan = 'on'")
    for statement in ("CREATE PUBLICATION p FOR TABLE docs_w_0", "ALTER TABLE docs_w DETACH PARTITION docs_w_0"):
        with pytest.raises(psycopg.Error) as caught:
            owner.execute(statement)  # type: ignore[call-overload]
        assert caught.value.sqlstate == LEAK
    for statement in (
        "ALTER EVENT TRIGGER pgherd_guard_end DISABLE",
        "DROP EVENT TRIGGER pgherd_guard_end",
        "CREATE OR REPLACE FUNCTION pgherd.in_plan() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE OR REPLACE FUNCTION pgherd.guard_end() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "DROP FUNCTION pgherd.guard_end() CASCADE",
        "DROP SCHEMA pgherd CASCADE",
        "DELETE FROM pgherd.topology",
        "TRUNCATE pgherd.topology",
        "UPDATE pgherd.self SET group_name = 'x'",
        "SET session_replication_role = replica",
        "SET SESSION AUTHORIZATION postgres",
        f"ALTER DATABASE {owner.info.dbname} SET session_replication_role = replica",
    ):
        with pytest.raises(psycopg.Error, match=r"permission|must be owner|privilege|superuser|does not exist"):
            owner.execute(statement)  # type: ignore[call-overload]


def test_a_superuser_by_hand_is_refused_too_and_may_say_that_it_knows(nodes: Nodes) -> None:
    connection = nodes["us-west"]
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL pgherd.plan = 'on'")
        connection.execute("CREATE PUBLICATION p FOR TABLE docs_w_0")


def test_the_client_says_it_as_an_error_of_its_own(fleet: Herd, nodes: Nodes) -> None:
    with pytest.raises(ResidencyRefused) as caught:
        fleet.sql("CREATE TABLE x AS SELECT * FROM doc", region="us-east")
    assert caught.value.exit_status == 3
    assert "docs_w_0" in caught.value.message


def test_plans_go_through(fleet: Herd, nodes: Nodes) -> None:
    """Apply again with more, split, move there and back within what is allowed, with the guard on."""
    more = SCHEMA.replace("INTO 1 TABLETS", "INTO 2 TABLETS") + (
        "CREATE TABLE doc_c PARTITION OF doc FOR VALUES IN ('c', 'd');"
        "CREATE INDEX ON doc USING hnsw (v vector_l2_ops); CREATE INDEX ON free (note);"
    )
    apply(fleet, more)
    fleet.table("doc").insert([{"id": 1, "region": "c", "title": "c", "v": [1.0, 1.0]}])
    home = fleet.topology.homes["public.doc_c"]
    target = next(g.name for g in fleet.topology.groups if g.name != home)
    inner = fleet._inner
    fleet.execute(inner.engine.plan_moves((Move((Name("public", "doc_c"),), home, target, 1),)))
    assert fleet.topology.homes["public.doc_c"] == target
    assert len(fleet.sql("SELECT * FROM doc")) == len(ROWS) + 1


def test_status_says_whether_there_is_a_guard(fleet: Herd, nodes: Nodes) -> None:
    def guarded() -> dict[str, Any]:
        document = fleet._loop.run(status_of(fleet._inner))
        return {g["name"]: g["guarded"] for g in document["groups"]}

    assert set(guarded().values()) == {True}
    assert not fleet.plan(dialect.parse(SCHEMA + "CREATE TABLE more (id int);")).notes
    nodes["us-west"].execute("ALTER EVENT TRIGGER pgherd_guard_end DISABLE")
    west = server_of(nodes, "us-west").strip('"').removeprefix("pgherd_")
    assert guarded()[west] is False
    notes = fleet.plan(dialect.parse(SCHEMA + "CREATE TABLE more (id int);")).notes
    assert [n for n in notes if f"group {west}: no guard" in n]
