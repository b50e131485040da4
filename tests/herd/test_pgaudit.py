"""Plain SQL in a herd with an audit trail, on servers whose PostgreSQL has pgaudit (PGHERD_PG_CONFIG)."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from conftest import apply
from pgherd import dialect, herdfile
from pgherd.cli.main import main
from pgherd.local.herd import log_of
from pgherd.local.installation import find
from pgherd.local.user import server_user
from pgherd.sync import Herd

BLOCK = (
    '{"num_replicas": 1, "placement_blocks": [{"cloud": "local", "region": "%s", "zone": "*", "min_num_replicas": 1}]}'
)
SCHEMA = f"""
CREATE TABLESPACE east WITH (replica_placement = '{BLOCK % "us-east"}');
CREATE TABLE note (id bigint, region text, text text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE note_e PARTITION OF note FOR VALUES IN ('e') TABLESPACE east;
SELECT pgherd.audit_trail('questions');
"""
MARK = "never-to-be-logged"


@pytest.mark.long
def test_statements_are_recorded_without_their_texts(
    fleet: Herd, fleet_db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not find(server_user()).pgaudit:
        pytest.skip("this PostgreSQL has no pgaudit")
    plan = fleet.plan(dialect.parse(SCHEMA))
    assert not [n for n in plan.notes if "plain SQL" in n]
    apply(fleet, SCHEMA)
    file = herdfile.read(fleet_db)
    logs = {n.label.region: log_of(Path(n.data_directory or "")) for n in file.nodes}
    before = {region: log.stat().st_size for region, log in logs.items()}
    with psycopg.connect(file.dsn(fleet_db, "us-west"), autocommit=True) as connection:
        connection.execute("INSERT INTO note VALUES (1, 'e', %s)", [MARK])
        connection.execute(f"SELECT text FROM note WHERE text LIKE '{MARK}%'".encode())
        connection.execute(f"CREATE ROLE x_{file.dbname} PASSWORD '{MARK}'".encode())
        connection.execute(f"DROP ROLE x_{file.dbname}".encode())
    wrote = {region: log.read_bytes()[before[region] :].decode() for region, log in logs.items()}
    assert MARK not in "".join(wrote.values())
    who = f"{file.user}@{file.dbname} 127.0.0.1 LOG:  AUDIT: SESSION,"
    asked = [x.partition(who)[2].split(",", 2)[-1] for x in wrote["us-west"].splitlines() if who in x]
    assert [x for x in asked if "public.note" in x or x.startswith("ROLE")] == [
        "WRITE,INSERT,TABLE,public.note,<not logged>,<not logged>,1",
        "READ,SELECT,TABLE,public.note,<not logged>,<not logged>,1",
        "ROLE,CREATE ROLE,,,<not logged>,<not logged>,0",
        "ROLE,DROP ROLE,,,<not logged>,<not logged>,0",
    ]
    assert "WRITE,INSERT,TABLE,public.note_e," in wrote["us-east"], "at home, under the link's login"
    assert main(["audit", "--home", str(fleet_db), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["clean"], report["findings"]) == (True, [])
    assert main(["audit", "--trail", "--home", str(fleet_db), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["plain_sql"]
    assert {(n["region"], n["recorded"]) for n in told} == {(region, True) for region in logs}
