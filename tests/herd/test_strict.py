"""Strict tablespaces: servers of other regions lead to none of their rows, and say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import apply
from pgherd import dialect, herdfile
from pgherd.errors import ChangeRefused, ResidencyRefused
from pgherd.sync import Herd

BLOCK = (
    '{"num_replicas": 1, "placement_blocks":'
    ' [{"cloud": "local", "region": "%s", "zone": "*", "min_num_replicas": 1}]%s}'
)


def schema(strict: str = ', "strict": true', shards: str = "") -> str:
    return f"""
CREATE TABLESPACE east WITH (replica_placement = '{BLOCK % ("us-east", "")}');
CREATE TABLESPACE west WITH (replica_placement = '{BLOCK % ("us-west", strict)}');
CREATE TABLE doc (id bigint, region text, title text, v vector(2), PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE doc_e PARTITION OF doc FOR VALUES IN ('e') TABLESPACE east;
CREATE TABLE doc_w PARTITION OF doc FOR VALUES IN ('w') TABLESPACE west {shards};
CREATE INDEX ON doc USING hnsw (v vector_l2_ops);
"""


ROWS = [{"id": i, "region": r, "title": f"{r}{i}", "v": [float(i), 0.0]} for i in range(4) for r in "ew"]
REFUSED = "west is strict: its rows are read at home only"


def refused(node: psycopg.Connection[Any]) -> str:
    """What a server says of a barrier: before PostgreSQL 17 it didn't name the foreign server."""
    return REFUSED if node.info.server_version >= 170000 else "user mapping not found"


Nodes = dict[str, psycopg.Connection[Any]]


@pytest.fixture
def nodes(fleet: Herd, tmp_path: Path) -> Iterator[Nodes]:
    file = herdfile.read(tmp_path)
    opened = {n.label.region: psycopg.connect(file.dsn(tmp_path, n.group), autocommit=True) for n in file.nodes}
    yield opened
    for connection in opened.values():
        connection.close()


def titles(rows: Any) -> list[str]:
    return sorted(str(r[0]) for r in rows)


def servers(connection: psycopg.Connection[Any], like: str) -> list[str]:
    query = (
        "SELECT srvname FROM pg_foreign_table t JOIN pg_foreign_server s ON s.oid = ftserver"
        " WHERE ftrelid::regclass::text LIKE %s"
    )
    return titles(connection.execute(query, [like]))


def test_a_query_outside_that_needs_the_rows_is_refused_and_says_why(fleet: Herd, nodes: Nodes) -> None:
    apply(fleet, schema())
    fleet.table("doc").insert(ROWS)
    east, west = nodes["us-east"], nodes["us-west"]
    for query in (
        "SELECT title FROM doc",
        "SELECT title FROM doc_w",
        "SELECT count(*) FROM doc WHERE id = 1",
        "SELECT title FROM doc ORDER BY v <-> '[0,0]' LIMIT 1",
        "UPDATE doc SET title = '' WHERE region = 'w'",
        "DELETE FROM doc",
        "INSERT INTO doc VALUES (9, 'w', 'x', '[0,0]')",
        "EXPLAIN ANALYZE SELECT 1 FROM doc",
    ):
        with pytest.raises(psycopg.Error, match=refused(east)):
            east.execute(query)  # type: ignore[call-overload]
    assert titles(west.execute("SELECT title FROM doc")) == sorted(r["title"] for r in ROWS)
    assert titles(east.execute("SELECT title FROM doc WHERE region = 'e'")) == [f"e{i}" for i in range(4)]
    for _ in range(8):  # a generic plan has the barrier in it, and does not start it
        found = east.execute("SELECT title FROM doc WHERE region = %s", ["e"], prepare=True).fetchall()
        assert titles(found) == [f"e{i}" for i in range(4)]
    east.execute("INSERT INTO doc VALUES (10, 'e', 'more', '[9,9]')")
    with pytest.raises(ResidencyRefused) as caught:
        fleet.sql("SELECT * FROM doc", region="us-east")
    assert (REFUSED if refused(east) == REFUSED else "is strict, or the role has no login") in caught.value.message
    assert "pgherd dsn --region" in caught.value.hint


def test_the_client_goes_to_the_homes_itself(fleet: Herd, nodes: Nodes) -> None:
    apply(fleet, schema())
    table = fleet.table("doc")
    assert table.insert(ROWS) == len(ROWS)
    assert [h.row["title"] for h in table.search([0.1, 0.0], k=2)] in (["e0", "w0"], ["w0", "e0"])
    assert table.update({"region": "w", "id": 1}, {"title": "new"}) == 1
    assert (table.get((1, "w")) or {})["title"] == "new"


def test_search_in_sql_leaves_them_out_and_warns(fleet: Herd, nodes: Nodes) -> None:
    apply(fleet, schema())
    fleet.table("doc").insert(ROWS)
    said: list[str] = []
    nodes["us-east"].add_notice_handler(lambda d: said.append(str(d.message_primary)))
    query = "SELECT title FROM pgherd.search_doc('[0,0]', 20)"
    assert titles(nodes["us-east"].execute(query)) == [f"e{i}" for i in range(4)]
    assert said == ["not searched: doc_w (strict: read in their own regions only)"]
    assert len(nodes["us-west"].execute(query).fetchall()) == len(ROWS)


def test_no_node_outside_has_a_way_to_the_rows(fleet: Herd, nodes: Nodes) -> None:
    apply(fleet, schema())
    for region in ("us-east", "us-central"):
        assert servers(nodes[region], "doc_w") == [REFUSED]
        options = nodes[region].execute("SELECT srvoptions FROM pg_foreign_server WHERE srvname = %s", [REFUSED])
        assert options.fetchone() == (None,)
        mapped = nodes[region].execute("SELECT count(*) FROM pg_user_mappings WHERE srvname = %s", [REFUSED])
        assert mapped.fetchone() == (0,)


def test_a_region_that_is_granted_reads_them(fleet: Herd, nodes: Nodes) -> None:
    apply(fleet, schema(', "strict": {"except": ["us-central"]}'))
    fleet.table("doc").insert(ROWS)
    assert len(nodes["us-central"].execute("SELECT * FROM doc").fetchall()) == len(ROWS)
    with pytest.raises(psycopg.Error, match=refused(nodes["us-east"])):
        nodes["us-east"].execute("SELECT * FROM doc")


def test_a_tablespace_becomes_strict_and_open_again(fleet: Herd, nodes: Nodes) -> None:
    apply(fleet, schema(""))
    fleet.table("doc").insert(ROWS)
    east = nodes["us-east"]
    assert len(east.execute("SELECT * FROM doc").fetchall()) == len(ROWS)
    apply(fleet, schema())
    with pytest.raises(psycopg.Error, match=refused(east)):
        east.execute("SELECT * FROM doc")
    assert [s.kind for s in fleet.plan(dialect.parse(schema())).steps] == []
    apply(fleet, schema(""))
    assert len(east.execute("SELECT * FROM doc").fetchall()) == len(ROWS)
    assert len(east.execute("SELECT * FROM pgherd.search_doc('[0,0]', 20)").fetchall()) == len(ROWS)


def test_splits_keep_the_barrier(fleet: Herd, nodes: Nodes) -> None:
    apply(fleet, schema(shards="SPLIT INTO 1 TABLETS").replace("doc_w ", "docs_w "))
    fleet.table("doc").insert(ROWS)
    apply(fleet, schema(shards="SPLIT INTO 2 TABLETS").replace("doc_w ", "docs_w "))
    assert servers(nodes["us-east"], "docs_w%") == [REFUSED, REFUSED]
    assert len(nodes["us-west"].execute("SELECT * FROM doc").fetchall()) == len(ROWS)
    with pytest.raises(psycopg.Error, match=refused(nodes["us-east"])):
        nodes["us-east"].execute("SELECT * FROM doc")


def test_a_whole_table_has_a_barrier_too_and_stays_as_it_was_made(fleet: Herd, nodes: Nodes) -> None:
    text = (
        schema() + "CREATE TABLE note (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, t text) TABLESPACE west;"
    )
    apply(fleet, text)
    nodes["us-west"].execute("INSERT INTO note (t) VALUES ('here')")
    with pytest.raises(psycopg.Error, match=refused(nodes["us-east"])):
        nodes["us-east"].execute("SELECT * FROM note")
    with pytest.raises(ChangeRefused, match="table note is whole in it"):
        fleet.plan(dialect.parse(text.replace(', "strict": true', "")))
