"""A full run, looked through for every secret: outputs, errors, plans, logs, processes, statements, files."""

from __future__ import annotations

import json
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

import pgherd
from availability.replicated import wait_until
from conftest import reachable
from pgherd import herdfile
from pgherd.cli.main import main
from pgherd.local.herd import LocalHerd
from pgherd.local.replicas import derived
from pgherd.model.placement import Label

pytestmark = pytest.mark.long
APP, LATER, KEY = (f"{kind}{secrets.token_urlsafe(24)}" for kind in ("app-", "later-", "sk-"))
BLOCK = '{"num_replicas": 1, "placement_blocks": [{"cloud":"local","region":"%s","zone":"*","min_num_replicas":1}]}'
SCHEMA = f"""
CREATE TABLESPACE east WITH (replica_placement = '{BLOCK % "us-east"}');
CREATE TABLE note (id bigint, place text, owner name, words text, v vector(2), PRIMARY KEY (id, place))
    PARTITION BY LIST (place);
CREATE TABLE note_e PARTITION OF note FOR VALUES IN ('east') TABLESPACE east;
CREATE TABLE note_rest PARTITION OF note DEFAULT;
CREATE TABLE kind (id int PRIMARY KEY, name text);
SELECT create_reference_table('kind');
CREATE INDEX ON note USING hnsw (v vector_l2_ops);
ALTER TABLE note ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON note USING (owner = current_user);
SELECT pgherd.table_roles('note');
CREATE ROLE app LOGIN PASSWORD '{APP}';
GRANT note_reader TO app;
"""


class Watched(threading.Thread):
    """Command lines of all processes, and statements of all sessions of all nodes, looked at again and again."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self._home, self._over, self.seen = home, threading.Event(), set[str]()
        self.start()

    def run(self) -> None:
        connections: dict[int, psycopg.Connection[Any]] = {}
        for turn in count():
            if self._over.wait(0.02):
                break
            for process in psutil.process_iter() if turn % 10 == 0 else ():  # a busy machine has many
                with suppress(psutil.Error):
                    self.seen.add(" ".join(process.cmdline()))
            file = herdfile.read(self._home)
            password = LocalHerd(self._home).password()
            for node in file.nodes:
                try:
                    if node.port not in connections:
                        connections[node.port] = psycopg.connect(
                            host=node.host, port=node.port, user=file.user, dbname=file.dbname, password=password,
                            autocommit=True, connect_timeout=2, application_name="watched",
                        )  # fmt: skip
                    found = connections[node.port].execute("SELECT query FROM pg_stat_activity")
                    self.seen |= {str(query) for (query,) in found}
                except psycopg.Error:
                    connections.pop(node.port, None)
        for connection in connections.values():
            connection.close()

    def end(self) -> str:
        self._over.set()
        self.join()
        return "\n".join(self.seen)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalHerd]:
    found = LocalHerd(reachable(tmp_path) / "herd")
    try:
        found.up(groups={"east": [Label.parse(f"us-east.{z}") for z in "abc"], "west": [Label.parse("us-west.a")]})
        yield found
    finally:
        found.destroy()


@pytest.fixture
def watched(local: LocalHerd) -> Iterator[Watched]:
    found = Watched(local.home)
    yield found
    found.end()


@contextmanager
def roles_locked(local: LocalHerd, watched: Watched) -> Iterator[None]:
    """Nobody makes a role until somebody has been seen waiting for it."""
    file = herdfile.read(local.home)
    west = next(n for n in file.nodes if n.group == "west")
    with psycopg.connect(
        host=west.host, port=west.port, user=file.user, dbname=file.dbname, password=local.password()
    ) as connection:
        connection.execute("LOCK TABLE pg_authid IN SHARE MODE")

        def let_go() -> None:
            wait_until(lambda: any("quietly" in text or APP in text for text in tuple(watched.seen)))
            connection.commit()

        waiting = threading.Thread(target=let_go)
        waiting.start()
        yield
        waiting.join()


def all_secrets(local: LocalHerd) -> dict[str, str]:
    """What nobody may see, by what it is."""
    password = local.password()
    found = {"password": password, "app": APP, "later": LATER, "key": KEY}
    found |= {purpose: derived(password, purpose) for purpose in ("etcd", "rest", "tokens")}
    for name in ("ca.key", "audit.key"):
        lines = (local.home / name).read_text().splitlines()
        found[name] = lines[lines.index(next(x for x in lines if "PRIVATE KEY" in x)) + 1]
    for path in local.home.glob("nodes/*/server.pem"):
        lines = path.read_text().splitlines()
        found[str(path)] = lines[lines.index(next(x for x in lines if "PRIVATE KEY" in x)) + 1]
    for path in local.home.glob("reader-*.pgpass"):
        for number, line in enumerate(path.read_text().splitlines()):
            found[f"{path.name} {number}"] = line.rsplit(":", 1)[1]
    with pgherd.connect(home=local.home) as herd:
        mapped = "SELECT DISTINCT option_value FROM pg_user_mapping, pg_options_to_table(umoptions)"
        for number, row in enumerate(herd.sql(mapped + " WHERE option_name = 'password'")):
            found[f"mapping {number}"] = row["option_value"]
        for number, row in enumerate(herd.sql("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")):
            found[f"verifier {number}"] = row["rolpassword"]
    return found


def test_no_secret_is_shown_anywhere(
    local: LocalHerd,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    watched: Watched,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level("DEBUG")
    said: list[str] = []
    backups = reachable(tmp_path) / "backups"

    def run(*arguments: str, status: int = 0) -> str:
        got = main([*arguments, "--home", str(local.home)])
        shown = capfd.readouterr()
        said.extend((shown.out, shown.err))
        assert got == status, shown
        return shown.out

    schema = tmp_path / "schema.sql"
    schema.write_text(SCHEMA)
    run("apply", str(schema), "--plan", "--json")
    run("apply", str(schema), "--plan")
    with roles_locked(local, watched):  # so that the statement with the password is looked at
        run("apply", str(schema), "--json")
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"id": i, "place": place, "owner": "app", "words": f"w {i}", "v": [i, far]}
        for i in range(20)
        for place, far in (("east", 1), ("x", 2))
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("load", "note", str(rows), "--json")
    run("search", "note", "[1, 1]", "--json")
    run("sql", "SELECT * FROM note WHERE 1 / (id - 1) > 7", "--region", "us-west", "--json", status=1)
    run("reader", "ensure", "--region", "us-east", "--tables", "note", "--json")
    run("audit", "--json")
    run("certificates", "renew", "--json")
    run("backup", "--to", f"us-east={backups}/east", "--to", f"us-west={backups}/west", "--json")
    for region in ("us-east", "us-west"):  # a plan that fails with secrets in it: such a role is there already
        run("sql", "CREATE ROLE later", "--region", region)
    schema.write_text(SCHEMA + f"CREATE ROLE later LOGIN PASSWORD '{LATER}';")
    assert "later" in run("apply", str(schema), "--plan", "--json")
    run("apply", str(schema), "--json", status=1)
    schema.write_text(SCHEMA + f"CREATE ROLE odd LOGIN PASSWORD '{LATER}' FROBNICATE;")
    run("apply", str(schema), "--json", status=2)
    with pgherd.connect(home=local.home) as herd:
        secret = herd.sql("SELECT pgherd.link_secret('pgherd_east') AS s", region="us-west")[0]["s"]
        with pytest.raises(pgherd.HerdError) as caught:
            herd.sql(
                "SELECT pgherd.quietly(format('CREATE USER MAPPING FOR PUBLIC SERVER pgherd_east OPTIONS (user %L,"
                " password %L)', 'x', pgherd.link_secret('pgherd_east')))",
                region="us-west",
            )
        diag = caught.value.__cause__.diag  # type: ignore[union-attr]
        said.append(f"{caught.value} {diag.message_primary} {diag.message_detail} {diag.context} {diag.internal_query}")
        assert secret
    run("status", "--json")
    known = all_secrets(local)
    said += [watched.end(), caplog.text]
    said += [path.read_text(errors="replace") for path in local.home.rglob("*.log*") if path.is_file()]
    assert len("".join(said)) > 10_000
    assert {name for name, value in known.items() if any(value in text for text in said)} == set()
    open_files = [
        path
        for path in local.home.rglob("*")
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]  # fmt: skip
    for path in open_files:
        content = path.read_bytes()
        assert {name for name, value in known.items() if value.encode() in content} == set(), path
