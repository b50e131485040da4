"""Citus for comparison, where there is one: a coordinator and two workers, the same rows in four shards.

It must be of the same installation as a PostgreSQL 16+ with pgvector, postgres_fdw and dblink, and its files readable
by everybody: ``PGHERD_BENCH_CITUS_PG_CONFIG`` names its pg_config. Nothing of it is needed otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from pgherd import herdfile
from pgherd.local import passfile
from pgherd.local.herd import LocalHerd
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName

from . import herds
from .copying import copy_blocks
from .data import REGIONS, Corpus, Vectors
from .herds import Servers, directory
from .searchers import Answers, Driver, nearest

VARIABLE = "PGHERD_BENCH_CITUS_PG_CONFIG"
LEFT_OUT = f"Citus: name the pg_config of an installation with citus and pgvector in {VARIABLE}"
TABLE = "passage"
WORKERS = 2
SHARDS = 4


class CitusDriver:
    """The query on the coordinator, prepared on one psycopg connection.

    Sessions that the coordinator opens to workers don't learn what is SET on it, so the effort is a setting of the
    database on every server, and a new effort needs new sessions.
    """

    def __init__(self, coordinator: Servers, everybody: list[Servers]) -> None:
        self._coordinator, self._everybody = coordinator, everybody
        self._effort = 0
        self._driver: Driver | None = None

    def ask(self, questions: Vectors, effort: int) -> Answers:
        """See :class:`.searchers.Searcher`."""
        return self.at(effort).ask(questions, effort)

    def at(self, effort: int) -> Driver:
        """A driver whose searches, on workers too, use this effort."""
        if self._driver is None or effort != self._effort:
            set_effort(self._everybody, effort)
            self._driver, self._effort = Driver(self._coordinator.dsn(), nearest(TABLE), sets_ef=False), effort
        return self._driver


def set_effort(everybody: list[Servers], effort: int) -> None:
    """For sessions that begin from now on."""
    for servers in everybody:
        servers.everywhere("SET citus.enable_ddl_propagation = off", _set_effort(servers, effort))


def _set_effort(servers: Servers, effort: int) -> str:
    name = herdfile.read(servers.home).dbname
    return f'ALTER DATABASE "{name}" SET hnsw.ef_search = {int(effort)}'


@contextmanager
def started(pg_config: str) -> Iterator[tuple[Servers, list[Servers]]]:
    """A coordinator and its workers, empty."""
    with directory() as base:
        made = [LocalHerd(base / name) for name in ("coordinator", *(f"worker{i}" for i in range(WORKERS)))]
        try:
            password = passfile.new_password()
            servers = [_start(herd, pg_config, password) for herd in made]
            _join(servers[0], servers[1:])
            yield servers[0], servers[1:]
        finally:
            for herd in made:
                if herd.home.exists():
                    herd.destroy()


def fill(coordinator: Servers, data: Corpus, ef_construction: int) -> None:
    """The same table, distributed by its key, with the same index."""
    with coordinator.connect() as connection:
        connection.execute(sql.SQL(herds.plain_table(TABLE, data.dim)))
        connection.execute("SELECT create_distributed_table(%s, 'id', shard_count => %s)", [TABLE, SHARDS])
        copy_blocks(connection, TABLE, data)
        connection.execute(sql.SQL(herds.index(TABLE, ef_construction)))
        connection.execute(f"VACUUM (ANALYZE) {TABLE}")


def rebuild(coordinator: Servers) -> None:
    """Build the indexes anew."""
    with coordinator.connect() as connection:
        connection.execute(f"REINDEX INDEX {TABLE}_embedding_idx")  # type: ignore[call-overload]


def _start(herd: LocalHerd, pg_config: str, password: str) -> Servers:
    """A server as the others have it, with Citus in it: that takes a restart. All have one password, to join by."""
    node = herd.up([Label.parse(REGIONS[0])], EngineName.SINGLE, pg_config, tls=False)
    servers = Servers(herd.home)
    change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(node.user), sql.Literal(password))
    servers.everywhere(
        "ALTER SYSTEM SET shared_preload_libraries = citus",
        "ALTER SYSTEM SET citus.node_conninfo = 'sslmode=disable'",
        "ALTER SYSTEM SET citus.enable_statistics_collection = off",
        change,
    )
    herd.down()
    assert node.passfile is not None
    passfile.write(Path(node.passfile), [(n.host, n.port) for n in node.nodes], node.user, password)
    herd.up(pg_config=pg_config)
    with servers.connect() as connection:
        connection.execute("CREATE EXTENSION citus")
        connection.execute("CREATE EXTENSION vector")
        connection.execute("INSERT INTO pg_dist_authinfo VALUES (0, %s, %s)", [node.user, f"password={password}"])
    return servers


def _join(coordinator: Servers, workers: list[Servers]) -> None:
    """Make the servers known to the coordinator."""
    with coordinator.connect() as connection:
        for place, function in ((coordinator, "citus_set_coordinator_host"), *((w, "citus_add_node") for w in workers)):
            node = herdfile.read(place.home).nodes[0]
            connection.execute(f"SELECT {function}(%s, %s)", [node.host, node.port])
