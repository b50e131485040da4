"""The audit trail: who asked what from where, on the servers of the region that answered, and on no others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pgherd
import pgherd.client
from conftest import apply, own_database
from pgherd import dialect, herdfile
from pgherd.cli.main import main
from pgherd.engines.reading import Read, Reading
from pgherd.errors import ServerRefused
from pgherd.llm.reader import ensure_reader
from pgherd.llm.tools import open_tools
from pgherd.loading import load
from pgherd.sync import Herd

BLOCK = (
    '{"num_replicas": 1, "placement_blocks": [{"cloud": "local", "region": "%s", "zone": "*", "min_num_replicas": 1}]}'
)
SCHEMA = f"""
CREATE TABLESPACE new_york WITH (replica_placement = '{BLOCK % "us-east"}');
CREATE TABLESPACE chicago WITH (replica_placement = '{BLOCK % "us-central"}');
CREATE TABLE note (id bigint, city text, text text, v vector(256), PRIMARY KEY (id, city)) PARTITION BY LIST (city);
CREATE TABLE note_n PARTITION OF note FOR VALUES IN ('New York') TABLESPACE new_york;
CREATE TABLE note_c PARTITION OF note FOR VALUES IN ('Chicago') TABLESPACE chicago;
CREATE INDEX ON note USING hnsw (v vector_cosine_ops);
SELECT pgherd.embed_column('note', 'text', 'v');
CREATE TABLE tag (id int PRIMARY KEY, name text);
SELECT create_reference_table('tag');
"""
EAST, CENTRAL, WEST = "us-east", "us-central", "us-west"
ROWS = [{"id": i, "city": c, "text": f"{c} pain {i}"} for i in range(20) for c in ("New York", "Chicago")]
Line = tuple[str, list[str], int | None, str | None]


def keep(herd: Herd, how: str) -> None:
    apply(herd, SCHEMA + f"SELECT pgherd.audit_trail('{how}');")


@pytest.fixture(scope="module")
def home(fleet_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database for most of these tests."""
    yield from own_database(fleet_home, tmp_path_factory.mktemp("trail"))


@pytest.fixture
def kept(home: Path) -> Iterator[Herd]:
    """A herd with rows and a trail, which is still empty."""
    with pgherd.connect(home=home) as herd:
        apply(herd, SCHEMA)
        herd.table("note").delete("true")
        herd.table("tag").delete("true")
        herd.table("note").insert(ROWS)
        keep(herd, "on")
        clear(home)
        yield herd


def as_owner(home: Path, region: str, statement: str) -> list[tuple[Any, ...]]:
    """Beside pgherd: it leaves no line."""
    with psycopg.connect(herdfile.read(home).dsn(home, region), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def lines(home: Path, region: str) -> list[Line]:
    """(operation, tables, rows, question) of each line of a region, and that it says rightly who, where and whence."""
    found = as_owner(
        home,
        region,
        "SELECT role, region, client, ms > 0, refused, tool, tables, rows, question FROM pgherd.access_log ORDER BY at",
    )
    assert {r[:5] for r in found} <= {(herdfile.read(home).user, region, "127.0.0.1", True, None)}
    return [r[5:] for r in found]


def everywhere(home: Path) -> dict[str, list[Line]]:
    return {region: lines(home, region) for region in (EAST, CENTRAL, WEST)}


def clear(home: Path) -> None:
    for region in (EAST, CENTRAL, WEST):
        as_owner(home, region, "TRUNCATE pgherd.access_log")


def test_each_group_that_answers_has_its_line(kept: Herd, home: Path) -> None:
    note = kept.table("note")
    assert len(note.search("pain", 5)) == 5
    assert everywhere(home) == {
        EAST: [("search", ["note"], 5, None)],
        CENTRAL: [("search", ["note"], 5, None)],
        WEST: [],
    }
    clear(home)
    assert len(note.search("pain", 3, where={"city": "Chicago"}, exact=True)) == 3
    assert note.search("pain", 3, where="id > 1000", exact=True) == []
    assert len(note.search("pain", 2, where={"city": "Chicago"}, hybrid=True, exact=True)) == 2
    assert note.get((1, "Chicago")) is not None
    assert note.get((1000, "Chicago")) is None
    central = [("search", 3), ("search", 0), ("hybrid", 40), ("get", 1), ("get", 0)]
    assert everywhere(home) == {
        EAST: [("search", ["note"], 0, None)],
        CENTRAL: [(tool, ["note"], rows, None) for tool, rows in central],
        WEST: [],
    }


def test_the_async_client_leaves_the_same(kept: Herd, home: Path) -> None:
    async def ask() -> None:
        async with pgherd.connect_async(home=home) as herd:
            await herd.table("note").search("pain", 5, where={"city": "Chicago"}, exact=True)
            await herd.table("note").upsert([{"id": 1, "city": "Chicago", "text": "other"}])
            await herd.sql("SELECT 1 FROM tag", region=WEST)

    asyncio.run(ask())
    central: list[Line] = [("search", ["note"], 5, None), ("upsert", ["note"], 1, None)]
    assert everywhere(home) == {EAST: [], CENTRAL: central, WEST: [("sql", ["tag"], 0, None)]}


def test_writes_leave_theirs_with_the_rows_of_each_group(kept: Herd, home: Path, tmp_path: Path) -> None:
    note = kept.table("note")
    note.upsert([{"id": i, "city": c, "text": "x"} for i, c in ((1, "Chicago"), (2, "Chicago"), (99, "New York"))])
    assert note.update({"id": 99}, {"text": "y"}) == 1
    assert note.update({"id": 99}, {"city": "Chicago"}) == 1
    assert note.delete({"id": 3, "city": "Chicago"}) == 1
    kept.table("tag").insert([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    kept.sql("UPDATE tag SET name = 'c' WHERE id = 1")
    tag: list[Line] = [("insert", ["tag"], 2, None), ("sql", ["tag"], 1, None)]
    upsert, update, delete = "upsert", "update", "delete"
    east = [(upsert, 1), (update, 1), (update, 1)]
    central = [(upsert, 2), (update, 0), (update, 1), (delete, 1)]
    assert everywhere(home) == {
        EAST: [*((tool, ["note"], rows, None) for tool, rows in east), *tag],
        CENTRAL: [*((tool, ["note"], rows, None) for tool, rows in central), *tag],
        WEST: tag,
    }
    clear(home)
    file = tmp_path / "notes.jsonl"
    rows = [{"id": 1000 + i, "city": "Chicago", "text": "z"} for i in range(8)]
    rows[5]["id"] = 1000  # the server refuses it; the rows beside it are counted all the same
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))

    async def loaded() -> int:
        async with pgherd.connect_async(home=home) as herd:
            return (await load(herd, "note", file)).rows

    assert asyncio.run(loaded()) == 7
    assert everywhere(home) == {EAST: [], CENTRAL: [("load", ["note"], 7, None)], WEST: []}


@pytest.fixture
def full(kept: Herd, home: Path) -> Iterator[Herd]:
    """A herd where us-central's log takes no line."""
    as_owner(home, CENTRAL, "ALTER TABLE pgherd.access_log ADD CONSTRAINT full_ CHECK (role = 'x')")
    yield kept
    as_owner(home, CENTRAL, "ALTER TABLE pgherd.access_log DROP CONSTRAINT full_")


def test_a_line_that_cant_be_written_undoes_what_it_is_about(full: Herd, home: Path) -> None:
    note = full.table("note")
    count = "SELECT count(*) FROM note"
    before = as_owner(home, EAST, count)
    new = [{"id": 500, "city": c, "text": "new"} for c in ("New York", "Chicago")]
    for write in (
        lambda: note.insert(new),
        lambda: note.delete("id < 100"),
        lambda: note.update("id < 9", {"text": ""}),
    ):
        with pytest.raises(ServerRefused):
            write()
    assert as_owner(home, EAST, count) == before
    for read in (
        lambda: note.search("pain", 5),
        lambda: note.get((1, "Chicago")),
        lambda: full.sql("SELECT 1", region=CENTRAL),
    ):
        with pytest.raises(ServerRefused):
            read()
    asked: list[Line] = [("search", ["note"], 5, None)]
    assert everywhere(home) == {EAST: asked, CENTRAL: [], WEST: []}, "no write has a line, and it did read in us-east"


def test_nobody_keeps_a_trail_unasked(fleet: Herd, fleet_db: Path) -> None:
    apply(fleet, SCHEMA)
    note = fleet.table("note")
    assert note._inner.request([0.1] * 256, 5).line is None, "the statement is as it ever was"
    note.insert(ROWS)
    note.search("pain", 5)
    note.get((1, "Chicago"))
    note.delete({"id": 1})
    fleet.sql("SELECT count(*) FROM note")
    for region in (EAST, CENTRAL, WEST):
        as_owner(fleet_db, region, "SELECT pgherd.trail('search', '{note}', 1, 'x')")
    assert everywhere(fleet_db) == {EAST: [], CENTRAL: [], WEST: []}
    keep(fleet, "on")
    note.get((2, "Chicago"))
    keep(fleet, "off")
    note.get((2, "Chicago"))
    assert everywhere(fleet_db) == {EAST: [], CENTRAL: [("get", ["note"], 1, None)], WEST: []}
    settings = "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = "
    assert as_owner(fleet_db, EAST, settings + "current_database()") == [(0,)], "pgaudit's, too, are gone"


def test_questions_are_kept_only_if_asked_for(kept: Herd, home: Path) -> None:
    note, vector = kept.table("note"), [0.1] * 256
    keep(kept, "questions")

    def ask() -> list[str | None]:
        clear(home)
        for question, hybrid in (("chest pain", False), (vector, False), ("arm", True), (vector, "leg")):
            note.search(question, 3, where={"city": "Chicago"}, hybrid=hybrid, exact=True)
        kept.sql("SELECT 1 AS secret FROM tag", region=CENTRAL)
        return [said for _, _, _, said in lines(home, CENTRAL)]

    assert ask() == ["chest pain", None, "arm", "leg", None]
    keep(kept, "on")
    assert ask() == [None] * 5
    # What is kept is for the server to say, whatever a client that has not heard of it yet sends.
    clear(home)
    as_owner(home, CENTRAL, "SELECT pgherd.trail('search', '{note}', 1, 'chest pain')")
    assert lines(home, CENTRAL) == [("search", ["note"], 1, None)]


def test_clients_that_are_open_hear_of_it(kept: Herd, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(kept, "off")
    with pgherd.connect(home=home) as other:
        keep(other, "on")
    monkeypatch.setattr(pgherd.client, "LOOK_EVERY_S", 0.0)
    deadline = time.monotonic() + 30
    while kept.topology.schema.trail is None:
        kept.table("note").delete("false")  # a write is not held up by it: one of the next goes by what it saw
        assert time.monotonic() < deadline
    clear(home)
    kept.table("note").delete({"id": 1, "city": "Chicago"})
    assert lines(home, CENTRAL) == [("delete", ["note"], 1, None)]


def test_reads_from_standbys_go_to_the_primary(kept: Herd) -> None:
    asked = Reading(Read.REPLICA)
    herd = kept.table("note")._inner.herd
    assert herd.reads(asked) is None
    keep(kept, "off")
    assert herd.reads(asked) is not None


@pytest.fixture
def app(kept: Herd, home: Path) -> Iterator[dict[str, Any]]:
    """How an application's role logs in, which may read and write the tables."""
    file = herdfile.read(home)
    name = f"app_{file.dbname}"
    apply(
        kept, f"{SCHEMA} CREATE ROLE {name} LOGIN PASSWORD 'app'; GRANT SELECT, INSERT, DELETE ON note, tag TO {name};"
    )
    clear(home)
    yield {"user": name, "password": "app", "dbname": file.dbname}
    for region in (EAST, CENTRAL, WEST):
        as_owner(home, region, f"DROP OWNED BY {name}; DROP ROLE {name}")


def of_node(home: Path, region: str) -> dict[str, Any]:
    node = next(n for n in herdfile.read(home).nodes if n.label.region == region)
    return {"host": node.host, "port": node.port}


def test_roles_are_as_the_server_sees_them_and_forge_nothing(app: dict[str, Any], home: Path) -> None:
    dsn = psycopg.conninfo.make_conninfo("", **app, **of_node(home, EAST))
    with pgherd.connect(dsn) as herd:
        assert len(herd.table("note").search("pain", 3, where={"city": "Chicago"}, exact=True)) == 3
    with psycopg.connect(**app, **of_node(home, CENTRAL), autocommit=True) as connection:
        for text in (
            "SELECT * FROM pgherd.access_log",
            "INSERT INTO pgherd.access_log (role, region, client, tool, tables, ms) VALUES ('x', '', '', '', '{}', 1)",
            "UPDATE pgherd.access_log SET role = 'x'",
            "DELETE FROM pgherd.access_log",
            "TRUNCATE pgherd.access_log",
            "DELETE FROM pgherd.trail_kept",
            "INSERT INTO pgherd.topology (generation, document) VALUES (1000000, '{}')",
            "SELECT pgherd.audit_statements(false)",
            "SELECT pgherd.log_access('x', 'y', '{}', 1, 1, NULL, NULL)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(text.encode())
        connection.execute("SET application_name = 'somebody else'")
        connection.execute("SELECT pgherd.trail('search', '{note}', 1, NULL)")
    name = app["user"]
    found = as_owner(home, CENTRAL, "SELECT role, region, client, tool, rows FROM pgherd.access_log ORDER BY at")
    assert found == [(name, CENTRAL, "127.0.0.1", "search", 3), (name, CENTRAL, "127.0.0.1", "search", 1)]
    as_owner(home, CENTRAL, f"ALTER ROLE {name} SUPERUSER")
    with psycopg.connect(**app, **of_node(home, CENTRAL), autocommit=True) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(herdfile.read(home).user)))
        connection.execute("SELECT pgherd.trail('get', '{note}', 1, NULL)")
    as_owner(home, CENTRAL, f"ALTER ROLE {name} NOSUPERUSER")
    assert as_owner(home, CENTRAL, "SELECT role FROM pgherd.access_log WHERE tool = 'get'") == [(name,)]


def test_a_language_model_has_its_own_log(kept: Herd, home: Path) -> None:
    async def ask() -> int:
        async with pgherd.connect_async(home=home) as herd:
            await ensure_reader(herd, home, herdfile.read(home).dbname, EAST, None)
        async with open_tools(home, EAST) as tools:
            return len((await tools.search("model", "note", "pain", 4))["hits"])

    assert asyncio.run(ask()) == 4
    found = as_owner(home, EAST, "SELECT client, tool, tables, rows FROM pgherd.access_log")
    assert found == [("model", "search", ["note"], 4)]


def test_it_is_read_with_a_command(kept: Herd, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = kept.table("note")
    note.get((1, "Chicago"))
    kept.sql("SELECT count(*) FROM note_c", region=CENTRAL)
    kept.sql("SELECT count(*) FROM tag", region=WEST)

    def told(*options: str, status: int = 0) -> Any:
        assert main(["audit", "--trail", *options, "--home", str(home), "--json"]) == status
        return json.loads(capsys.readouterr().out)

    every = told()
    assert [(e["group"], e["tool"], e["tables"], e["rows"]) for e in every["entries"]] == [
        (WEST, "sql", ["tag"], 1),
        (CENTRAL, "sql", ["note_c"], 1),
        (CENTRAL, "get", ["note"], 1),
    ]
    assert (every["kept"], every["could_not_look_at"]) == (True, [])
    assert {(n["node"], n["recorded"]) for n in every["plain_sql"]} == {(r, False) for r in (EAST, CENTRAL, WEST)}
    assert [e["tool"] for e in told("--table", "note")["entries"]] == ["sql", "get"], "its shards count"
    assert [e["tool"] for e in told("--limit", "1")["entries"]] == ["sql"]
    as_owner(home, CENTRAL, "UPDATE pgherd.access_log SET at = at - interval '2 days' WHERE tool = 'get'")
    assert [e["tool"] for e in told("--table", "note", "--since", "47h")["entries"]] == ["sql"]
    as_owner(home, CENTRAL, "ALTER TABLE pgherd.access_log RENAME TO elsewhere")
    partly = told(status=1)
    assert ([m["group"] for m in partly["could_not_look_at"]], len(partly["entries"])) == ([CENTRAL], 1)
    as_owner(home, CENTRAL, "ALTER TABLE pgherd.elsewhere RENAME TO access_log")
    assert main(["audit", "--trail", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "note_c" in shown
    assert "plain SQL on us-west is not recorded: pgaudit is not loaded" in shown
    assert main(["audit", "--table", "note", "--home", str(home)]) == 2
    assert main(["audit", "--trail", "--since", "yesterday", "--home", str(home)]) == 2


def test_what_is_not_recorded_is_said(kept: Herd, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = kept.plan(dialect.parse(SCHEMA + "SELECT audit_trail('questions');"))
    assert [s.target for s in made.steps if s.kind == "record"] == ["audit trail: questions"]
    assert [n.split(":")[0] for n in made.notes if "pgaudit" in n] == [f"node {r}" for r in (EAST, CENTRAL, WEST)]
    kept.table("note").search("pain", 5)
    assert main(["audit", "--home", str(home), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [(f["kind"], f["severity"], f["region"]) for f in found] == [
        ("plain_sql", "note", r) for r in (CENTRAL, EAST, WEST)
    ]


def test_one_server_keeps_one_too(single: Herd, single_db: Path) -> None:
    keep(single, "on")
    single.table("note").insert(ROWS)
    single.table("note").search("pain", 5)
    region = single.topology.groups[0].primary.label.region
    assert lines(single_db, region) == [("insert", ["note"], 40, None), ("search", ["note"], 5, None)]
