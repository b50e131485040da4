"""A standby copied anew from its primary, whatever its data is like: asked of its Patroni.

Source: Patroni 4.1 documentation, "Patroni REST API", reinitialize.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from .. import herdfile
from ..engines.servers.standing import Standing, standing_of
from ..engines.servers.whereabouts import Whereabouts
from ..errors import BadInput, GroupUnavailable, LocalServerError, UnknownName
from ..herdfile import HerdFile, HerdNode
from ..local import machine
from ..local.herd import LocalHerd
from ..local.patroni import REST_USER
from ..local.replicas import MACHINES, derived
from ..model.topology import Role
from .rest import Rest

ASK_S = 10.0
BEGINS_S = 20.0
POLL_S = 0.2


def recopy(home: Path, name: str, progress: Callable[[str], None]) -> float:
    """Remove what the standby ``name`` holds and copy its primary; returns when it streams, with the seconds it took.

    That may take long; who stops waiting stops nothing.
    Raises UnknownName, BadInput for a primary, an attached node or one that has nobody to be copied from,
    GroupUnavailable without a primary, LocalServerError when Patroni doesn't do it.
    """
    file = herdfile.read(home)
    node = _chosen(file, name)
    group = next(g for g in file.groups() if g.name == node.group)
    login = file.parameters(file.user) | ({"passfile": file.passfile} if file.passfile else {})
    whereabouts = Whereabouts(login, file.groups())

    def standings() -> list[Standing]:
        return asyncio.run(standing_of(whereabouts, group))

    def streams() -> bool:
        return any(s.name == name and s.sync is not None for s in standings())

    primaries = [s.name for s in standings() if s.role is Role.PRIMARY]
    if not primaries:
        raise GroupUnavailable(f"group {node.group} has no primary to copy", hint="pgherd status shows who is up")
    if name in primaries:
        raise BadInput(
            f"{name} is the primary of group {node.group}", hint=f"hand over first: pgherd switchover {node.group}"
        )
    began = time.monotonic()
    _ask(home, file, node)
    progress(f"copying {name}")
    while streams() and time.monotonic() - began < BEGINS_S:
        time.sleep(POLL_S)  # it has not begun yet
    while not streams():
        time.sleep(POLL_S)
    return time.monotonic() - began


def _chosen(file: HerdFile, name: str) -> HerdNode:
    node = next((n for n in file.nodes if n.name == name), None)
    if node is None:
        raise UnknownName(f"there is no node {name!r}", hint="nodes: " + ", ".join(n.name for n in file.nodes))
    if node.data_directory is None:
        raise BadInput(f"{name} is attached: pgherd does not run it", hint="where Patroni does: patronictl reinit")
    if sum(n.group == node.group for n in file.nodes) == 1:
        raise BadInput(
            f"group {node.group} has this one node: its rows are nowhere else", hint="pgherd restore, from a backup"
        )
    return node


def _ask(home: Path, file: HerdFile, node: HerdNode) -> None:
    assert node.rest_port is not None
    spec = machine.read(home / MACHINES / node.machine)
    login = f"{REST_USER}:{derived(LocalHerd(home).password(), 'rest')}"
    api = Rest(node.host, node.rest_port, spec.identity, login)
    try:
        status, answer = api.ask("POST", "/reinitialize", {"force": True}, timeout_s=ASK_S)
    except (OSError, HTTPException) as error:
        raise LocalServerError(
            f"Patroni of {node.name} does not answer: {error}", hint="pgherd up starts it"
        ) from error
    if status != 200:
        said = answer.decode(errors="replace").strip()
        raise LocalServerError(f"{node.name} was not copied anew: Patroni says: {said}", hint="pgherd status")
