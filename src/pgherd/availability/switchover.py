"""A planned change of primary: Patroni shuts the old one down cleanly, then a standby takes over; nothing is lost.

Source: Patroni 4.1 documentation, "Patroni REST API", switchover.
"""

from __future__ import annotations

import base64
import json
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .. import herdfile
from ..errors import BadInput, GroupUnavailable, SwitchoverRefused, UnknownName
from ..herdfile import HerdNode
from ..local import machine
from ..local.herd import LocalHerd
from ..local.patroni import REST_USER
from ..local.replicas import MACHINES, derived
from . import keys

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Switched:
    """Which node handed over to which, and how long the call took; writers waited for less."""

    group: str
    old: str
    new: str
    seconds: float


def switchover(home: Path, group: str, to: str | None = None) -> Switched:
    """Make ``to`` (a standby that is in step; any, if left out) the primary of ``group``.

    Raises UnknownName, BadInput for a group without standbys, GroupUnavailable without a primary, SwitchoverRefused
    when Patroni says no: its reason is given.
    """
    file = herdfile.read(home)
    nodes = {n.name: n for n in file.nodes if n.group == group}
    if not nodes:
        raise UnknownName(
            f"there is no group {group!r} in this herd",
            hint="groups: " + ", ".join(dict.fromkeys(n.group for n in file.nodes)),
        )
    if len(nodes) == 1 or not file.replicated:
        raise BadInput(f"group {group} has one node: there is nothing to switch to", hint="pgherd up --replicas 3")
    if to is not None and to not in nodes:
        raise UnknownName(f"group {group} has no node {to!r}", hint="nodes: " + ", ".join(nodes))
    password = LocalHerd(home).password()
    member = machine.read(home / MACHINES / next(iter(nodes.values())).machine)
    with closing(member.store()) as store:
        entry = keys.leader(store, group)
    if entry is None or entry.value not in nodes:
        raise GroupUnavailable(f"group {group} has no primary now", hint="pgherd status shows who is up")
    if entry.value == to:
        raise BadInput(f"{to} is the primary of group {group} already", hint="name a standby, or none")
    body = {"leader": entry.value} | ({"candidate": to} if to else {})
    began = time.monotonic()
    status, said = _post(nodes[entry.value], "/switchover", body, derived(password, "rest"))
    if status != 200:
        raise SwitchoverRefused(
            f"group {group} was not switched over: {said}", hint="pgherd status shows which standbys are in step"
        )
    with closing(member.store()) as store:
        now = keys.leader(store, group)
    return Switched(
        group, entry.value, now.value if now else said.rpartition(" ")[2].strip('"'), time.monotonic() - began
    )


def _post(node: HerdNode, path: str, body: dict[str, str], password: str) -> tuple[int, str]:
    assert node.rest_port is not None
    login = base64.b64encode(f"{REST_USER}:{password}".encode()).decode()
    connection = HTTPConnection(node.host, node.rest_port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(body), {"Authorization": f"Basic {login}"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        raise GroupUnavailable(
            f"Patroni of {node.name} does not answer: {error}", hint="pgherd status shows who is primary now"
        ) from error
    finally:
        connection.close()
