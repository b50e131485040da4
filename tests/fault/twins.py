"""Two servers of their own for tests that kill, and what such tests ask of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from pgherd import herdfile
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName

EAST, WEST = "us-east", "us-west"


@dataclass(frozen=True)
class Twins:
    """A running herd of two servers and, below ``home``, a database of its own in it."""

    local: LocalHerd
    home: Path

    def up(self) -> None:
        """Start what was killed, at the ports it had."""
        before = herdfile.read(self.local.home).nodes
        assert self.local.up().nodes == before

    def connect(self, group: str) -> psycopg.Connection[Any]:
        return psycopg.connect(herdfile.read(self.home).dsn(self.home, group), autocommit=True, connect_timeout=10)

    def ask(self, group: str, query: str) -> list[Any]:
        with self.connect(group) as connection:
            return list(connection.execute(query).fetchall())  # type: ignore[call-overload]

    def same(self, query: str) -> list[Any]:
        """What both servers answer, which must be the same."""
        east, west = self.ask(EAST, query), self.ask(WEST, query)
        assert east == west
        return east

    def prepared(self) -> int:
        """How many transactions are neither committed nor rolled back."""
        query = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
        return sum(self.ask(g, query)[0][0] for g in (EAST, WEST))


@contextmanager
def two_servers() -> Iterator[LocalHerd]:
    """A fleet of two servers; nothing of it is left."""
    place = Path(tempfile.mkdtemp(prefix="pgherd-twins-"))
    place.chmod(0o711)  # the server user passes through
    local = LocalHerd(place / "home")
    try:
        local.up([Label.parse(EAST), Label.parse(WEST)], EngineName.FLEET)
        yield local
    finally:
        local.destroy()
        shutil.rmtree(place)


@contextmanager
def own_database(local: LocalHerd, directory: Path) -> Iterator[Twins]:
    """An empty database on both servers, and its home in ``directory``."""
    file = herdfile.read(local.home)
    name = "t" + uuid.uuid4().hex[:12]
    directory.mkdir(exist_ok=True)
    replace(file, dbname=name, passfile=str(local.home / "pgpass")).write(directory)
    twins = Twins(local, directory)

    def everywhere(statement: str) -> None:
        for node in file.nodes:
            with psycopg.connect(file.dsn(local.home, node.group), autocommit=True) as connection:
                connection.execute(statement)  # type: ignore[call-overload]

    everywhere(f"CREATE DATABASE {name}")
    yield twins
    twins.up()
    assert twins.prepared() == 0, "a commit was left half done"
    everywhere(f"DROP DATABASE {name} WITH (FORCE)")
    everywhere(f"DROP ROLE IF EXISTS pgherd_link_{name}")


def child(code: str, *args: object) -> subprocess.Popen[bytes]:
    """A Python process that runs ``code``."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], env=env, stderr=subprocess.PIPE)


def eventually(predicate: Callable[[], Any], what: str, timeout_s: float = 120) -> None:
    """Wait until ``predicate`` holds."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.005)
