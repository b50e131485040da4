"""Is a backup whole? Every file against its checksum, every WAL segment there and readable."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..errors import BackupDamaged
from ..local.installation import Installation
from .manifest import Found, GroupBackup, complete
from .programs import run
from .wal import segments_between


async def verify(found: Found, installation: Installation) -> None:
    """Raise BackupDamaged naming the group and what is missing or changed, if anything is.

    Source: PostgreSQL 18 manual, pg_verifybackup and pg_waldump, which do the reading.
    """
    complete(found)
    for group in found.backup.groups:
        _segments_there(found.wal(group.name), group)
    await asyncio.gather(*(_verify(found, g, installation) for g in found.backup.groups))


def _segments_there(wal: Path, group: GroupBackup) -> None:
    for name in segments_between(group.start_lsn, group.point_lsn, group.timeline, group.segment_bytes):
        path = wal / name
        if not path.exists():
            raise BackupDamaged(
                f"group {group.name}: WAL segment {name} is missing from {wal}",
                hint="put it back, or use another backup",
            )
        if path.stat().st_size != group.segment_bytes:
            raise BackupDamaged(
                f"group {group.name}: WAL segment {path} has {path.stat().st_size} bytes, not {group.segment_bytes}",
                hint="put it back, or use another backup",
            )


async def _verify(found: Found, group: GroupBackup, installation: Installation) -> None:
    base = found.base(group.name)
    if not base.is_dir():
        raise BackupDamaged(f"group {group.name}: {base} is missing", hint="put it back, or use another backup")
    ended = await run(installation, "pg_verifybackup", ["--no-parse-wal", "--exit-on-error", "--quiet", base])
    if ended.status != 0:
        raise BackupDamaged(f"group {group.name}: {ended.said}", hint="use another backup (--label)")
    reach = ["-t", str(group.timeline), "-s", group.start_lsn, "-e", group.point_lsn]
    ended = await run(installation, "pg_waldump", ["-q", "-p", found.wal(group.name), *reach])
    if ended.status != 0:
        raise BackupDamaged(
            f"group {group.name}: its WAL is damaged: {ended.said}", hint="use another backup (--label)"
        )
