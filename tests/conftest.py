"""Real servers for all tests: one fleet and one single server a session, a database of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

import pgherd
from pgherd import dialect, herdfile
from pgherd.local import layout
from pgherd.local.herd import LocalHerd
from pgherd.model.topology import EngineName
from pgherd.sync import Herd

pytest_plugins = ["availability.replicated", "standin"]
Apply = Callable[[str], None]


def sampled(steps: int, *others: object, every: int = 7) -> list[Any]:
    """All of 1 to ``steps``, and ``others``; but for a sample they are for ``make test-all``."""
    long = [pytest.param(n, marks=pytest.mark.long) if n % every else n for n in range(1, steps + 1)]
    return [*long, *others]


# How fast a machine is says nothing about what is tested.
settings.register_profile("pgherd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pgherd")


@pytest.fixture(scope="session", autouse=True)
def own_ports(worker_id: str) -> Iterator[None]:
    """Servers of tests that run beside each other have ports of their own, those that are down for a while included."""
    with pytest.MonkeyPatch.context() as patch:
        if worker_id != "master":
            patch.setenv("PGHERD_FIRST_PORT", str(layout.FIRST_PORT - 1000 * (int(worker_id.removeprefix("gw")) % 5)))
        yield


@pytest.fixture(scope="session")
def fleet_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a running fleet of three regions."""
    yield from _running(tmp_path_factory.mktemp("fleet"), EngineName.FLEET)


@pytest.fixture(scope="session")
def single_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a running single server."""
    yield from _running(tmp_path_factory.mktemp("single"), EngineName.SINGLE)


def reachable(base: Path) -> Path:
    """Let servers that run as somebody else into a directory of pytest's, which is for its owner only."""
    for directory in (base, *base.parents):
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    return base


def _running(base: Path, engine: EngineName) -> Iterator[Path]:
    reachable(base)
    herd = LocalHerd(base / "herd")
    herd.up(None, engine)
    try:
        yield base / "herd"
    finally:
        herd.destroy()


@pytest.fixture
def fleet_db(fleet_home: Path, tmp_path: Path) -> Iterator[Path]:
    """A home like ``fleet_home`` for a database of its own: an empty fleet."""
    yield from own_database(fleet_home, tmp_path)


@pytest.fixture
def single_db(single_home: Path, tmp_path: Path) -> Iterator[Path]:
    """A home like ``single_home`` for a database of its own: an empty single server."""
    yield from own_database(single_home, tmp_path)


def own_database(home: Path, tmp_path: Path) -> Iterator[Path]:
    file = herdfile.read(home)
    name = "t" + uuid.uuid4().hex[:12]
    _on_all(file, home, f"CREATE DATABASE {name}")
    own = replace(file, dbname=name, passfile=str(home / "pgpass"))
    own.write(tmp_path)
    yield tmp_path
    for node in file.nodes:
        with _admin(file, home, node) as connection:
            leftover = "SELECT gid FROM pg_prepared_xacts WHERE database = %s"
            assert connection.execute(leftover, [name]).fetchall() == [], "a commit was left half done"
    _on_all(file, home, f"DROP DATABASE {name} WITH (FORCE)")
    for node in file.nodes:
        with _admin(file, home, node) as connection:
            roles = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [rf"pgherd\_%\_{name}"])
            for (role,) in roles.fetchall():  # of links, readers and scribes
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _admin(file: herdfile.HerdFile, home: Path, node: herdfile.HerdNode) -> psycopg.Connection:
    return psycopg.connect(
        host=node.host,
        port=node.port,
        user=file.user,
        dbname="postgres",
        passfile=str(home / "pgpass"),
        autocommit=True,
    )


def _on_all(file: herdfile.HerdFile, home: Path, statement: str) -> None:
    for node in file.nodes:
        with _admin(file, home, node) as connection:
            connection.execute(statement)


@pytest.fixture
def fleet(fleet_db: Path) -> Iterator[Herd]:
    """A client of an empty fleet."""
    with pgherd.connect(home=fleet_db) as herd:
        yield herd


@pytest.fixture
def single(single_db: Path) -> Iterator[Herd]:
    """A client of an empty single server."""
    with pgherd.connect(home=single_db) as herd:
        yield herd


@pytest.fixture(params=["single", "fleet"])
def herd(request: pytest.FixtureRequest) -> Herd:
    """A client of an empty herd, once for each engine: the conformance suite runs on this."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Herd)
    return found


def apply(herd: Herd, text: str) -> None:
    """Apply a schema text."""
    herd.execute(herd.plan(dialect.parse(text)))


@pytest.fixture(scope="session")
def pg_dsn(single_home: Path) -> str:
    """A DSN of one real server."""
    return herdfile.read(single_home).dsn(single_home)
