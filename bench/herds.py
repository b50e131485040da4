"""The herds that are compared, made in a directory of their own, then removed; and the tables in them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pgherd import dialect, herdfile
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from pgherd.sync import Herd

from .data import REGIONS

PLACES = (*REGIONS, "eu-west", "eu-east", "ap-south")
COLUMNS = ("id", "region", "code", "description", "embedding")


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one herd, each a group."""

    home: Path

    @property
    def groups(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(dict.fromkeys(node.group for node in herdfile.read(self.home).nodes))

    def dsn(self, group: str | None = None) -> str:
        """The DSN of one server, or of all."""
        return herdfile.read(self.home).dsn(self.home, group)

    def connect(self, group: str | None = None) -> psycopg.Connection[Any]:
        """A plain psycopg connection to a server (of ``group``), in autocommit."""
        return psycopg.connect(self.dsn(group), autocommit=True)

    def everywhere(self, *statements: str) -> None:
        """Run statements on every server."""
        for group in self.groups:
            with self.connect(group) as connection:
                for statement in statements:
                    connection.execute(statement)  # type: ignore[call-overload]

    @property
    def pids(self) -> tuple[int, ...]:
        """The postmasters."""
        local = LocalHerd(self.home)
        found = (local.postmaster(node.name).pid for node in herdfile.read(self.home).nodes)
        return tuple(pid for pid in found if pid is not None)

    def pid(self, group: str) -> int:
        """The postmaster of a group's primary."""
        for node in herdfile.read(self.home).nodes:
            if node.group == group:
                with psycopg.connect(self.dsn(group), host=node.host, port=node.port) as connection:
                    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
                pid = LocalHerd(self.home).postmaster(node.name).pid
                if row == (False,) and pid is not None:
                    return pid
        raise LookupError(f"group {group} has no primary")


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that servers started by root, who run as somebody else, may pass through; removed in the end."""
    base = Path(tempfile.mkdtemp(prefix="pgherd-bench-"))
    base.chmod(0o711)
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def running(*, replicas: int = 1, **wanted: int) -> Iterator[dict[str, Servers]]:
    """Herds of so many groups each, up and empty: a single server for 1, a fleet for more; ``replicas`` nodes a group.

    Two nodes a group are enough to read from: writes go on when one is lost.
    """
    more: dict[str, Any] = {}
    if replicas > 1:
        more = {"replicas": replicas, "two_node": herdfile.TwoNode("available") if replicas == 2 else None}
    with directory() as base:
        made = {name: LocalHerd(base / name) for name in wanted}
        try:
            for name, count in wanted.items():
                engine = EngineName.SINGLE if count == 1 else EngineName.FLEET
                made[name].up([Label.parse(r) for r in PLACES[:count]], engine, tls=False, **more)
            yield {name: Servers(base / name) for name in wanted}
        finally:
            for herd in made.values():
                if herd.home.exists():
                    herd.destroy()


def plain_table(name: str, dim: int) -> str:
    """One table, whole."""
    return f"CREATE TABLE {name} ({_columns(dim)}, PRIMARY KEY (id));"


def hash_table(name: str, dim: int, shards: int) -> str:
    """One table spread by its key."""
    return plain_table(name, dim) + f"SELECT create_distributed_table('{name}', 'id', shard_count => {shards});"


def nearest_table(name: str, dim: int, shards: int) -> str:
    """One table spread by which rows are near each other; its cells are to be learned before it takes rows."""
    columns = f"{_columns(dim)}, cell smallint"
    return (
        f"CREATE TABLE {name} ({columns}, PRIMARY KEY (id, cell));"
        f"SELECT pgherd.distribute_by_nearest('{name}', 'embedding', shard_count => {shards});"
    )


def region_table(name: str, dim: int) -> str:
    """One table whose rows are pinned to their region."""
    text = f"CREATE TABLE {name} ({_columns(dim)}, PRIMARY KEY (id, region)) PARTITION BY LIST (region);"
    for region in REGIONS:
        part = region.replace("-", "_")
        block = f'{{"cloud": "local", "region": "{region}", "zone": "*", "min_num_replicas": 1}}'
        placement = f'{{"num_replicas": 1, "placement_blocks": [{block}]}}'
        text += f"CREATE TABLESPACE in_{part} WITH (replica_placement = '{placement}');"
        text += f"CREATE TABLE {name}_{part} PARTITION OF {name} FOR VALUES IN ('{region}') TABLESPACE in_{part};"
    return text


def index(table: str, ef_construction: int) -> str:
    """The HNSW index that everybody gets."""
    return (
        f"CREATE INDEX {table}_embedding_idx ON {table} USING hnsw (embedding vector_cosine_ops)"
        f" WITH (m = 16, ef_construction = {ef_construction});"
    )


def _columns(dim: int) -> str:
    return (
        "id bigint NOT NULL, region text NOT NULL, code text NOT NULL, description text NOT NULL,"
        f" embedding vector({dim})"
    )


def apply(herd: Herd, *texts: str) -> None:
    """Bring the herd to what the texts say."""
    herd.execute(herd.plan(dialect.parse("".join(texts))))


def shards(herd: Herd, table: str) -> list[tuple[str, str]]:
    """(group, relation as SQL) of each of the table's shards."""
    topology = herd.topology
    return [(s.home, s.relation.sql) for s in topology.shards(topology.table(table))]


def insert(herd: Herd, table: str, tables: Sequence[Any]) -> None:
    """All rows through the client, one commit a batch."""
    target = herd.table(table)
    for rows in tables:
        target.insert(rows)


def empty(servers: Servers, herd: Herd, table: str) -> None:
    """Remove a table's rows, and let its servers write out what they still have to."""
    for group, relation in shards(herd, table):
        with servers.connect(group) as connection:
            connection.execute(f"TRUNCATE {relation}")
            connection.execute("CHECKPOINT")


def rebuild(servers: Servers, herd: Herd, table: str) -> None:
    """Build a table's vector indexes anew: graphs of the same rows, but other ones."""
    for group, relation in shards(herd, table):
        with servers.connect(group) as connection:
            connection.execute("SET maintenance_work_mem = '1GB'")
            done = connection.execute(
                "SELECT i.oid::regclass::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
                " JOIN pg_am a ON a.oid = i.relam WHERE a.amname = 'hnsw' AND x.indrelid = to_regclass(%s)",
                [relation],
            )
            for (name,) in done.fetchall():
                connection.execute(f"REINDEX INDEX {name}")  # type: ignore[call-overload]


def settle(what: Mapping[tuple[Servers, Herd], Sequence[str]]) -> None:
    """Vacuum and analyse tables, read them and their indexes into memory, and write out what is left to write."""
    work = [
        (servers, group, relation)
        for (servers, herd), tables in what.items()
        for table in tables
        for group, relation in shards(herd, table)
    ]

    def tidy(item: tuple[Servers, str, str]) -> None:
        servers, group, relation = item
        with servers.connect(group) as connection:
            connection.execute(f"VACUUM (ANALYZE) {relation}")
            connection.execute("CHECKPOINT")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(tidy, work))
