"""An audit from beginning to end: look at every node, let the probes judge, write it down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter

from ..client import AsyncHerd
from ..errors import GroupUnavailable
from ..herdfile import HerdFile
from .finding import Finding, Looked, NotLooked, Outcome, Probe, Severity, outcome
from .limits import BUDGET_S, SAMPLE
from .looking import DATABASE, HERD, SERVER, Reader, addresses_of, read_symlinks, title
from .pinned import pinned_shards
from .probes import (
    archive,
    copies,
    directories,
    endpoints,
    extensions,
    guard,
    homes,
    leftovers,
    links,
    logical,
    logs,
    roles,
    standbys,
    statistics,
    trail,
)
from .probes.logical import conninfo_of
from .report import Report
from .sampling import new_salt, sample
from .searching import Search
from .strays import count_strays
from .world import Seen, World

PROBES: tuple[Probe, ...] = (
    homes.probe, copies.probe, links.probe, logical.probe, standbys.probe, archive.probe, statistics.probe, logs.probe,
    directories.probe, roles.probe, endpoints.probe, extensions.probe, leftovers.probe, guard.probe, trail.probe,
)  # fmt: skip
Say = Callable[[str], None]


async def audit(
    herd: AsyncHerd,
    file: HerdFile | None = None,
    home: Path | None = None,
    say: Say | None = None,
    *,
    wanted: int = SAMPLE,
    budget_s: float = BUDGET_S,
) -> Report:
    """Look at all that holds or could receive a pinned row of ``herd``; nothing is changed.

    ``file`` and ``home`` are those of a herd that has a home. ``wanted`` values of each column of a pinned shard are
    looked for on all other servers, for at most ``budget_s``.
    """
    tell = say or (lambda _: None)
    started, began = perf_counter(), datetime.now(UTC)
    await herd.engine.refresh()
    dbname = await _dbname(herd)
    reader = Reader(herd.engine.whereabouts, dbname)
    try:
        world, outcomes = await _looked(herd, reader, file, home, tell, wanted, budget_s)
    finally:
        await reader.close()
    return Report(
        at=began.isoformat(timespec="seconds"),
        seconds=round(perf_counter() - started, 2),
        topology=world.topology,
        pinned=world.pinned,
        outcome=_joined([_seen(world), *outcomes]),
    )


async def _dbname(herd: AsyncHerd) -> str:
    """The herd's database; a DSN may leave it to libpq. Raises GroupUnavailable."""
    for group in herd.topology.groups:
        named = herd.engine.conninfo(group.name).get("dbname")
        if named:
            return str(named)
        with suppress(GroupUnavailable):
            async with herd.engine.connection(group.name) as connection:
                return str(connection.info.dbname)
    raise GroupUnavailable("no group answers", hint="pgherd status shows who is up")


async def _looked(
    herd: AsyncHerd,
    reader: Reader,
    file: HerdFile | None,
    home: Path | None,
    tell: Say,
    wanted: int,
    budget_s: float,
) -> tuple[World, list[Outcome]]:
    topology = herd.topology
    tell(f"reading {len(topology.nodes)} servers")
    nodes = list(await asyncio.gather(*(reader.see(g, n) for g in topology.groups for n in g.nodes)))
    await _read_standbys(reader, nodes)
    directories_of = {n.name: n.data_directory for n in file.nodes if n.data_directory} if file else {}
    for seen in nodes:
        if seen.why_down is None and seen.name in directories_of:
            seen.data_directory = Path(directories_of[seen.name])
            read_symlinks(seen.facts, seen.data_directory)
    world = World(topology, pinned_shards(topology), nodes, reader.dbname, file, home)
    world.global_model = os.environ.get("PGHERD_MODEL")
    world.addresses = await asyncio.to_thread(addresses_of, _hosts(world))
    values = Outcome()
    if world.pinned:
        tell("looking for pinned values")
        values = await _look_for_values(world, reader, wanted, budget_s)
    outcomes = [values, *(probe(world) for probe in PROBES)]
    return world, outcomes


async def _look_for_values(world: World, reader: Reader, wanted: int, budget_s: float) -> Outcome:
    """Hash samples at home, look for the hashes elsewhere, and count rows that PostgreSQL no longer holds back."""
    missed = await count_strays(world, reader)
    salt = new_salt()
    samples, told = await sample(world, reader, salt, wanted)
    search = Search(world, reader, salt, samples, monotonic() + budget_s)
    await asyncio.gather(*(search.node(seen) for seen in world.up()))
    world.matches = list(search.matches())
    return outcome([*missed, *told, *search.told, *search.shared()])


async def _read_standbys(reader: Reader, nodes: list[Seen]) -> None:
    """Where no primary answers, a standby's databases are read: they hold the same."""
    for group in {s.group.name for s in nodes}:
        members = [s for s in nodes if s.group.name == group]
        if not any(s.databases for s in members):
            one = next((s for s in members if s.why_down is None), None)
            if one is not None:
                await reader.read_databases(one)


def _hosts(world: World) -> Iterable[str]:
    """Every host name that connection strings on the servers hold, and the herd's own."""
    listed = [n.host for n in world.topology.nodes]
    for seen in world.up():
        listed += [r["host"] for r in seen.facts["receiver"] if r["host"]]
        for row in seen.facts["subscriptions"]:
            options = conninfo_of(row["conninfo"])
            listed += [options.get("hostaddr") or options.get("host") or ""]
        for facts in seen.databases.values():
            options_of = (r["options"] or {} for r in facts["foreign_servers"])
            listed += [o.get("hostaddr") or o.get("host") or "" for o in options_of]
    return {h.strip() for text in listed for h in text.split(",") if h.strip() and not h.startswith(("/", "@"))}


def _seen(world: World) -> Outcome:
    """What was read of each node, and what was not."""
    looked: list[Looked] = []
    missing: list[NotLooked] = []
    for seen in world.nodes:
        at = seen.name, seen.region
        if seen.why_down is not None:
            missing.append(NotLooked(f"node {seen.name}", *at, seen.why_down, whole=True))
            continue
        looked += [Looked(title(n), *at, count=len(seen.facts[n])) for n in SERVER if n in seen.facts.rows]
        missing += [NotLooked(title(n), *at, why) for n, why in seen.facts.failed.items()]
        if seen.setting("data_directory") is None:
            missing.append(NotLooked("settings that name directories and libraries", *at, "the role lacks pg_monitor"))
        for name, facts in seen.databases.items():
            if "all" in facts.failed:
                missing.append(NotLooked(f"database {name}", *at, facts.failed["all"], whole=True))
                continue
            where = f"database {name}"
            looked += [Looked(title(n), *at, where, len(facts[n])) for n in (*DATABASE, *HERD) if n in facts.rows]
            missing += [NotLooked(title(n), *at, f"{where}: {why}") for n, why in facts.failed.items()]
        shut = [r["name"] for r in seen.facts["databases"] if not r["open"] and r["name"] != "template0"]
        missing += [NotLooked(f"database {n}", *at, "it takes no connections", whole=True) for n in shut]
    return Outcome((), tuple(looked), tuple(missing))


def _joined(outcomes: Iterable[Outcome]) -> Outcome:
    found: dict[Finding, None] = {}
    looked: list[Looked] = []
    missing: list[NotLooked] = []
    for one in outcomes:
        found |= dict.fromkeys(one.findings)
        looked += one.looked
        missing += one.not_looked
    order = list(Severity)
    ranked = sorted(found, key=lambda f: (order.index(f.severity), f.kind, f.region, f.node, f.table or "", f.detail))
    return Outcome(tuple(ranked), tuple(looked), tuple(missing))
