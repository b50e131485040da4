"""What a takeover needs besides standbys in step: a majority of etcd, the machines' watchers, and that a group is held
to what it was given standbys for. As they are now."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from .. import herdfile
from ..dcs import NAMESPACE, Store
from ..errors import HerdError, StoreUnavailable
from ..herdfile import HerdNode, TwoNode
from ..local import machine
from ..local.processes import is_stopped
from ..local.replicas import MACHINES

ANSWER_S = 2.0


def takeover_state(home: Path) -> dict[str, Any] | None:
    """``etcd[]`` and ``watchers[]`` (``name``, ``up``) of the local herd in ``home``, and ``off[]``: what doesn't hold
    now, in words. None for a herd without replicas of its own."""
    file = herdfile.read(home)
    local = [n for n in file.nodes if n.data_directory is not None]
    if not file.replicated or not local:
        return None
    members = [m.name for m in file.etcd]
    names = list(dict.fromkeys([*(n.machine for n in local), *members]))
    try:
        spec = machine.read(home / MACHINES / members[0])
    except (HerdError, OSError):
        etcd, loose = dict.fromkeys(members, False), []
    else:
        with closing(spec.store(ANSWER_S)) as store, ThreadPoolExecutor(len(members)) as pool:
            etcd = dict(
                zip(members, pool.map(store.is_healthy, [(m.host, m.client_port) for m in file.etcd]), strict=True)
            )
            loose = [] if file.two_node is TwoNode.AVAILABLE else _loose(store, local)
    watchers = {name: _watches(home / MACHINES / name) for name in names}
    return {
        "etcd": [{"name": name, "up": up} for name, up in etcd.items()],
        "watchers": [{"name": name, "up": up} for name, up in watchers.items()],
        "off": [*_etcd_off(etcd), *_watchers_off(watchers), *map(_LOOSE.format, loose)],
    }


def _loose(store: Store, nodes: list[HerdNode]) -> list[str]:
    """The groups with standbys that may acknowledge what none of them holds: ``up`` was killed as it copied them."""
    several = [group for group, count in Counter(n.group for n in nodes).items() if count > 1]
    found = []
    with suppress(StoreUnavailable):  # told of as etcd's
        for group in several:
            entry = store.get(f"{NAMESPACE}{group}/config")
            if entry is not None and not json.loads(entry.value).get("synchronous_mode_strict"):
                found.append(group)
    return found


_LOOSE = (
    "group {} is not held to its standbys yet: without one in step it acknowledges what is lost with its primary"
    " (pgherd up ends it)"
)


def _watches(directory: Path) -> bool:
    pid = machine.watcher_pid(directory)
    return pid is not None and not is_stopped(pid)


def _etcd_off(up: dict[str, bool]) -> list[str]:
    down, majority = [name for name, is_up in up.items() if not is_up], len(up) // 2 + 1
    if not down:
        return []
    if (spare := len(up) - len(down) - majority) < 0:  # those that live can't say that they do
        return ["etcd has no majority: writes go on while nothing else fails, and nobody can take over"]
    left = f"when {spare + 1} more are lost" if spare else "when one more is lost"
    return [f"etcd on {', '.join(down)} gives no answer: nobody can take over {left}"]


def _watchers_off(up: dict[str, bool]) -> list[str]:
    down = [name for name, is_up in up.items() if not is_up]
    if not down:
        return []
    return [f"no watcher runs on {', '.join(down)}: a failover there takes 20 s (pgherd up starts it)"]
