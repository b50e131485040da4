"""The two herds that are compared: one server, and a fleet of two; made in a directory of their own, then removed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
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

SINGLE = "passage"
FLEET_1 = "passage_1"
FLEET_2 = "passage_2"
BY_REGION = "passage_by_region"
TABLE_OF = {1: FLEET_1, 2: FLEET_2}
"""The fleet's hash-distributed table with so many shards a group."""

_COLUMNS = (
    "id bigint NOT NULL, region text NOT NULL, code text NOT NULL, description text NOT NULL, embedding vector(256)"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Homes of the single server and of the fleet."""

    single: Path
    fleet: Path

    def connect(self, home: Path, group: str | None = None) -> psycopg.Connection[Any]:
        """A plain psycopg connection to a server (of ``group``), in autocommit."""
        return psycopg.connect(self.dsn(home, group), autocommit=True)

    def dsn(self, home: Path, group: str | None = None) -> str:
        """The DSN of one server."""
        return herdfile.read(home).dsn(home, group)

    def every_server(self) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
        """(group, connection) for each of the three servers; closed when the next is taken."""
        for home in (self.single, self.fleet):
            for node in herdfile.read(home).nodes:
                with self.connect(home, node.group) as connection:
                    yield node.group, connection


@contextmanager
def running() -> Iterator[Pair]:
    """Both herds, up and empty."""
    base = Path(tempfile.mkdtemp(prefix="pgherd-bench-"))
    base.chmod(0o711)  # servers started by root run as somebody else
    pair = Pair(base / "single", base / "fleet")
    single, fleet = LocalHerd(pair.single), LocalHerd(pair.fleet)
    try:
        single.up([Label.parse(REGIONS[0])], EngineName.SINGLE)
        fleet.up([Label.parse(r) for r in REGIONS], EngineName.FLEET)
        yield pair
    finally:
        for herd in (single, fleet):
            if herd.home.exists():
                herd.destroy()
        shutil.rmtree(base, ignore_errors=True)


def apply_tables(single: Herd, fleet: Herd, ef_construction: int | None = None) -> None:
    """Make the tables, and their indexes once ``ef_construction`` is given."""
    for herd, text in ((single, _single_schema(ef_construction)), (fleet, _fleet_schema(ef_construction))):
        herd.execute(herd.plan(dialect.parse(text)))


def _single_schema(ef_construction: int | None) -> str:
    return f"CREATE TABLE {SINGLE} ({_COLUMNS}, PRIMARY KEY (id));" + _index(SINGLE, ef_construction)


def _fleet_schema(ef_construction: int | None) -> str:
    text = ""
    for shards, table in TABLE_OF.items():
        text += f"CREATE TABLE {table} ({_COLUMNS}, PRIMARY KEY (id));"
        text += f"SELECT create_distributed_table('{table}', 'id', shard_count => {shards * len(REGIONS)});"
        text += _index(table, ef_construction)
    text += f"CREATE TABLE {BY_REGION} ({_COLUMNS}, PRIMARY KEY (id, region)) PARTITION BY LIST (region);"
    for region in REGIONS:
        name = region.replace("-", "_")
        block = f'{{"cloud": "local", "region": "{region}", "zone": "*", "min_num_replicas": 1}}'
        placement = f'{{"num_replicas": 1, "placement_blocks": [{block}]}}'
        text += f"CREATE TABLESPACE in_{name} WITH (replica_placement = '{placement}');"
        text += f"CREATE TABLE {BY_REGION}_{name} PARTITION OF {BY_REGION} FOR VALUES IN ('{region}')"
        text += f" TABLESPACE in_{name};"
    return text + _index(BY_REGION, ef_construction)


def _index(table: str, ef_construction: int | None) -> str:
    if ef_construction is None:
        return ""
    return (
        f"CREATE INDEX {table}_embedding_idx ON {table} USING hnsw (embedding vector_cosine_ops)"
        f" WITH (m = 16, ef_construction = {ef_construction});"
    )


def relations(herd: Herd, table: str) -> list[tuple[str, str]]:
    """(group, relation as SQL) of each of the table's shards."""
    topology = herd.topology
    return [(s.home, s.relation.sql) for s in topology.shards(topology.table(table))]


def empty(pair: Pair, home: Path, herd: Herd, table: str) -> None:
    """Remove a table's rows, and let its servers write out what they still have to."""
    for group, relation in relations(herd, table):
        with pair.connect(home, group) as connection:
            connection.execute(f"TRUNCATE {relation}")
            connection.execute("CHECKPOINT")


def settle(pair: Pair, single: Herd, fleet: Herd) -> None:
    """Vacuum and analyse all tables, read them and their indexes into memory, and write out what is left to write."""
    work = [(pair.single, group, relation) for group, relation in relations(single, SINGLE)]
    for table in (FLEET_1, FLEET_2, BY_REGION):
        work += [(pair.fleet, group, relation) for group, relation in relations(fleet, table)]

    def tidy(item: tuple[Path, str, str]) -> None:
        home, group, relation = item
        with pair.connect(home, group) as connection:
            connection.execute(f"VACUUM (ANALYZE) {relation}")
            connection.execute("CHECKPOINT")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(tidy, work))
