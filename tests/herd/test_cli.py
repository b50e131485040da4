"""The command line as a user types it: stable JSON keys, exit statuses, clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgherd.cli.main import main

SCHEMA = """
CREATE TABLESPACE east WITH (replica_placement='{"num_replicas":1,"placement_blocks":[
  {"cloud":"local","region":"us-east","zone":"*","min_num_replicas":1}]}');
CREATE TABLESPACE west WITH (replica_placement='{"num_replicas":1,"placement_blocks":[
  {"cloud":"local","region":"us-west","zone":"*","min_num_replicas":1}]}');
CREATE TABLE note (
    id bigint, place text, body text NOT NULL, embedding vector(256), PRIMARY KEY (id HASH, place)
) PARTITION BY LIST (place);
CREATE TABLE note_east PARTITION OF note FOR VALUES IN ('east') TABLESPACE east;
CREATE TABLE note_west PARTITION OF note FOR VALUES IN ('west') TABLESPACE west;
SELECT pgherd.embed_column('note', 'body', 'embedding');
"""


class Shell:
    """Runs commands against one home."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main([*arguments, "--home", str(self.home)])
        return status, *self._capsys.readouterr()

    def json(self, *arguments: str, status: int = 0) -> Any:
        found, stdout, stderr = self.run(*arguments, "--json")
        assert found == status, stderr + stdout
        return json.loads(stdout)


@pytest.fixture(params=["single_db", "fleet_db"])
def shell(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(request.getfixturevalue(request.param), capsys)


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.sql"
    path.write_text(SCHEMA)
    return path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.csv"
    lines = ["id,place,body", "1,east,the cat sleeps", "2,west,a dog barks", "3,east,rain over the sea", "4,moon,dust"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_apply_load_search_status(shell: Shell, schema: Path, notes: Path) -> None:
    plan = shell.json("apply", str(schema), "--plan")
    assert plan["parent_generation"] == 1
    assert {"kind", "target", "sql", "blocks"} <= set(plan["steps"][0])
    assert shell.json("status")["tables"] == []
    assert shell.json("apply", str(schema))["generation"] == 2
    assert shell.json("apply", str(schema), "--plan")["steps"] == []

    loaded = shell.json("load", "note", str(notes))
    assert (loaded["rows"], loaded["rejected"]) == (3, 1)
    assert json.loads(Path(loaded["reject_file"]).read_text())["line"] == 5

    found = shell.json("search", "note", "a kitten", "-k", "2")
    assert found["complete"] is True
    assert found["missing"] == []
    assert found["hits"][0]["row"] == {"id": 1, "place": "east", "body": "the cat sleeps"}
    assert {"distance", "row", "shard", "group"} <= set(found["hits"][0])
    assert {"name", "ms"} <= set(found["groups"][0])
    both = shell.json("search", "note", "dog barks", "--hybrid", "--text-column", "body")
    assert both["hits"][0]["row"]["id"] == 2
    assert both["hits"][0]["score"] > both["hits"][1]["score"]
    assert "score" in shell.run("search", "note", "dog barks", "--hybrid", "--text-column", "body")[1]
    only = shell.json("search", "note", "a kitten", "--where", "place = 'west'")
    assert [h["shard"] for h in only["hits"]] == ["note_west"]
    assert len(only["groups"]) == 1

    status = shell.json("status")
    assert status["generation"] == 2
    assert {"name", "host", "port", "role", "cloud", "region", "zone", "up", "lag_bytes"} <= set(
        status["groups"][0]["nodes"][0]
    )
    shards = {s["name"]: s["rows"] for t in status["tables"] for s in t["shards"]}
    assert shards == {"note_east": 2, "note_west": 1}


def test_sql_prints_rows(shell: Shell) -> None:
    assert shell.json("sql", "SELECT 1 AS one, NULL AS nothing") == {"rows": [{"one": 1, "nothing": None}]}
    status, stdout, _ = shell.run("sql", "SELECT 'x' AS letter")
    assert status == 0
    assert "letter" in stdout


def test_dsn_holds_no_password(shell: Shell) -> None:
    dsn = shell.json("dsn")["dsn"]
    assert dsn.startswith("postgresql://")
    secrets = [
        line.split(":")[-1] for line in next(shell.home.parent.rglob("pgpass"), Path("/dev/null")).read_text().split()
    ]
    assert not any(s in dsn for s in secrets)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["search", "nowhere", "x"], 2, "unknown_name"),
        (["apply", "no-such-file.sql"], 2, "bad_input"),
        (["load", "nowhere", "no-such-file.csv"], 2, None),
        (["search", "x"], 2, "usage"),
        (["sql", "SELEC 1"], 1, "server_refused"),
        (["dsn", "--region", "mars"], 2, "unknown_name"),
        (["demo", "circus"], 2, "bad_input"),
        (["up", "--regions", "a..b"], 2, "bad_input"),
        (["up", "--frobnicate"], 2, "usage"),
    ],
)
def test_errors_have_a_code_and_an_exit_status(
    shell: Shell, arguments: list[str], status: int, code: str | None
) -> None:
    error = shell.json(*arguments, status=status)["error"]
    assert code is None or error["code"] == code
    assert error["message"]
    assert isinstance(error["retryable"], bool)
    _, stdout, stderr = shell.run(*arguments)
    assert stdout == ""
    assert stderr


def test_bad_schema_names_line_and_column(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "bad.sql"
    path.write_text("CREATE TABLE a (id int);\nCREATE TABEL b (id int);\n")
    error = shell.json("apply", str(path), status=2)["error"]
    assert error["code"] == "syntax_error"
    assert "bad.sql:2:8" in error["message"]


def test_a_refused_change_exits_with_3(shell: Shell, schema: Path) -> None:
    shell.json("apply", str(schema))
    schema.write_text(SCHEMA.replace("body text NOT NULL", "body bytea NOT NULL").partition("SELECT pgherd")[0])
    assert shell.json("apply", str(schema), status=3)["error"]["code"] == "change_refused"


def test_no_herd_is_an_error_that_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = Shell(tmp_path / "empty", capsys).json("status", status=1)["error"]
    assert error["code"] == "no_such_herd"
    assert "pgherd up" in error["hint"]


def test_attach_makes_a_herd_of_servers_that_exist(
    fleet_db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pgherd import herdfile

    own = herdfile.read(fleet_db)
    nodes = "\n".join(f'[[nodes]]\nhost = "{n.host}"\nport = {n.port}\nregion = "{n.label.region}"' for n in own.nodes)
    file = tmp_path / "attach.toml"
    file.write_text(f'dbname = "{own.dbname}"\nuser = "{own.user}"\npassfile = "{own.passfile}"\n{nodes}\n')
    shell = Shell(tmp_path / "attached", capsys)
    document = shell.json("attach", str(file))
    assert [g["name"] for g in document["groups"]] == ["us-east", "us-central", "us-west"]
    assert shell.json("attach", str(file), status=2)["error"]["code"] == "bad_input"
    assert shell.json("sql", "SELECT count(*) FROM pgherd.topology") == {"rows": [{"count": 1}]}
