"""Removing old backups: all but the newest few, then the WAL that nothing needs any more.

What is kept can be restored to its moment, and to any later time, as before: recovery from a base backup reads WAL from
where that began, never before. First goes a backup's base, then what says that it is there, WAL last; killed anywhere,
the same command goes on. A backup of which a group is in no place that was named stays, with its WAL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadInput
from .keeper import Setting, Tool, keeper_for
from .manifest import Found, GroupBackup, name_of, read_all
from .place import Place
from .wal import first_segment, position

Archive = tuple[Place, str, str, str]
"""A place, and a region, group and tool there."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Labels, oldest first. ``elsewhere``: of which some groups are in other places, and so stayed."""

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    elsewhere: tuple[str, ...]


async def expire(places: Sequence[Place], keep: int, setting: Setting) -> Expired:
    """Keep the newest ``keep`` backups in ``places``. Raises BadInput, BackupFailed, BackupDamaged."""
    if keep < 1:
        raise BadInput(f"{keep} backups can't be kept", hint="keep one at least")
    found = await asyncio.to_thread(read_all, places)
    whole = [f for f in found if all(g in f.places for g in f.backup.herd)]
    old = whole[:-keep]
    left = [f for f in found if f not in old]
    for one in old:
        for part in one.backup.groups:
            place = one.places[part.name]
            keeper = await asyncio.to_thread(keeper_for, Tool(part.tool), place, part.region, part.name, setting)
            await asyncio.to_thread(keeper.settle)
            await keeper.discard(part.base)
        for place in dict.fromkeys(one.places.values()):
            await asyncio.to_thread(place.remove, name_of(one.backup.label))
    for (place, region, group, tool), oldest in _oldest(left).items():
        keeper = await asyncio.to_thread(keeper_for, Tool(tool), place, region, group, setting)
        await asyncio.to_thread(keeper.settle)
        await keeper.expire_wal(first_segment(oldest.start_lsn, oldest.timeline, oldest.segment_bytes))
    return Expired(
        tuple(f.backup.label for f in old),
        tuple(f.backup.label for f in left if f in whole),
        tuple(f.backup.label for f in left if f not in whole),
    )


def _oldest(left: Sequence[Found]) -> dict[Archive, GroupBackup]:
    """The oldest part that needs each archive."""
    oldest: dict[Archive, GroupBackup] = {}
    for one in left:
        for part in one.backup.groups:
            archive = (one.places[part.name], part.region, part.name, part.tool)
            known = oldest.get(archive)
            if known is None or position(part.start_lsn) < position(known.start_lsn):
                oldest[archive] = part
    return oldest
