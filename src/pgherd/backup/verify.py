"""Is a backup whole? Every file against its checksum, every WAL segment there and readable; fetched, where it is far.

Source: PostgreSQL 18 manual, pg_verifybackup and pg_waldump; a tool that keeps files compressed checks what it unpacks.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BackupDamaged, BadInput
from .keeper import Keeper, Setting, Tool, keeper_for
from .manifest import Found, GroupBackup, complete
from .programs import run
from .wal import segments_between


@dataclass(frozen=True, slots=True)
class Fetched:
    """A group's base backup and the WAL up to the backup's moment, both as directories, and who brought them."""

    base: Path
    wal: Path
    keeper: Keeper


async def verify(found: Found, setting: Setting) -> None:
    """Raise BackupDamaged naming the group and what is missing or changed, if anything is.

    What is not in a directory is fetched whole: the temporary directory needs room for one copy of the servers.
    """
    with tempfile.TemporaryDirectory(prefix="pgherd-verify-") as directory:
        await fetch(found, replace(setting, directory=Path(directory)))


async def fetch(found: Found, setting: Setting) -> dict[str, Fetched]:
    """Each group's part, checked; what is not in a directory is copied into the setting's.

    Raises BackupDamaged naming the group and what is wrong, BadInput without the tool that made the backup.
    """
    complete(found)
    groups = found.backup.groups
    keepers = {g.name: await asyncio.to_thread(_keeper, found, g, setting) for g in groups}
    await asyncio.to_thread(setting.prepare)
    made = await asyncio.gather(*(_fetch(g, keepers[g.name], setting) for g in groups), return_exceptions=True)
    for one in made:
        if isinstance(one, BaseException):
            raise one
    return {g.name: f for g, f in zip(groups, made, strict=True) if isinstance(f, Fetched)}


def _keeper(found: Found, group: GroupBackup, setting: Setting) -> Keeper:
    try:
        return keeper_for(Tool(group.tool), found.places[group.name], group.region, group.name, setting)
    except BadInput as error:
        raise BadInput(
            f"backup {found.backup.label} was made with {group.tool}: {error.message}", hint=error.hint
        ) from error


async def _fetch(group: GroupBackup, keeper: Keeper, setting: Setting) -> Fetched:
    await asyncio.to_thread(keeper.settle)
    own = setting.directory / f"fetched-{group.name}"
    names = segments_between(group.start_lsn, group.point_lsn, group.timeline, group.segment_bytes)
    base = await keeper.fetch_base(group, own / "base")
    if not (base / "global" / "pg_control").exists():
        raise BackupDamaged(f"group {group.name}: {group.base} is not whole", hint="use another backup (--label)")
    wal = await keeper.fetch_wal(names, own / "wal", base)
    _segments_there(wal, names, group)
    reach = ["-t", str(group.timeline), "-s", group.start_lsn, "-e", group.point_lsn]
    installation = setting.installation
    ended = await run(installation.program("pg_waldump"), ["-q", "-p", wal, *reach], installation.env)
    if ended.status != 0:
        raise BackupDamaged(
            f"group {group.name}: its WAL is damaged: {ended.said}", hint="use another backup (--label)"
        )
    return Fetched(base, wal, keeper)


def _segments_there(wal: Path, names: list[str], group: GroupBackup) -> None:
    for name in names:
        path = wal / name
        if not path.exists():
            raise BackupDamaged(
                f"group {group.name}: WAL segment {name} is missing from {group.wal}",
                hint="put it back, or use another backup",
            )
        if path.stat().st_size != group.segment_bytes:
            raise BackupDamaged(
                f"group {group.name}: WAL segment {path} has {path.stat().st_size} bytes, not {group.segment_bytes}",
                hint="put it back, or use another backup",
            )
