"""A planned change of primary: its watcher shuts it down, and a standby in step takes over as after a crash.

The checkpoint is made beforehand, while writes go on, so that the one at shutdown has little to write.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from .. import herdfile
from ..engines.servers.whereabouts import Whereabouts
from ..errors import BadInput, GroupUnavailable, HerdError, SwitchoverRefused, UnknownName
from ..herdfile import HerdFile, HerdNode
from ..local import machine
from ..local.replicas import MACHINES
from . import keys, outside

TIMEOUT_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Switched:
    """Which node handed over to which, and how long that took; writers waited for less."""

    group: str
    old: str
    new: str
    seconds: float


def switchover(home: Path, group: str, to: str | None = None) -> Switched:
    """Make ``to`` (a standby that is in step; any, if left out) the primary of ``group``; returns when it is.

    Raises UnknownName, BadInput for a group without standbys, GroupUnavailable without a primary, SwitchoverRefused
    where nobody could take over, or the primary's watcher has not carried it out. Attached groups are switched over by
    their own Patroni, whose reasons are given.
    """
    file = herdfile.read(home)
    nodes = {n.name: n for n in file.nodes if n.group == group}
    if not nodes:
        raise UnknownName(
            f"there is no group {group!r} in this herd",
            hint="groups: " + ", ".join(dict.fromkeys(n.group for n in file.nodes)),
        )
    if len(nodes) == 1:
        raise BadInput(f"group {group} has one node: there is nothing to switch to", hint="pgherd up --replicas 3")
    if to is not None and to not in nodes:
        raise UnknownName(f"group {group} has no node {to!r}", hint="nodes: " + ", ".join(nodes))
    login = file.parameters(file.user) | ({"passfile": file.passfile} if file.passfile else {})
    whereabouts = Whereabouts(login, file.groups())
    if not file.replicated:
        return _through_patroni(file, whereabouts, nodes, to)
    with closing(machine.read(home / MACHINES / next(iter(nodes.values())).machine).store()) as store:
        entry = keys.leader(store, group)
        if entry is None or entry.value not in nodes:
            raise GroupUnavailable(f"group {group} has no primary now", hint="pgherd status shows who is up")
        old = entry.value
        _check_other(group, old, to)
        if not keys.heirs(keys.sync(store, group), old, to):
            raise SwitchoverRefused(
                f"group {group} was not switched over: {to or 'no standby'} is not in step",
                hint="pgherd status shows which standbys are",
            )
        try:
            with whereabouts.connect_now(group, old, autocommit=True) as connection:
                connection.execute("CHECKPOINT")
        except psycopg.Error as error:
            raise GroupUnavailable(
                f"{old}, the primary of group {group}, does not answer: {error}", hint="pgherd status shows who is up"
            ) from error
        began = time.monotonic()
        asked = keys.ask(store, group, old, to)
        while time.monotonic() - began < TIMEOUT_S:
            with suppress(psycopg.Error, HerdError):
                over = keys.asked(store, group) is None  # asked first: the leader key is dropped before it is over
                entry = keys.leader(store, group)
                if entry is not None and entry.value != old:
                    with whereabouts.connect_now(group, entry.value) as connection:
                        if connection.execute("SELECT NOT pg_is_in_recovery()").fetchone() == (True,):
                            return Switched(group, old, entry.value, time.monotonic() - began)
                elif entry is not None and over:
                    break
            time.sleep(POLL_S)
        store.delete(asked.key)
    raise SwitchoverRefused(
        f"group {group} was not switched over: the watcher of {old} has not done it",
        hint=f"{home / MACHINES / nodes[old].machine / machine.LOG} says why; pgherd up starts watchers again",
    )


def _through_patroni(
    file: HerdFile, whereabouts: Whereabouts, nodes: Mapping[str, HerdNode], to: str | None
) -> Switched:
    """Switch an attached group over."""
    group = next(iter(nodes.values())).group
    lacking = [n.name for n in nodes.values() if n.rest_port is None]
    if lacking:
        raise BadInput(
            f"who runs the standbys of group {group} is not known: {', '.join(lacking)} without rest_port",
            hint="where Patroni does, give each node in herd.toml its name there, and rest_port, its REST API's",
        )
    try:
        with whereabouts.connect_now(group) as connection:
            at = (connection.info.host, connection.info.port)
    except psycopg.Error as error:
        raise GroupUnavailable(f"group {group} has no primary now", hint="pgherd status shows who is up") from error
    old = next(n for n in nodes.values() if (n.host, n.port) == at)
    _check_other(group, old.name, to)
    began = time.monotonic()
    new = outside.switch_over(file, old, to)
    return Switched(group, old.name, new, time.monotonic() - began)


def _check_other(group: str, old: str, to: str | None) -> None:
    if old == to:
        raise BadInput(f"{to} is the primary of group {group} already", hint="name a standby, or none")
