"""Index builds on a server: what an interrupted one left is removed, and the session gets memory and processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg import sql

from ...model.names import Name
from ...model.topology import Topology
from ...planning.building import MIB, Machine, build_memory_bytes, index_of_step, resources
from ...planning.plan import Phase, Step
from ..base import Connection

_FILES = ("/proc/meminfo", "/proc/cpuinfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max")
_READ = "SELECT pg_read_file(%s, 0, 4000000, true)"
_SETTINGS = (
    "SELECT pg_size_bytes(current_setting('maintenance_work_mem')),"
    " pg_size_bytes(current_setting('effective_cache_size'))"
)


def builds_on(topology: Topology, group: str, steps: tuple[Step, ...]) -> int:
    """How many of the groups that build at the same time share the machine of ``group``, itself counted."""
    return _sharing(topology, group, {g for s in steps for g in s.groups})


def parts_on(topology: Topology, step: Step, phases: Sequence[Phase], jobs: int) -> int:
    """How many of ``phases``, moves and splits that build ``jobs`` at a time, may build where ``step`` does."""
    first = (next((b for b in p.builds if b.index), None) for p in phases)
    targets = [b.groups[0] for b in first if b]
    return min(jobs, _sharing(topology, step.groups[0], targets))


def _sharing(topology: Topology, group: str, building: Collection[str]) -> int:
    host = topology.group(group).primary.host
    return sum(topology.group(g).primary.host == host for g in building)


async def build_index(connection: Connection, step: Step, topology: Topology, builds: int) -> None:
    """Run a ``build_index`` step, in autocommit."""
    # A server that works on for a client that is dead keeps the next one from clearing up.
    await connection.execute("SET client_connection_check_interval = '1s'")

    async def build() -> None:
        await _drop_invalid(connection, step.target)
        await connection.execute(step.sql)

    await with_resources(connection, step, topology, builds, build)


async def with_resources(
    connection: Connection, step: Step, topology: Topology, builds: int, build: Callable[[], Awaitable[None]]
) -> None:
    """``build`` what ``step`` builds, as one of ``builds`` builds on its machine; called outside of a transaction."""
    async with _resources(connection, step, topology, builds):
        try:
            await build()
        except psycopg.errors.DiskFull as error:
            if "shared memory" not in (error.diag.message_primary or ""):
                raise
            # Parallel builds share memory in /dev/shm, often 64 MB in a container; one process needs none.
            await connection.execute("SET max_parallel_maintenance_workers = 0")
            await build()


async def _drop_invalid(connection: Connection, index: str) -> None:
    """An index whose concurrent build was interrupted is useless and in the way."""
    row = await (
        await connection.execute("SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s)", [index])
    ).fetchone()
    if row and not row[0]:
        name = Name.parse(index)
        await connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(*name)))


@asynccontextmanager
async def _resources(connection: Connection, step: Step, topology: Topology, builds: int) -> AsyncIterator[None]:
    """Session settings for one build; back to the server's own afterwards."""
    found = index_of_step(topology, step)
    needed = 0
    if found is not None:
        index, table, relation = found
        needed = build_memory_bytes(index, table, await _rows(connection, relation))
    if not needed:
        yield
        return
    row = await (await connection.execute(_SETTINGS)).fetchone()
    assert row is not None
    given = resources(await _machine(connection, row[1]), builds, needed, row[0])
    await connection.execute(f"SET maintenance_work_mem = '{given.memory_bytes // 1024}kB'")
    if given.workers is not None:
        await connection.execute(f"SET max_parallel_maintenance_workers = {given.workers}")
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # a connection that broke is told of by what broke it
            await connection.execute("RESET maintenance_work_mem; RESET max_parallel_maintenance_workers")


async def _rows(connection: Connection, relation: Name) -> int:
    """About how many rows: as the statistics say of a page, times the pages there are now; else they are counted."""
    query = (
        "SELECT reltuples / nullif(relpages, 0)"
        " * (pg_relation_size(oid) / current_setting('block_size')::int) FROM pg_class WHERE oid = to_regclass(%s)"
    )
    row = await (await connection.execute(query, [relation.sql])).fetchone()
    if row and row[0] is not None and row[0] >= 0:
        return int(row[0])
    counted = await connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*relation)))
    row = await counted.fetchone()
    return int(row[0]) if row else 0


async def _machine(connection: Connection, cache_bytes: int) -> Machine:
    """What the server's machine or container has. Who may not read its files takes the server's word for the memory."""
    try:
        texts = [await _file(connection, name) for name in _FILES]
    except psycopg.errors.InsufficientPrivilege:
        return Machine(cache_bytes, cache_bytes, None)
    memory, processors, memory_limit, cpu_limit = texts
    fields = dict(line.split(":", 1) for line in memory.splitlines() if ":" in line)
    kib = {name: int(value.split()[0]) for name, value in fields.items() if value.split()}
    total = kib.get("MemTotal", cache_bytes // 1024) * 1024
    available = kib.get("MemAvailable", total // 1024) * 1024
    if memory_limit.strip().isdigit():
        total = min(total, int(memory_limit))
    cpus = sum(line.startswith("processor") for line in processors.splitlines()) or None
    quota, _, period = cpu_limit.strip().partition(" ")
    if cpus and quota.isdigit() and period.isdigit():
        cpus = max(1, min(cpus, int(quota) // int(period)))
    return Machine(total, max(min(available, total), 64 * MIB), cpus)


async def _file(connection: Connection, name: str) -> str:
    row = await (await connection.execute(_READ, [name])).fetchone()
    return str(row[0] or "") if row else ""
