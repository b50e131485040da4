"""Leaks of every kind, planted by plain SQL and settings on a real fleet, and found; a herd without any is clean."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgherd
from conftest import own_database, reachable
from hostile import HOSPITALS, make_hospitals
from pgherd import AsyncHerd, dialect, herdfile
from pgherd.audit.finding import Finding, Severity
from pgherd.audit.report import Report
from pgherd.audit.run import audit
from pgherd.availability.logs import before as log_before
from pgherd.availability.logs import trim
from pgherd.backup.plain import command_for
from pgherd.cli.main import main
from pgherd.herdfile import Endpoint
from pgherd.local.installation import find
from pgherd.local.user import server_user

EAST, CENTRAL, WEST = "us-east", "us-central", "us-west"


@dataclass
class Ground:
    """Three hospitals, each in its region, with a reader of us-east."""

    home: Path
    herd: AsyncHerd
    loop: asyncio.AbstractEventLoop

    @property
    def dbname(self) -> str:
        return herdfile.read(self.home).dbname

    def conninfo(self, region: str, dbname: str | None = None) -> str:
        file = herdfile.read(self.home)
        node = next(n for n in file.nodes if n.label.region == region)
        password = next(
            line.rsplit(":", 1)[1]
            for line in Path(file.passfile or "").read_text().splitlines()
            if f":{node.port}:" in line
        )
        return make_conninfo(
            host=node.host, port=node.port, user=file.user, password=password, dbname=dbname or file.dbname
        )

    def run(self, region: str, *statements: str, dbname: str | None = None) -> list[tuple[Any, ...]]:
        """Statements as the owner; the last one's rows."""
        with psycopg.connect(self.conninfo(region, dbname), autocommit=True) as connection:
            connection.execute("SET pgherd.plan = 'on'")  # a leak that a superuser made past all guards
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def audit(self, **options: Any) -> Report:
        return self.loop.run_until_complete(audit(self.herd, herdfile.read(self.home), self.home, **options))

    def server_log(self, region: str) -> Path:
        """The log of a region's server; its data is beside it."""
        file = herdfile.read(self.home)
        data = next(n.data_directory for n in file.nodes if n.label.region == region)
        return Path(data or "").parent / "server.log"

    def clear_log(self, region: str) -> None:
        """Empty the log, as it was: the server appends to it."""
        os.truncate(self.server_log(region), 0)

    def found_when(self, expected: set[tuple[str, str, str, str | None]]) -> bool:
        """Whether exactly this is found, once the servers have heard of it."""
        deadline = time.monotonic() + 30
        while (found := self.found()) != expected:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return True

    def found(self) -> set[tuple[str, str, str, str | None]]:
        """(kind, severity, region, table) of each finding."""
        return {_short(f) for f in self.audit().outcome.findings}


def _short(f: Finding) -> tuple[str, str, str, str | None]:
    return f.kind, f.severity.value, f.region, f.table


@pytest.fixture(scope="module")
def ground(fleet_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with asyncio.Runner() as runner:
        for home in own_database(fleet_home, tmp_path_factory.mktemp("audited")):
            runner.run(make_hospitals(home, EAST))
            opened = pgherd.connect_async(home=home)
            made = Ground(home, runner.run(opened.__aenter__()), runner.get_loop())
            made.run(EAST, "UPDATE treatment_new_york SET embedding = format('[1.5,%s.25,5.125]', id)::vector")
            yield made
            runner.run(opened.__aexit__(None, None, None))


async def apply_to(herd: AsyncHerd, schema: str) -> None:
    await herd.execute(await herd.plan(dialect.parse(schema)))


@pytest.fixture
def planted(ground: Ground) -> Iterator[Callable[..., None]]:
    """``planted(region, statement, undo)``: what is undone when the test ends, last first."""
    with ExitStack() as undo:

        def plant(region: str, statement: str, away: str = "", dbname: str | None = None) -> None:
            if away:
                undo.callback(lambda: ground.run(region, *away.split("; "), dbname=dbname))
            ground.run(region, *statement.split("; "), dbname=dbname)

        yield plant


V, R = Severity.VIOLATION.value, Severity.RISK.value
T = "treatment"


def test_a_clean_herd_has_no_finding(ground: Ground) -> None:
    report = ground.audit()
    assert report.outcome.findings == ()
    assert (report.clean, report.complete) == (True, True)
    assert {p.shard.home for p in report.pinned} == {EAST, CENTRAL, WEST}
    assert {x.node for x in report.outcome.looked} >= {EAST, CENTRAL, WEST}


FORGET = "DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class WHERE relkind IN ('f', 'p'))"
ODD = '"100% {odd} ""name"""'
ODDLY = 'description AS "%s {x}"'
ASIDE = "pgherd_aside.treatment_new_york"
COPY = "SELECT {} FROM treatment WHERE hospital_location = 'New York'"
LOGGED = "(now(), 'r', 'us-east', 'c', 'query', '{treatment}', 1, 1, NULL, 'a question')"
OBJECT = '\'id,text\n1,"mark-of-new-york 1"\n2,"mark-of-new-york 2"\''
CSV = "string_agg(id || ',' || description, E'\\n') AS said"
LEAKS = [
    ("wrong_heap", f"CREATE TABLE {ASIDE} AS SELECT 1 AS id", f"DROP TABLE {ASIDE}"),
    ("table_copy", f"CREATE TABLE texts AS {COPY.format('description AS remark')}", "DROP TABLE texts"),
    ("table_copy", f"CREATE TABLE nearby AS {COPY.format('embedding AS v')}", "DROP TABLE nearby"),
    ("table_copy", f"CREATE TABLE written AS {COPY.format('embedding::text AS v')}", "DROP TABLE written"),
    ("table_copy", f"CREATE TABLE docs AS {COPY.format('jsonb_build_array(1, description) AS j')}", "DROP TABLE docs"),
    ("table_copy", f"CREATE TABLE lists AS {COPY.format('array_agg(description) AS l')}", "DROP TABLE lists"),
    ("table_copy", f"CREATE TABLE {ODD} AS {COPY.format(ODDLY)}", f"DROP TABLE {ODD}"),
    ("table_copy", f"CREATE TABLE named AS {COPY.format('1 AS c, 2 AS h, description AS x')}", "DROP TABLE named"),
    ("table_copy", f"CREATE TABLE dump AS {COPY.format('treatment::text AS said')}", "DROP TABLE dump"),
    ("table_copy", f"CREATE TABLE csv AS {COPY.format(CSV)}", "DROP TABLE csv"),
    ("table_copy", f"CREATE TABLE pairs AS {COPY.format('ROW(description, id)::pair AS p')}", "DROP TABLE pairs"),
    ("statistics", f"CREATE TABLE old AS {COPY.format('description')}; ANALYZE old; TRUNCATE old", "DROP TABLE old"),
    ("materialized_view", f"CREATE MATERIALIZED VIEW seen AS {COPY.format('count(*)')}", "DROP MATERIALIZED VIEW seen"),
    ("large_object", f"SELECT lo_from_bytea(4242, {OBJECT})", "SELECT lo_unlink(4242)"),
    ("statistics", "ANALYZE treatment_new_york", FORGET),
    ("access_log", f"INSERT INTO pgherd.access_log VALUES {LOGGED}", "DELETE FROM pgherd.access_log WHERE role = 'r'"),
]  # fmt: skip


def test_leaks_of_many_kinds_at_once(ground: Ground, planted: Callable[..., None]) -> None:
    planted(WEST, "CREATE TYPE pair AS (a text, b bigint)", "DROP TYPE pair")
    for _, statement, away in LEAKS:
        planted(WEST, statement, away)
    findings = ground.audit().outcome.findings
    assert Counter(map(_short, findings)) == Counter((kind, V, WEST, T) for kind, _, _ in LEAKS)
    assert "mark-of" not in str(findings)


@pytest.mark.long
def test_a_table_under_a_shards_name_elsewhere(ground: Ground, planted: Callable[..., None]) -> None:
    aside = "CREATE TABLE pgherd_aside.treatment_new_york AS SELECT 1 AS id"
    planted(WEST, aside, "DROP TABLE pgherd_aside.treatment_new_york")
    assert ground.found() == {("wrong_heap", V, WEST, T)}


@pytest.mark.long
def test_a_partition_that_the_herd_does_not_know(ground: Ground, planted: Callable[..., None]) -> None:
    planted(WEST, "CREATE TABLE rest PARTITION OF treatment DEFAULT", "DROP TABLE rest")
    assert ground.found() == {("unknown_partition", R, WEST, T)}
    row = "INSERT INTO hospital VALUES ('Rome', 'x', 'x')"
    planted(
        WEST,
        f"SET pgherd.everywhere = '9999'; {row}",
        "SET pgherd.everywhere = '9999'; DELETE FROM hospital WHERE location = 'Rome'",
    )
    planted(WEST, "INSERT INTO treatment VALUES (1, 'Rome', 'x', 'x')")
    assert ground.found() == {("unknown_partition", V, WEST, T)}


@pytest.mark.long
def test_statistics_of_links(ground: Ground, planted: Callable[..., None]) -> None:
    planted(WEST, "ANALYZE treatment_new_york", FORGET)
    assert ground.found() == {("statistics", V, WEST, T)}


@pytest.mark.long
def test_statistics_of_a_table_with_links(ground: Ground, planted: Callable[..., None]) -> None:
    planted(EAST, "ANALYZE treatment", FORGET)
    found = ground.audit().outcome.findings
    assert {_short(f) for f in found} == {("statistics", V, EAST, T)}
    assert {f.detail.split(" in database")[0] for f in found} == {
        f"columns of public.{name}" for name in (T, "treatment_chicago", "treatment_san_francisco")
    }
    assert "mark-of" not in str(found)


@pytest.mark.long
def test_extended_statistics_of_links(ground: Ground, planted: Callable[..., None]) -> None:
    planted(CENTRAL, "CREATE STATISTICS pairs (mcv) ON icd_code, description FROM treatment", "DROP STATISTICS pairs")
    assert ground.found() == set()
    planted(CENTRAL, "ANALYZE treatment", FORGET)
    details = [f.detail for f in ground.audit().outcome.findings]
    assert [d for d in details if d.startswith("extended statistics pairs of public.treatment ")]


@pytest.mark.parametrize("dbname", [pytest.param(None, marks=pytest.mark.long), "postgres"])
def test_a_foreign_table_of_another_name(ground: Ground, planted: Callable[..., None], dbname: str | None) -> None:
    file = herdfile.read(ground.home)
    east = next(n for n in file.nodes if n.label.region == EAST)
    if dbname:
        planted(WEST, "CREATE EXTENSION postgres_fdw", "DROP EXTENSION postgres_fdw CASCADE", dbname=dbname)
    server = (
        f"CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'localhost', port '{east.port}',"
        f" dbname '{ground.dbname}')"
    )
    planted(WEST, server, "DROP SERVER other CASCADE", dbname=dbname)
    assert ground.found() == {("foreign_server", R, WEST, T)}
    planted(
        WEST, "CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS (user 'x', password 'secret-word')", dbname=dbname
    )
    table = "CREATE FOREIGN TABLE peek (id bigint) SERVER other OPTIONS (table_name 'treatment_new_york')"
    planted(WEST, table, dbname=dbname)
    found = ground.audit().outcome.findings
    assert [_short(f) for f in found] == [("foreign_table", V, WEST, T)]
    assert "secret-word" not in str(found)


@pytest.mark.long
def test_a_link_that_leads_elsewhere(ground: Ground, planted: Callable[..., None]) -> None:
    west = next(n for n in herdfile.read(ground.home).nodes if n.label.region == WEST)
    east = next(n for n in herdfile.read(ground.home).nodes if n.label.region == EAST)
    change = "ALTER SERVER \"pgherd_us-east\" OPTIONS (SET port '{}')"
    planted(CENTRAL, change.format(west.port), change.format(east.port))
    assert {f[:3] for f in ground.found()} == {("link_elsewhere", V, CENTRAL)}


def test_a_subscription_in_another_region(ground: Ground, planted: Callable[..., None]) -> None:
    planted(EAST, "CREATE PUBLICATION leak FOR TABLE treatment_new_york", "DROP PUBLICATION leak")
    assert ground.found() == {("publication", R, EAST, T)}
    planted(
        EAST, "SELECT pg_create_logical_replication_slot('leak', 'pgoutput')", "SELECT pg_drop_replication_slot('leak')"
    )
    assert ground.found() == {("publication", R, EAST, T), ("logical_slot", R, EAST, T)}
    planted(WEST, "CREATE TABLE treatment_new_york (id bigint)", "DROP TABLE treatment_new_york", dbname="postgres")
    subscription = (
        f"CREATE SUBSCRIPTION leak CONNECTION '{ground.conninfo(EAST)}' PUBLICATION leak"
        " WITH (create_slot = false, enabled = false, connect = false)"
    )
    away = "ALTER SUBSCRIPTION leak SET (slot_name = NONE); DROP SUBSCRIPTION leak"
    planted(WEST, subscription, away, dbname="postgres")
    assert ground.found() == {("subscription", R, WEST, T)}
    planted(WEST, "ALTER SUBSCRIPTION leak ENABLE", "ALTER SUBSCRIPTION leak DISABLE", dbname="postgres")
    assert ground.found() == {("subscription", V, WEST, T)}


@pytest.mark.long
def test_copies_of_rows_in_a_table_of_another_name(ground: Ground, planted: Callable[..., None]) -> None:
    copy = "CREATE TABLE notes AS SELECT description AS remark FROM treatment WHERE hospital_location = 'New York'"
    planted(WEST, copy, "DROP TABLE notes")
    findings = ground.audit().outcome.findings
    assert [_short(f) for f in findings] == [("table_copy", V, WEST, T)]
    assert "20 of 20 sampled values of treatment_new_york.description" in findings[0].detail
    assert (findings[0].source, findings[0].target) == (EAST, WEST)
    assert "mark-of" not in str(findings)


@pytest.mark.long
@pytest.mark.parametrize(
    ("column", "value", "pieces"),
    [
        ("embedding public.vector(3)", "[1.5,7.25,5.125]", 1),
        ("j jsonb", '{"a": ["mark-of-new-york 1", {"b": "mark-of-new-york 2"}]}', 2),
        ("t text[]", '{"mark-of-new-york 1","mark-of-new-york 2"}', 2),
        ("b bytea", "mark-of-new-york 1", 1),
    ],
    ids=["vector", "jsonb", "array", "bytes"],
)
def test_copies_of_values_in_other_forms(
    ground: Ground, planted: Callable[..., None], column: str, value: str, pieces: int
) -> None:
    """In a database of somebody else's, too. A single short value may be chance: a risk."""
    dbname = None if column.startswith("embedding") else "postgres"
    planted(
        CENTRAL, f"CREATE TABLE odd ({column}); INSERT INTO odd VALUES ('{value}')", "DROP TABLE odd", dbname=dbname
    )
    findings = ground.audit().outcome.findings
    expected = V if pieces > 1 else R
    assert [_short(f) for f in findings] == [("table_copy", expected, CENTRAL, T)]
    assert f"holds {pieces} of " in findings[0].detail


@pytest.mark.long
def test_a_materialized_view_elsewhere(ground: Ground, planted: Callable[..., None]) -> None:
    planted(
        WEST, "CREATE VIEW all_of_them AS SELECT id, hospital_location FROM treatment", "DROP VIEW all_of_them CASCADE"
    )
    assert ground.found() == set()
    planted(WEST, "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM all_of_them")
    assert ground.found() == {("materialized_view", V, WEST, T)}


@pytest.mark.long
def test_values_in_a_reference_table(ground: Ground, planted: Callable[..., None]) -> None:
    rows = "SELECT 'R' || id, description, 'x' FROM treatment WHERE hospital_location = 'New York' AND id < 4"
    everywhere = "SET pgherd.everywhere = '9999'; "
    away = everywhere + "DELETE FROM hospital WHERE region = 'x'"
    planted(EAST, f"{everywhere}INSERT INTO hospital {rows}", away)
    assert ground.found() == set()  # which is only this region's copy
    planted(CENTRAL, f"{everywhere}INSERT INTO hospital {rows}", away)
    assert ground.found() == {("reference_copy", V, CENTRAL, T)}


@pytest.mark.long
def test_a_large_object(ground: Ground, planted: Callable[..., None]) -> None:
    content = '\'id,text\n1,"mark-of-new-york 1"\n2,"mark-of-new-york 2"\''
    planted(WEST, f"SELECT lo_from_bytea(4242, {content})", "SELECT lo_unlink(4242)")
    assert ground.found() == {("large_object", V, WEST, T)}


def test_values_in_a_log_file(ground: Ground, planted: Callable[..., None]) -> None:
    planted(WEST, "SELECT 1")
    log = ground.server_log(WEST)
    before = log.read_bytes()
    insert = "LOG:  statement: INSERT INTO x VALUES ('mark-of-new-york 1'), ('mark-of-new-york 2')\n"
    with log.open("a") as f:
        f.write(insert)
    try:
        findings = ground.audit().outcome.findings
        assert [_short(f) for f in findings] == [("log_values", V, WEST, T)]
        assert trim(log, (log.stat().st_uid, log.stat().st_gid), limit_bytes=0)
        assert ground.found() == {("log_values", V, WEST, T)}, "in what the log was before it began anew"
        with ground.server_log(EAST).open("a") as f:
            f.write(insert)
        assert ground.found() == {("log_values", V, WEST, T), ("log_values", R, EAST, T)}
    finally:
        log_before(log).unlink(missing_ok=True)
        log.write_bytes(before)
        text = ground.server_log(EAST).read_text()
        ground.server_log(EAST).write_text(text.replace(insert, ""))


ONE, BOTH = "'mark-of-new-york 1'", "'mark-of-new-york 1', 'mark-of-new-york 2'"
DEFINITIONS = {
    "comment on table hospital": (f"COMMENT ON TABLE hospital IS {ONE}", "COMMENT ON TABLE hospital IS NULL"),
    "labels of type word": (f"CREATE TYPE word AS ENUM ({BOTH})", "DROP TYPE word"),
    "default of told": (f"CREATE TABLE told (x text[] DEFAULT ARRAY[{BOTH}])", "DROP TABLE told"),
    "constraint c on table held": (
        f"CREATE TABLE held (x text CONSTRAINT c CHECK (x IN ({BOTH})))",
        "DROP TABLE held",
    ),
    "index part": (f"CREATE TABLE few (x text); CREATE INDEX part ON few (x) WHERE x IN ({BOTH})", "DROP TABLE few"),
    "bounds of cut_1": (
        f"CREATE TABLE cut (x text) PARTITION BY LIST (x); CREATE TABLE cut_1 PARTITION OF cut FOR VALUES IN ({BOTH})",
        "DROP TABLE cut",
    ),
    "function say": (f"CREATE FUNCTION say() RETURNS text LANGUAGE sql AS $$ SELECT {ONE} $$", "DROP FUNCTION say"),
    "on view shown": (f"CREATE VIEW shown AS SELECT ARRAY[{BOTH}] AS x", "DROP VIEW shown"),
    "policy own on table kept": (
        f"CREATE TABLE kept (x text); CREATE POLICY own ON kept USING (x IN ({BOTH}))",
        "DROP TABLE kept",
    ),
    "settings of everybody": (
        f"ALTER DATABASE {{db}} SET app.note = {ONE}",
        "ALTER DATABASE {db} RESET app.note",
    ),
}


def test_values_in_definitions(ground: Ground, planted: Callable[..., None]) -> None:
    """A single short value may be chance: a risk."""
    for statement, away in DEFINITIONS.values():
        planted(WEST, statement.replace("{db}", ground.dbname), away.replace("{db}", ground.dbname))
    findings = ground.audit().outcome.findings
    severe = Counter(V if "mark-of-new-york 2" in statement else R for statement, _ in DEFINITIONS.values())
    assert Counter(map(_short, findings)) == Counter({("definition", s, WEST, T): n for s, n in severe.items()})
    for place in DEFINITIONS:
        assert any(place in f.detail.replace("public.", "") for f in findings), place
    assert "mark-of" not in str(findings)


def test_files_that_are_not_the_servers(ground: Ground, planted: Callable[..., None]) -> None:
    data = ground.server_log(WEST).parent / "data"
    ((number,),) = ground.run(WEST, f"SELECT oid FROM pg_database WHERE datname = '{ground.dbname}'")
    stray, orphan = data / "dump.csv", data / "base" / str(number) / "99999999"
    try:
        planted(WEST, f"COPY ({COPY.format('description')}) TO '{stray}'")
        assert ground.found() == {("stray_file", V, WEST, T)}
        stray.write_bytes(b"what is in it nobody can tell")
        assert ground.found() == {("stray_file", R, WEST, T)}
        stray.rename(orphan)
        assert ground.found() == set()  # a transaction under way may have made it
        os.utime(orphan, (time.time() - 7200,) * 2)
        assert ground.found() == {("stray_file", R, WEST, T)}
    finally:
        stray.unlink(missing_ok=True)
        orphan.unlink(missing_ok=True)


def test_a_login_without_a_password(ground: Ground) -> None:
    rules = ground.server_log(WEST).parent / "data" / "pg_hba.conf"
    before = rules.read_text()
    try:
        rules.write_text("local all guest trust\n" + before)
        (finding,) = ground.audit().outcome.findings
        assert _short(finding) == ("login_rule", R, WEST, T)
        assert "line 1, lets guest in without a password" in finding.detail
    finally:
        rules.write_text(before)


@pytest.mark.long
def test_what_a_region_holds_by_right_proves_nothing(ground: Ground, planted: Callable[..., None]) -> None:
    """The same text in rows of both hospitals, and in a table of one of them."""
    row = "INSERT INTO treatment_{} VALUES (99, '{}', 'x', 'a text that both of them have, and long enough for proof')"
    for region, name, place in ((EAST, "new_york", "New York"), (WEST, "san_francisco", "San Francisco")):
        planted(region, row.format(name, place), f"DELETE FROM treatment_{name} WHERE id = 99")
    planted(WEST, "CREATE TABLE own AS SELECT description FROM treatment_san_francisco", "DROP TABLE own")
    planted(WEST, "DELETE FROM own WHERE description NOT LIKE 'a text%'")
    assert ground.found() == set()
    planted(
        CENTRAL,
        "CREATE TABLE own AS SELECT 'a text that both of them have, and long enough for proof'",
        "DROP TABLE own",
    )
    assert ground.found() == {("table_copy", V, CENTRAL, T)}


def test_names_that_every_node_knows_are_no_copies(ground: Ground, planted: Callable[..., None]) -> None:
    """A column of owners holds names of roles, which are in every node's catalog, and so in its log and topology."""
    role = f"somebody_{ground.dbname}"
    for region in (EAST, CENTRAL, WEST):
        planted(region, f"CREATE ROLE {role}", f"DROP ROLE {role}")
    names = (role, "treatment_san_francisco", "hospital_location")
    rows = ", ".join(f"({i}, 'New York', 'x', '{name}')" for i, name in enumerate(names, 900))
    planted(EAST, f"INSERT INTO treatment_new_york VALUES {rows}", "DELETE FROM treatment_new_york WHERE id >= 900")
    log = ground.server_log(WEST)
    before = log.read_bytes()
    with log.open("a") as f:
        f.write("".join(f'FATAL:  role "{name}" is not permitted to log in\n' for name in names))
    try:
        assert ground.found() == set()
    finally:
        log.write_bytes(before)
    planted(WEST, f"CREATE TABLE notes AS {COPY.format('description')}", "DROP TABLE notes")
    assert ground.found() == {("table_copy", V, WEST, T)}


@pytest.mark.long
def test_a_detached_home(ground: Ground, planted: Callable[..., None]) -> None:
    attach = (
        "DELETE FROM treatment_new_york WHERE hospital_location <> 'New York'; "
        "ALTER TABLE treatment ATTACH PARTITION treatment_new_york FOR VALUES IN ('New York')"
    )
    planted(EAST, "ALTER TABLE treatment DETACH PARTITION treatment_new_york", attach)
    assert ground.found() == {("constraint_missing", R, EAST, T)}
    planted(EAST, "INSERT INTO treatment_new_york VALUES (1, 'Chicago', 'x', 'x')")
    assert ground.found() == {("constraint_missing", R, EAST, T), ("stray_rows", V, EAST, T)}


def test_wal_archived_by_somebody_else(ground: Ground, planted: Callable[..., None]) -> None:
    reset = "ALTER SYSTEM RESET archive_command; SELECT pg_reload_conf()"
    planted(EAST, "ALTER SYSTEM SET archive_command = 'true # scp %p away:'; SELECT pg_reload_conf()", reset)
    assert ground.found_when({("wal_archive", V, EAST, T)})


@pytest.mark.long
def test_wal_archived_into_another_regions_directory(ground: Ground, planted: Callable[..., None]) -> None:
    reset = "ALTER SYSTEM RESET archive_command; SELECT pg_reload_conf()"
    planted(EAST, "SELECT 1", reset)
    mine, wrong = Path("/nowhere/us-east/us-east/wal"), Path("/nowhere/us-west/us-west/wal")
    for directory, expected in ((mine, set()), (wrong, {("wal_archive", V, EAST, T)})):
        command = command_for(directory).replace("'", "''")
        ground.run(EAST, f"ALTER SYSTEM SET archive_command = '{command}'", "SELECT pg_reload_conf()")
        assert ground.found_when(expected)


@pytest.mark.parametrize(
    "setting",
    [
        "log_statement = 'all'",
        *(
            pytest.param(s, marks=pytest.mark.long)
            for s in ("log_min_duration_statement = '0'", "log_min_error_statement = 'error'")
        ),
    ],
)
def test_settings_that_print_statements(ground: Ground, planted: Callable[..., None], setting: str) -> None:
    name = setting.split(" ")[0]
    away = f"ALTER SYSTEM RESET {name}; SELECT pg_reload_conf()"
    planted(WEST, f"ALTER SYSTEM SET {setting}; SELECT pg_reload_conf()", away)
    try:
        assert ground.found_when({("log_settings", R, WEST, T)})
        assert "mark-of" not in ground.server_log(WEST).read_text()  # the audit asks with hashes only
    finally:
        ground.run(WEST, *away.split("; "))
        ground.clear_log(WEST)


@pytest.mark.long
def test_details_of_errors_and_settings_of_roles(ground: Ground, planted: Callable[..., None]) -> None:
    planted(
        WEST, f"ALTER DATABASE {ground.dbname} SET log_statement = 'all'", f"ALTER DATABASE {ground.dbname} RESET ALL"
    )
    try:
        assert ground.found() == {("log_settings", R, WEST, T)}
    finally:
        ground.run(WEST, f"ALTER DATABASE {ground.dbname} RESET ALL")
        ground.clear_log(WEST)
    change = "ALTER SYSTEM SET log_min_messages = 'warning'; ALTER SYSTEM SET log_error_verbosity = 'default'"
    reload = "; SELECT pg_reload_conf()"
    planted(EAST, change + reload, "ALTER SYSTEM RESET ALL" + reload)
    try:
        assert ground.found_when({("log_settings", R, EAST, T)})
    finally:
        ground.run(EAST, "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
        ground.clear_log(EAST)


@pytest.mark.long
def test_a_directory_outside_and_temporary_files_there(
    ground: Ground, planted: Callable[..., None], tmp_path: Path
) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    reachable(outside)
    os.chown(outside, *(server_user().owner or (os.geteuid(), os.getegid())))
    planted(WEST, f"CREATE TABLESPACE elsewhere LOCATION '{outside}'", "DROP TABLESPACE elsewhere")
    assert ground.found() == {("directory", R, WEST, T)}
    reset = "ALTER SYSTEM RESET temp_tablespaces; SELECT pg_reload_conf()"
    planted(WEST, "ALTER SYSTEM SET temp_tablespaces = 'elsewhere'; SELECT pg_reload_conf()", reset)
    assert ground.found_when({("directory", R, WEST, T), ("temp_tablespaces", R, WEST, T)})


def test_links_in_the_data_directory_and_files_that_a_crash_left(ground: Ground) -> None:
    data = ground.server_log(WEST).parent / "data"
    (data / "odd").symlink_to("/tmp")
    left = data / "base" / "pgsql_tmp" / "pgsql_tmp999999.0"
    try:
        assert ground.found() == {("directory", R, WEST, T)}
        (data / "odd").unlink()
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"x" * 100)
        for path in (left.parent, left):
            os.chown(path, *(server_user().owner or (os.geteuid(), os.getegid())))
        assert ground.found() == {("temporary_files", R, WEST, T)}
    finally:
        (data / "odd").unlink(missing_ok=True)
        left.unlink(missing_ok=True)


DEFINER = "RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM treatment'"
SENDS = "RETURNS text LANGUAGE sql AS $$ SELECT pgherd.dblink_exec('host=x', 'INSERT INTO t VALUES (1)') $$"
LINK = 'FOREIGN SERVER "pgherd_us-east"'
RISKS = [
    ("link_rights", "GRANT SELECT ON treatment_new_york TO PUBLIC", "REVOKE ALL ON treatment_new_york FROM PUBLIC"),
    ("public_rights", "GRANT SELECT ON treatment TO PUBLIC", "REVOKE ALL ON treatment FROM PUBLIC"),
    ("public_rights", "CREATE VIEW v AS TABLE treatment; GRANT SELECT (id) ON v TO PUBLIC", "DROP VIEW v"),
    ("server_usage", f"GRANT USAGE ON {LINK} TO PUBLIC", f"REVOKE ALL ON {LINK} FROM PUBLIC"),
    ("definer_function", f"CREATE FUNCTION f() {DEFINER}", "DROP FUNCTION f"),
    ("definer_function", f"CREATE FUNCTION pgherd.search_all() {DEFINER}", "DROP FUNCTION pgherd.search_all"),
    ("sending_function", f"CREATE FUNCTION g() {SENDS}", "DROP FUNCTION g"),
    ("role_powers", "CREATE ROLE above LOGIN SUPERUSER", "DROP ROLE above"),
    ("role_powers", "CREATE ROLE past LOGIN BYPASSRLS", "DROP ROLE past"),
    ("role_powers", "CREATE ROLE curious LOGIN; GRANT pg_read_all_data TO curious", "DROP ROLE curious"),
    ("role_powers", "CREATE ROLE runs LOGIN; GRANT pg_execute_server_program TO runs", "DROP ROLE runs"),
    ("role_powers", "CREATE ROLE sends LOGIN REPLICATION", "DROP ROLE sends"),
    ("extension", "CREATE EXTENSION file_fdw", "DROP EXTENSION file_fdw"),
    ("extension", "CREATE EXTENSION plpython3u", "DROP EXTENSION plpython3u"),
    (
        "prepared_transaction",
        "BEGIN; CREATE TABLE unseen (x text); PREPARE TRANSACTION 'odd'",
        "ROLLBACK PREPARED 'odd'",
    ),
]


def risk(kind: str) -> tuple[str, str, str, str | None]:
    return kind, R, WEST, None if kind == "prepared_transaction" else T


@pytest.mark.long
@pytest.mark.parametrize(("kind", "statement", "away"), RISKS, ids=[f"{k}-{i}" for i, (k, _, _) in enumerate(RISKS)])
def test_what_could_let_rows_out(
    ground: Ground, planted: Callable[..., None], kind: str, statement: str, away: str
) -> None:
    planted(WEST, statement, away)
    assert [_short(f) for f in ground.audit().outcome.findings] == [risk(kind)]


def test_all_that_could_let_rows_out(ground: Ground, planted: Callable[..., None]) -> None:
    for _, statement, away in RISKS:
        planted(WEST, statement, away)
    findings = ground.audit().outcome.findings
    assert Counter(map(_short, findings)) == Counter(risk(kind) for kind, _, _ in RISKS)


@pytest.mark.long
def test_the_access_log_of_another_region(ground: Ground, planted: Callable[..., None]) -> None:
    line = "(now(), 'r', 'us-east', 'c', 'query', '{treatment}', 1, 1, NULL, 'a question')"
    planted(WEST, f"INSERT INTO pgherd.access_log VALUES {line}", "DELETE FROM pgherd.access_log WHERE role = 'r'")
    assert ground.found() == {("access_log", V, WEST, T)}


def test_a_receiver_of_wal_that_is_no_node(ground: Ground, tmp_path: Path) -> None:
    ground.run(EAST, "SELECT pg_create_physical_replication_slot('somebody')")
    try:
        assert ground.found() == {("physical_slot", R, EAST, T)}
    finally:
        ground.run(EAST, "SELECT pg_drop_replication_slot('somebody')")
    installation = find(server_user())
    argv = [str(installation.program("pg_receivewal")), "-d", ground.conninfo(EAST, "postgres"), "-D", str(tmp_path)]
    receiver = subprocess.Popen(argv, env={**os.environ, **installation.env}, stderr=subprocess.PIPE)
    try:
        assert ground.found_when({("unknown_standby", V, EAST, T)})
    finally:
        receiver.terminate()
        receiver.communicate()
    assert ground.found_when(set())


def test_changes_that_somebody_takes_now(ground: Ground) -> None:
    ground.run(EAST, "SELECT pg_create_logical_replication_slot('somebody', 'test_decoding')")
    installation = find(server_user())
    argv = [str(installation.program("pg_recvlogical")), "-d", ground.conninfo(EAST), "-S", "somebody", "--start"]
    receiver = subprocess.Popen(
        [*argv, "-f", "/dev/null"], env={**os.environ, **installation.env}, stderr=subprocess.DEVNULL
    )
    try:
        assert ground.found_when({("logical_slot", V, EAST, T)})
    finally:
        receiver.terminate()
        receiver.wait()
        ground.run(EAST, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
        ground.run(EAST, "SELECT pg_drop_replication_slot('somebody')")


def test_a_temporary_table_is_said_not_to_be_seen(ground: Ground) -> None:
    with psycopg.connect(ground.conninfo(WEST), autocommit=True) as connection:
        connection.execute("SET pgherd.plan = 'on'")
        connection.execute("CREATE TEMPORARY TABLE hidden AS SELECT description FROM treatment")
        report = ground.audit()
    missing = [x for x in report.outcome.not_looked if ".hidden" in x.what]
    assert [(x.node, x.why) for x in missing] == [(WEST, "it is a temporary table of another session")]
    assert report.outcome.findings == ()


def test_model_endpoints_with_and_without_a_region(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHERD_MODEL", "openai:small@https://user:word@models.example/v1?dim=3")
    findings = ground.audit().outcome.findings
    assert {_short(f) for f in findings} == {("endpoint_without_region", V, r, T) for r in (EAST, CENTRAL, WEST)}
    assert all("https://models.example " in f.detail and "word" not in str(f) for f in findings)
    file = herdfile.read(ground.home)
    replace(file, embedding={EAST: Endpoint("https://east.example/v1")}).write(ground.home)
    try:
        report = ground.audit()
        assert {f.region for f in report.outcome.findings} == {CENTRAL, WEST}
        assert [x.target for x in report.outcome.looked if x.what == "embedding endpoint of treatment"] == [
            "https://east.example"
        ]
    finally:
        file.write(ground.home)


def test_answering_endpoints_and_calls_that_were_made(ground: Ground, planted: Callable[..., None]) -> None:
    """An endpoint is where herd.toml says: not in two regions; and what was sent is in the log."""
    file = herdfile.read(ground.home)
    east, shared = Endpoint("https://east.example/v1", "m"), Endpoint("https://both.example/v1", "m")
    replace(file, llm={EAST: east, WEST: shared}, embedding={CENTRAL: shared}).write(ground.home)
    try:
        report = ground.audit()
        (finding,) = report.outcome.findings
        assert (finding.kind, finding.severity.value, finding.table) == ("endpoint_in_two_regions", R, T)
        assert "https://both.example is said to be in 2 regions" in finding.detail
        assert {x.target for x in report.outcome.looked if x.what == "answering endpoint of treatment"} == {
            "https://east.example",
            "https://both.example",
        }
        replace(file, llm={EAST: east}).write(ground.home)
        assert ground.found() == set()
    finally:
        file.write(ground.home)
    call = "INSERT INTO pgherd.model_log VALUES (now(), 'r', {}, 'x.example', 'm', 'treatment', {}, 7, 9)"
    planted(EAST, call.format("'us-east'", "'answer'"), "DELETE FROM pgherd.model_log")
    planted(EAST, call.format("NULL", "'question'"))
    assert ground.found() == set()
    planted(EAST, call.format("NULL", "'answer'"))
    planted(EAST, call.format("'mars'", "'row'"))
    findings = ground.audit().outcome.findings
    assert {_short(f) for f in findings} == {("model_call_outside", V, EAST, T)}
    assert {"no region" in f.detail for f in findings} == {True, False}


def test_a_home_that_is_gone(ground: Ground, planted: Callable[..., None]) -> None:
    back = "ALTER TABLE gone RENAME TO treatment_new_york"
    planted(EAST, "ALTER TABLE treatment_new_york RENAME TO gone", back)
    findings = ground.audit().outcome.findings
    assert ("home_missing", R, EAST, T) in {_short(f) for f in findings}
    assert {f.region for f in findings} == {EAST}


def test_settings_of_roles_that_move_files_or_load_code(ground: Ground, planted: Callable[..., None]) -> None:
    role = f"careless_{ground.dbname}"
    planted(WEST, f"CREATE ROLE {role}", f"DROP ROLE {role}")
    assert ground.found() == set()
    planted(WEST, f"ALTER ROLE {role} SET temp_tablespaces = 'pg_default'")
    assert ground.found() == {("temp_tablespaces", R, WEST, T)}
    planted(WEST, f"ALTER ROLE {role} SET session_preload_libraries = 'auto_explain, pg_cron'")
    findings = ground.audit().outcome.findings
    assert Counter(map(_short, findings)) == Counter([("temp_tablespaces", R, WEST, T), ("extension", R, WEST, T)])
    assert any(f"library pg_cron (session_preload_libraries of {role} in" in f.detail for f in findings)


def test_libraries_that_the_next_start_will_load(ground: Ground, planted: Callable[..., None]) -> None:
    """They are in a settings file and not in effect: nothing of the running server shows them."""
    before = {x.what for x in ground.audit().outcome.not_looked}
    libraries = "ALTER SYSTEM SET shared_preload_libraries = 'pg_cron, auto_explain, unheard_of'"
    planted(WEST, libraries, "ALTER SYSTEM RESET shared_preload_libraries")
    report = ground.audit()
    (finding,) = report.outcome.findings
    assert _short(finding) == ("extension", R, WEST, T)
    assert "library pg_cron (shared_preload_libraries in " in finding.detail
    assert finding.detail.endswith("postgresql.auto.conf, not in effect yet) runs statements by itself")
    (unknown,) = (x for x in report.outcome.not_looked if x.what not in before)
    assert unknown.what.startswith("library unheard_of (shared_preload_libraries in ")


WORKER = Path(__file__).parent.parent / "data" / "quiet.c"


@pytest.mark.long
def test_a_worker_of_somebodys_own(ground: Ground, planted: Callable[..., None], tmp_path: Path) -> None:
    """A library that starts a background worker, which connects to the database."""
    installation = find(server_user())
    headers = installation.bindir.parent / "include" / "server"
    compiler = shutil.which("cc")
    if compiler is None or not (headers / "postmaster" / "bgworker.h").exists():
        pytest.skip("no C compiler, or no headers of PostgreSQL's")
    library = reachable(tmp_path) / "quiet.so"
    argv = [compiler, "-shared", "-fPIC", f"-I{headers}", "-o", str(library), str(WORKER)]
    subprocess.run(argv, check=True, capture_output=True)
    library.chmod(0o755)
    function = f"CREATE FUNCTION start_quiet(text, text) RETURNS void LANGUAGE c STRICT AS '{library}'"
    planted(WEST, function, "DROP FUNCTION start_quiet")
    finding = ("extension", R, WEST, T)
    (found,) = ground.audit().outcome.findings
    assert _short(found) == finding
    assert f"library {library} in database {ground.dbname} has functions" in found.detail
    stop = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'quiet'"
    planted(WEST, f"SELECT start_quiet('{library}', '{ground.dbname}')", stop)
    assert ground.found_when({finding})
    details = {f.detail for f in ground.audit().outcome.findings}
    assert f"background worker quiet in database {ground.dbname} runs in the server" in details


def test_a_guard_that_is_off(ground: Ground, planted: Callable[..., None]) -> None:
    on = "ALTER EVENT TRIGGER pgherd_guard_end ENABLE ALWAYS"
    planted(WEST, "ALTER EVENT TRIGGER pgherd_guard_end DISABLE", on)
    assert ground.found() == {("guard_off", R, WEST, T)}


def test_a_link_past_a_strict_tablespace(fleet_db: Path) -> None:
    schema = HOSPITALS.replace("""'{"num_replicas": 1,""", """'{"num_replicas": 1, "strict": true,""")
    link = """
        DROP FOREIGN TABLE treatment_new_york;
        CREATE FOREIGN TABLE treatment_new_york PARTITION OF treatment FOR VALUES IN ('New York')
            SERVER "pgherd_us-east"
    """

    async def look() -> tuple[Report, Report]:
        async with pgherd.connect_async(home=fleet_db) as herd:
            await apply_to(herd, schema)
            clean = await audit(herd, herdfile.read(fleet_db), fleet_db)
            async with herd.engine.connection(WEST) as connection:
                await connection.execute("SET pgherd.plan = 'on'")
                for statement in link.strip().split(";"):
                    await connection.execute(statement.encode())
            return clean, await audit(herd, herdfile.read(fleet_db), fleet_db)

    clean, report = asyncio.run(look())
    assert clean.outcome.findings == ()
    assert [_short(f) for f in report.outcome.findings] == [("strict_link", V, WEST, T)]


def test_a_role_with_few_rights_is_told_what_it_could_not_see(ground: Ground, planted: Callable[..., None]) -> None:
    for region in (EAST, CENTRAL, WEST):
        planted(region, "CREATE ROLE looker LOGIN PASSWORD 'x'", "DROP ROLE looker")
    node = herdfile.read(ground.home).nodes[0]
    dsn = make_conninfo(host=node.host, port=node.port, user="looker", password="x", dbname=ground.dbname)

    async def look() -> Report:
        async with pgherd.connect_async(dsn) as herd:
            return await audit(herd)

    report = ground.loop.run_until_complete(look())
    assert report.outcome.findings == ()
    told = {(x.what, x.node) for x in report.outcome.not_looked}
    for what in (
        "subscriptions",
        "temporary files",
        "planner statistics that hold values",
        "some sessions and workers",
    ):
        assert {(what, region) for region in (EAST, CENTRAL, WEST)} <= told
    assert ("values of treatment_new_york.description", EAST) in told
    assert report.complete  # every server answered


def test_a_database_that_is_shut_makes_it_incomplete(ground: Ground, planted: Callable[..., None]) -> None:
    planted(WEST, "CREATE DATABASE shut ALLOW_CONNECTIONS false", "DROP DATABASE shut")
    report = ground.audit()
    assert (report.clean, report.complete) == (True, False)
    assert [(x.what, x.node) for x in report.outcome.not_looked if x.whole] == [("database shut", WEST)]
    assert main(["audit", "--home", str(ground.home), "--json"]) == 1


def test_the_command_signs_and_refuses(
    ground: Ground, planted: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, page = str(ground.home), tmp_path / "report.html"
    assert main(["audit", "--home", home, "--json", "--html", str(page)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"clean", "looked_at", "could_not_look_at", "findings"} <= document.keys()
    assert document["clean"] is True
    (tmp_path / "report.json").write_text(json.dumps(document))
    for file in (page, tmp_path / "report.json"):
        assert main(["audit", "--verify", str(file), "--home", home, "--json"]) == 0
    planted(WEST, "CREATE TABLE notes AS SELECT description FROM treatment", "DROP TABLE notes")
    capsys.readouterr()
    assert main(["audit", "--home", home, "--json", "--html", str(page)]) == 3
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert {"kind", "table", "node", "region", "detail"} <= finding.keys()
    assert "mark-of" not in page.read_text()
    assert main(["audit", "--home", home]) == 3
    assert "table_copy" in capsys.readouterr().out
    assert main(["audit", "--home", home, "--html", str(tmp_path / "none" / "x.html"), "--json"]) == 2
    (ground.home / "audit.key").chmod(0o644)
    try:
        capsys.readouterr()
        assert main(["audit", "--home", home, "--json"]) == 3
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "unsafe_setting"
    finally:
        (ground.home / "audit.key").chmod(0o600)


def test_hash_shards_are_held_to_their_bounds_too(ground: Ground, planted: Callable[..., None]) -> None:
    schema = """
        CREATE TABLESPACE east WITH (replica_placement = '{"num_replicas": 1, "placement_blocks": [
            {"cloud": "local", "region": "us-east", "zone": "*", "min_num_replicas": 1}]}');
        CREATE TABLE hashed (id bigint PRIMARY KEY, words text) PARTITION BY HASH (id) TABLESPACE east
            SPLIT INTO 2 TABLETS;
    """
    ground.loop.run_until_complete(apply_to(ground.herd, schema))
    assert ground.found() == set()
    ((name, bound),) = ground.run(
        EAST,
        "SELECT oid::regclass::text, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relkind = 'r'"
        " AND relispartition AND pg_partition_root(oid) = 'hashed'::regclass ORDER BY 1 LIMIT 1",
    )
    away = f"TRUNCATE {name}; ALTER TABLE hashed ATTACH PARTITION {name} {bound}"
    planted(EAST, f"ALTER TABLE hashed DETACH PARTITION {name}", away)
    planted(EAST, f"INSERT INTO {name} SELECT g, 'x' FROM generate_series(1, 50) g")
    assert ground.found() == {("constraint_missing", R, EAST, "hashed"), ("stray_rows", V, EAST, "hashed")}


def test_words_of_the_schema_and_of_prose_are_no_copies(ground: Ground, planted: Callable[..., None]) -> None:
    """They are on every node by design; and a phrase in a longer text is met by chance."""
    schema = """
        CREATE TABLESPACE east WITH (replica_placement = '{"num_replicas": 1, "placement_blocks": [
            {"cloud": "local", "region": "us-east", "zone": "*", "min_num_replicas": 1}]}');
        CREATE TABLE stay (id bigint PRIMARY KEY, status text DEFAULT 'waiting for a bed'
            CHECK (status IN ('waiting for a bed', 'sent home again, healthy and with good advice')), note text)
            TABLESPACE east;
    """
    ground.loop.run_until_complete(apply_to(ground.herd, schema))
    rows = "(1, DEFAULT), (2, 'sent home again, healthy and with good advice')"
    planted(EAST, f"INSERT INTO stay VALUES {rows}", "DELETE FROM stay")
    prose = 'He said: "mark-of-new-york 1"|or|"mark-of-new-york 2", and left'
    planted(WEST, f"CREATE TABLE letters AS SELECT '{prose}' AS body", "DROP TABLE letters")
    assert ground.found() == set()


def test_one_server_keeps_three_regions_in_one_place(single_db: Path) -> None:
    async def look() -> Report:
        async with pgherd.connect_async(home=single_db) as herd:
            await herd.execute(await herd.plan(dialect.parse(HOSPITALS)))
            return await audit(herd, herdfile.read(single_db), single_db)

    found = asyncio.run(look()).outcome.findings
    assert len(found) >= 2
    assert {(f.kind, f.severity.value) for f in found} == {("home_outside", V)}


def test_everything_was_taken_away_again(ground: Ground) -> None:
    assert ground.found() == set()
