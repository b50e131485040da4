"""Servers that come and go, as a herd's home keeps them: its file, its passwords, its local servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from . import herdfile
from .client import connect_async
from .errors import ChangeRefused, UnknownName
from .local import homelock
from .local.herd import LocalHerd
from .planning.leave import check_empty

LOCK_WAIT_S = 15.0


def leaving(home: Path) -> list[str]:
    """The groups that are on their way out of the herd of ``home``, because a command was interrupted."""
    return list(dict.fromkeys(n.group for n in herdfile.read(home).nodes if n.leaving))


async def remove(home: Path, group: str) -> None:
    """Take a group that holds nothing out of the herd; a local server of it is stopped and its data removed.

    The file says so first: whoever opens the herd goes on with it, and so do ``pgherd up`` and calling this again.
    Raises UnknownName, ChangeRefused (then nothing was changed), GroupUnavailable.
    """
    if group not in leaving(home):
        async with connect_async(home=home) as herd:
            check_empty(herd.topology, herd.topology.group(group).name)
        _mark(home, group, True)
    try:
        await finish(home, group)
    except ChangeRefused:
        _mark(home, group, False)
        raise


async def finish(home: Path, group: str) -> None:
    """The rest of :func:`remove`, once the file says that the group is to leave."""
    local = LocalHerd(home)
    async with connect_async(home=home) as herd:
        member = group in [g.name for g in herd.topology.groups]
        is_local = any(n.data_directory for n in herdfile.read(home).nodes if n.group == group)
        if member or not is_local or local.has_data(group):
            await herd.engine.leave(group)
    await asyncio.to_thread(local.remove, group)


def _mark(home: Path, group: str, value: bool) -> None:
    with homelock.locked(home, LOCK_WAIT_S):
        file = herdfile.read(home)
        if group not in [n.group for n in file.nodes]:
            raise UnknownName(f"{home / herdfile.FILE_NAME} names no group {group!r}", hint="pgherd status shows them")
        nodes = tuple(replace(n, leaving=value) if n.group == group else n for n in file.nodes)
        replace(file, nodes=nodes).write(home)
