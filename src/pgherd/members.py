"""Servers that come and go, as a herd's home keeps them: its file, its passwords, its local servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from . import herdfile
from .client import connect_async
from .engines.candidate import check_candidate, parameters_of, tls_of
from .errors import BadInput, ChangeRefused, HerdError, InDoubt, UnknownName
from .local import homelock, layout, passfile
from .local.herd import LocalHerd
from .model.placement import Label
from .model.topology import EngineName
from .planning.leave import check_empty
from .planning.placement import check_enlarged

LOCK_WAIT_S = 15.0


def leaving(home: Path) -> list[str]:
    """The groups that are on their way out of the herd of ``home``, because a command was interrupted."""
    return list(dict.fromkeys(n.group for n in herdfile.read(home).nodes if n.leaving))


async def attach(home: Path, dsn: str, label: Label) -> list[str]:
    """Let a server that exists join the herd, as a group of its own; notes on what may not be meant.

    A password in the DSN goes to the herd's password file (mode 0600) and nowhere else. Raises BadInput,
    GroupUnavailable, WrongVersion or ChangeRefused when it can't join: then nothing was changed.
    """
    file = herdfile.read(home)
    if file.engine is EngineName.SINGLE:
        raise BadInput("a single server takes no others", hint="make a fleet (pgherd up --regions …) and load it")
    given = parameters_of(dsn, file.user, file.dbname)
    path = Path(file.passfile) if file.passfile else home.absolute() / "pgpass"
    known = passfile.lookup(path, given["host"], int(given["port"]), file.dbname, file.user)
    async with connect_async(home=home) as herd:
        tls = tls_of(given, file.tls)
        await check_candidate(herd.engine, {"password": known or "", **given}, tls)
        spaces = herd.topology.schema.tablespaces
    name = herdfile.names_for([label.region], [n.group for n in file.nodes] + [n.name for n in file.nodes])[0]
    node = herdfile.HerdNode(name, name, given["host"], int(given["port"]), label, tls=tls)
    with homelock.locked(home, LOCK_WAIT_S):
        before = herdfile.read(home)
        if "password" in given:
            passfile.put(path, node.host, node.port, file.user, given["password"])
        named = before.passfile or (str(path) if "password" in given else None)
        replace(before, nodes=(*before.nodes, node), passfile=named).write(home)
    try:
        async with connect_async(home=home):  # which lets it join
            pass
    except InDoubt:
        raise
    except HerdError:
        with homelock.locked(home, LOCK_WAIT_S):
            before.write(home)
            if "password" in given:
                passfile.put(path, node.host, node.port, file.user, None)
        raise
    notes = []
    if spaces and not any(space.allows(label) for space in spaces):
        notes.append(f"no tablespace names {label}: only tables without a tablespace can live in group {name}")
    if file.replicated:
        notes.append(
            f"group {name} has no standbys of pgherd's: nobody takes over when its server dies, and what it alone holds"
            " is lost with its disk; tablespaces that want replicas keep their shards away"
        )
    return notes


def larger(home: Path, replicas: int, two_node: herdfile.TwoNode | None) -> herdfile.HerdFile | None:
    """The local herd as it is with ``replicas`` nodes in each group; None if it is that already. Raises BadInput."""
    file = herdfile.read(home)
    if {len(g.nodes) for g in file.groups()} == {replicas}:
        return None
    return layout.enlarged(home.expanduser().resolve(), file, replicas, two_node)


async def enlarge(home: Path, replicas: int, two_node: herdfile.TwoNode | None) -> None:
    """Give each group of a local herd, whose servers run, standbys; they are all stopped for that, ``up`` starts them.

    Raises PlacementUnsatisfied when a tablespace does not allow the standbys where they would be: nothing was changed.
    """
    whole = larger(home, replicas, two_node)
    if whole is not None:
        async with connect_async(home=home) as herd:
            check_enlarged(herd.topology, whole.groups())
        await asyncio.to_thread(LocalHerd(home).enlarge, replicas, two_node)


async def remove(home: Path, group: str) -> None:
    """Take a group that holds nothing out of the herd; its local servers are stopped and their data removed.

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
