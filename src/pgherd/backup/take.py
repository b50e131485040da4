"""Taking a backup of a whole herd: archiving, a base backup of each group, one moment, the rows counted.

Until the manifest is written, which is the last thing, there is no backup: whatever stops it leaves earlier ones as
they were, and the same command begins anew.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from .. import herdfile
from ..client import AsyncHerd
from ..engines.base import Engine
from ..engines.failures import talking_to
from ..errors import BackupFailed, BadInput, HerdBusy
from ..herdfile import write_atomically
from ..local import passfile
from ..local.herd import LocalHerd
from ..local.installation import Installation, find
from ..local.layout import USER
from ..local.user import ServerUser, server_user
from ..model.topology import Group
from . import archive, manifest
from .counting import count
from .manifest import Backup, Count, GroupBackup
from .moment import Moment, moment, tables_of
from .programs import run
from .target import LABEL, Target, assign
from .wal import segments_between

POINT_PREFIX = "pgherd_"
PASSFILE = "pgpass"
_OWNER = "owner.json"
_STALE_S = 3600

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Base:
    """A base backup that is made: where recovery from it begins."""

    system: str
    timeline: int
    start_lsn: str
    bytes: int


def new_label() -> str:
    """A label of this second, UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


async def take_backup(
    herd: AsyncHerd, home: Path, targets: tuple[Target, ...], label: str | None = None, progress: Progress | None = None
) -> Backup:
    """Back the local herd of ``home`` up into ``targets``; from now on its servers archive their WAL there.

    Raises BadInput for a label that is taken or attached servers, ResidencyRefused, BackupFailed, HerdBusy,
    GroupUnavailable.
    """
    say = progress or (lambda _: None)
    file = herdfile.read(home)
    label = _checked_label(label or new_label(), targets)
    if any(n.data_directory is None for n in file.nodes):
        raise BadInput(
            "these servers are attached: pgherd does not set up how they archive their WAL",
            hint="back them up as they are backed up now; pgherd backup is for local herds",
        )
    await herd.engine.refresh()
    chosen = assign(herd.topology, targets)
    user, groups = server_user(), herd.topology.groups
    installation = find(user)
    for group in groups:
        _make_directories(chosen[group.name], group, user)
    say("switching archiving on")
    sizes = await asyncio.gather(*(_archiving(herd.engine, g, chosen[g.name], home) for g in groups))
    say(f"copying {len(groups)} servers")
    bases = await _bases(herd.engine, installation, groups, chosen, label)
    base_at = datetime.now(UTC).isoformat()
    say("taking the moment")
    async with herd.engine.held() as topology:
        if topology.groups != groups:
            raise HerdBusy("servers joined or moved while they were copied", hint="take the backup again")
        async with moment(herd.engine, POINT_PREFIX + label) as (taken, readers):
            say("counting rows")
            counts: dict[str, tuple[Count, ...]] = {}
            if taken.quiet:
                tables = tables_of(topology)
                counted = await asyncio.gather(*(count(readers[g], tables[g]) for g in tables))
                counts = dict(zip(tables, counted, strict=True))
    parts = [
        replace(_part(g, chosen[g.name], bases[g.name], taken, label), segment_bytes=n, counts=counts.get(g.name, ()))
        for g, n in zip(groups, sizes, strict=True)
    ]
    say("waiting for the archive")
    await asyncio.gather(*(_archived(herd.engine, g, chosen[g.name], p) for g, p in zip(groups, parts, strict=True)))
    backup = Backup(
        label=label,
        base_at=base_at,
        taken_at=taken.taken_at,
        engine=file.engine.value,
        dbname=file.dbname,
        user=file.user,
        postgres_version=installation.version,
        generation=topology.generation,
        quiet=taken.quiet,
        spread_ms=taken.spread_ms,
        herd=tuple(str(g.name) for g in groups),
        groups=tuple(parts),
        two_node=file.two_node.value if file.two_node else None,
    )
    for directory in dict.fromkeys(t.directory for t in chosen.values()):
        mine = tuple(p for p in parts if chosen[p.name].directory == directory)
        _keep_password(home, directory)
        manifest.write(directory, replace(backup, groups=mine))
    return backup


async def stop_archiving(herd: AsyncHerd) -> None:
    """Let the servers archive no more; backups stay."""
    for group in herd.topology.groups:
        for info in _nodes(herd.engine, group):
            with talking_to(group.name, "switching archiving off"):
                async with await AsyncConnection.connect(**info, autocommit=True) as connection:
                    await archive.switch_off(connection)


def _checked_label(label: str, targets: tuple[Target, ...]) -> str:
    if not LABEL.match(label) or len(POINT_PREFIX + label) > 63:
        raise BadInput(f"{label!r} cannot name a backup", hint="letters, digits, - and _ (at most 56)")
    for target in targets:
        if manifest.path_of(target.directory, label).exists():
            raise BadInput(f"{target.directory} has a backup {label!r} already", hint="choose another --label")
    return label


def _make_directories(target: Target, group: Group, user: ServerUser) -> None:
    wal, bases = target.wal(group), target.base(group, "x").parent
    try:
        for directory in (wal, bases):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        user.give(wal)
        if user.drops:  # others may pass through to the WAL, but see no list of what is here
            for directory in (wal.parent, wal.parent.parent, target.directory):
                directory.chmod(directory.stat().st_mode & 0o777 | 0o011)
        for path in wal.glob(".*"):  # what a server that died left half copied
            if path.stat().st_mtime < time.time() - _STALE_S:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise BackupFailed(f"{error.filename or wal}: {error.strerror}", hint="name a directory of yours") from error
    user.check_reach(wal, "choose another directory, or open that one (chmod o+x)")


def _nodes(engine: Engine, group: Group) -> list[dict[str, Any]]:
    """How to reach each node of a group itself."""
    return [engine.whereabouts.conninfo_of(n) for n in group.nodes]


async def _archiving(engine: Engine, group: Group, target: Target, home: Path) -> int:
    """Switch archiving on, on all nodes, and see that it works; how large a segment is."""
    wal = target.wal(group)
    async with engine.connection(group.name) as connection:
        done = await connection.execute(
            "SELECT system_identifier::text, bytes_per_wal_segment FROM pg_control_system(), pg_control_init()"
        )
        system, segment_bytes = (await done.fetchall())[0]
        _claim(wal.parent, {"system": str(system), "home": str(home.resolve())})
        for info in _nodes(engine, group):
            with talking_to(group.name, "switching archiving on"):
                async with await AsyncConnection.connect(**info, autocommit=True) as node:
                    await archive.switch_on(node, group.name, wal)
        # The archiver reads the new command some time after now, so the first segment may still go nowhere.
        for last in (False, False, True):
            try:
                await archive.flush(connection, group.name, wal, 60 if last else 5)
                break
            except BackupFailed:
                if last:
                    raise
    return int(segment_bytes)


def _claim(directory: Path, owner: Mapping[str, str]) -> None:
    """One herd a directory: two with the same names would mix their WAL. BadInput if it is another's."""
    path = directory / _OWNER
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != owner:
            raise BadInput(
                f"{directory} holds backups of another herd ({found.get('home')})", hint="choose another directory"
            )
        return
    write_atomically(path, json.dumps(owner) + "\n", mode=0o644)


async def _bases(
    engine: Engine, installation: Installation, groups: tuple[Group, ...], chosen: Mapping[str, Target], label: str
) -> dict[str, _Base]:
    made = await asyncio.gather(
        *(_base(engine, installation, g, chosen[g.name].base(g, label)) for g in groups), return_exceptions=True
    )
    for one in made:
        if isinstance(one, BaseException):
            raise one
    return {str(g.name): b for g, b in zip(groups, made, strict=True) if isinstance(b, _Base)}


async def _base(engine: Engine, installation: Installation, group: Group, directory: Path) -> _Base:
    """A base backup of one group. WAL is left out: the archive has it."""
    if directory.exists():  # of a backup that did not come to its end
        shutil.rmtree(directory)
    async with engine.connection(group.name):  # finds out who is primary
        reach = engine.conninfo(group.name)
    info = {k: v for k, v in reach.items() if k not in ("password", "application_name")}
    dsn = make_conninfo("", **{**info, "dbname": "postgres"})
    arguments: list[str | Path] = ["-D", directory, "-d", dsn, "--no-password"]
    ended = await run(installation, "pg_basebackup", [*arguments, "--checkpoint=fast", "--wal-method=none"])
    if ended.status != 0:
        raise BackupFailed(f"group {group.name} was not copied: {ended.said[-500:]}", hint="see the message")
    document = json.loads((directory / "backup_manifest").read_text(encoding="utf-8"))
    ranges = document["WAL-Ranges"]
    if len(ranges) != 1:
        raise BackupFailed(f"group {group.name} failed over while it was copied", hint="take the backup again")
    size = sum(int(f["Size"]) for f in document["Files"])
    system = document.get("System-Identifier") or json.loads((directory.parent.parent / _OWNER).read_text())["system"]
    return _Base(str(system), int(ranges[0]["Timeline"]), str(ranges[0]["Start-LSN"]), size)


def _part(group: Group, target: Target, base: _Base, taken: Moment, label: str) -> GroupBackup:
    lsn, timeline = taken.points[group.name]
    if timeline != base.timeline:
        raise BackupFailed(f"group {group.name} failed over during the backup", hint="take the backup again")
    return GroupBackup(
        name=group.name,
        region=group.primary.label.region,
        places=tuple(str(n.label) for n in group.nodes),
        base=str(target.base(group, label).relative_to(target.directory)),
        wal=str(target.wal(group).relative_to(target.directory)),
        system=base.system,
        timeline=timeline,
        start_lsn=base.start_lsn,
        point_lsn=lsn,
        segment_bytes=0,
        bytes=base.bytes,
    )


async def _archived(engine: Engine, group: Group, target: Target, part: GroupBackup) -> None:
    wal = target.wal(group)
    async with engine.connection(group.name) as connection:
        await archive.flush(connection, group.name, wal)
        names = segments_between(part.start_lsn, part.point_lsn, part.timeline, part.segment_bytes)
        await archive.await_segments(connection, group.name, wal, names)


def _keep_password(home: Path, directory: Path) -> None:
    """The restored servers know the password; nobody could log in without it."""
    passfile.write(directory / PASSFILE, [("*", None)], USER, LocalHerd(home).password())
