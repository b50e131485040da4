"""Leaks of every kind, planted by plain SQL and settings on a real fleet, and found; a herd without any is clean."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgherd
from conftest import own_database
from hostile import make_hospitals
from pgherd import herdfile
from pgherd.audit.finding import Finding, Severity
from pgherd.audit.report import Report
from pgherd.audit.run import audit

EAST, CENTRAL, WEST = "us-east", "us-central", "us-west"


@dataclasses.dataclass
class Ground:
    """Three hospitals, each in its region, with a reader of us-east."""

    home: Path

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
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def audit(self, **options: Any) -> Report:
        async def look() -> Report:
            async with pgherd.connect_async(home=self.home) as herd:
                return await audit(herd, herdfile.read(self.home), self.home, **options)

        return asyncio.run(look())

    def found(self) -> set[tuple[str, str, str, str | None]]:
        """(kind, severity, region, table) of each finding."""
        return {_short(f) for f in self.audit().outcome.findings}


def _short(f: Finding) -> tuple[str, str, str, str | None]:
    return f.kind, f.severity.value, f.region, f.table


@pytest.fixture(scope="module")
def ground(fleet_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    for home in own_database(fleet_home, tmp_path_factory.mktemp("audited")):
        asyncio.run(make_hospitals(home, EAST))
        yield Ground(home)


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


def test_a_table_under_a_shards_name_elsewhere(ground: Ground, planted: Callable[..., None]) -> None:
    aside = "CREATE TABLE pgherd_aside.treatment_new_york AS SELECT 1 AS id"
    planted(WEST, aside, "DROP TABLE pgherd_aside.treatment_new_york")
    assert ground.found() == {("wrong_heap", V, WEST, T)}


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


FORGET = "DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class WHERE relkind IN ('f', 'p'))"


def test_statistics_of_links(ground: Ground, planted: Callable[..., None]) -> None:
    planted(WEST, "ANALYZE treatment_new_york", FORGET)
    assert ground.found() == {("statistics", V, WEST, T)}


def test_statistics_of_a_table_with_links(ground: Ground, planted: Callable[..., None]) -> None:
    planted(EAST, "ANALYZE treatment", FORGET)
    found = ground.audit().outcome.findings
    assert {_short(f) for f in found} == {("statistics", V, EAST, T)}
    assert {f.detail.split(" in database")[0] for f in found} == {
        f"columns of public.{name}" for name in (T, "treatment_chicago", "treatment_san_francisco")
    }
    assert "mark-of" not in str(found)


def test_extended_statistics_of_links(ground: Ground, planted: Callable[..., None]) -> None:
    planted(CENTRAL, "CREATE STATISTICS pairs (mcv) ON icd_code, description FROM treatment", "DROP STATISTICS pairs")
    assert ground.found() == set()
    planted(CENTRAL, "ANALYZE treatment", FORGET)
    details = [f.detail for f in ground.audit().outcome.findings]
    assert [d for d in details if d.startswith("extended statistics pairs of public.treatment ")]


@pytest.mark.parametrize("dbname", [None, "postgres"])
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
