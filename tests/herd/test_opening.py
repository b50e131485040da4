"""Opening a herd: by an application's role, and by a newer version than made it."""

from __future__ import annotations

from pathlib import Path

import pytest

import pgherd
from conftest import apply
from pgherd import herdfile
from pgherd.cli.main import main
from pgherd.errors import ServerRefused

SCHEMA = """
CREATE TABLE doc (id bigint PRIMARY KEY, v vector(2));
SELECT create_distributed_table('doc', 'id', shard_count => 3);
CREATE TABLE secret (id bigint PRIMARY KEY);
CREATE ROLE opening_app LOGIN PASSWORD 'open sesame';
GRANT SELECT, INSERT, UPDATE, DELETE ON doc TO opening_app;
"""


@pytest.mark.parametrize("engine", ["single_db", "fleet_db"])
def test_an_applications_role_uses_a_herd(request: pytest.FixtureRequest, engine: str) -> None:
    home: Path = request.getfixturevalue(engine)
    with pgherd.connect(home=home) as owner:
        apply(owner, SCHEMA)
    file = herdfile.read(home)
    node = file.nodes[-1]
    dsn = f"host={node.host} port={node.port} dbname={file.dbname} user=opening_app password='open sesame'"
    try:
        with pgherd.connect(dsn) as app:
            table = app.table("doc")
            assert table.upsert([{"id": i, "v": [i, 1]} for i in range(12)]) == 12
            assert table.update({"id": 3}, {"v": [50, 1]}) == 1
            assert [h.row["id"] for h in table.search([50, 1], k=1, metric="l2")] == [3]
            assert table.delete({"id": 3}) == 1
            with pytest.raises(ServerRefused, match="permission denied"):
                app.sql("SELECT * FROM secret")
    finally:
        with pgherd.connect(home=home) as owner:
            for group in owner.topology.groups:
                owner.sql("DROP OWNED BY opening_app", region=group.name)
                owner.sql("DROP ROLE opening_app", region=group.name)


@pytest.mark.parametrize("engine", ["single_db", "fleet_db"])
def test_the_schema_of_an_older_version_is_brought_up_to_date(request: pytest.FixtureRequest, engine: str) -> None:
    home: Path = request.getfixturevalue(engine)
    with pgherd.connect(home=home) as herd:
        apply(herd, "CREATE TABLE doc (id bigint PRIMARY KEY, v vector(2))")
        herd.table("doc").insert({"id": 7, "v": [1, 2]})
        generation = herd.topology.generation
        for group in herd.topology.groups:
            herd.sql("UPDATE pgherd.catalog SET digest = 'an older one'", region=group.name)
            herd.sql("DROP FUNCTION pgherd.filter_sql, pgherd.search_doc, pgherd.search_parts", region=group.name)
            herd.sql("DROP TABLE pgherd.home", region=group.name)
    with pgherd.connect(home=home) as herd:
        assert herd.topology.generation == generation + 1
        for group in herd.topology.groups:
            assert herd.sql("SELECT pgherd.filter_sql('{\"a\": 1}', '{a}') AS c", region=group.name) == [
                {"c": "a = '1'"}
            ]
            found = herd.sql("SELECT id, home FROM pgherd.search_doc('[1,2]')", region=group.name)
            assert found == [{"id": 7, "home": herd.topology.groups[0].name}]
    with pgherd.connect(home=home) as herd:
        assert herd.topology.generation == generation + 1


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:pass%zzword@h/d", "host=h password=pass word", "host=h password='pass"]
)
def test_a_malformed_dsn_is_not_quoted(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    """libpq names the part that it could not read: that may be a password."""
    assert main(["status", "--dsn", dsn]) == 2
    said = capsys.readouterr().err
    assert "not a libpq connection string" in said
    assert not any(part in said for part in ("pass", "word"))
