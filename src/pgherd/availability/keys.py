"""The keys of etcd that watchers read (Patroni's) and write (their own: votes, and why a leader key was dropped)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import herdfile
from ..dcs import NAMESPACE, Entry, Store
from ..errors import HerdError
from ..local import machine
from ..local.replicas import MACHINES

OWN = "/pgherd-watch/"
ASKED_S = 15
"""How long a planned handover stays asked for, should whoever asked be gone."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What somebody asks of a primary's watcher: that ``old`` hands over to ``to``, or to any standby in step."""

    key: str
    old: str
    to: str | None


def leader(store: Store, group: str) -> Entry | None:
    """The group's leader key; its value is the node's name."""
    return store.get(f"{NAMESPACE}{group}/leader")


def primary_runs(store: Store, group: str, *, since_elected: bool = False) -> bool:
    """Whether there is somebody to copy from: a backup that begins before a promotion is of no use after it.

    ``since_elected``: only if it has said so since it was elected; what it said before may be of an earlier life, which
    etcd keeps for as long as Patroni's ttl.
    """
    entry = leader(store, group)
    member = store.get(f"{NAMESPACE}{group}/members/{entry.value}") if entry else None
    if entry is None or member is None or store.get(f"{NAMESPACE}{group}/initialize") is None:
        return False
    if since_elected and member.revision < entry.created:
        return False
    state = json.loads(member.value)
    return bool(state.get("role") == "primary" and state.get("state") == "running")


def sync(store: Store, group: str) -> Entry | None:
    """The group's sync key: whose standbys hold all that it has acknowledged, and which they are."""
    return store.get(f"{NAMESPACE}{group}/sync")


def is_followed(store: Store, group: str, name: str) -> bool:
    """Whether another was elected after ``name``: it leads, or has died since, and the sync key still names it."""
    entry, found = leader(store, group), sync(store, group)
    elected = (entry.value if entry else None, json.loads(found.value).get("leader") if found else None)
    return any(other not in (None, name) for other in elected)


def heirs(found: Entry | None, leader: str, to: str | None = None) -> tuple[str, ...]:
    """The standbys that a sync key names, if they hold all that ``leader`` has acknowledged; only ``to``, if given."""
    document = json.loads(found.value) if found else {}
    if document.get("leader") != leader:
        return ()
    return tuple(n for n in (document.get("sync_standby") or "").split(",") if n and to in (None, n))


def ask(store: Store, group: str, old: str, to: str | None) -> Handover:
    """Ask ``old``'s watcher to hand over; :data:`ASKED_S` seconds later nobody asks any more."""
    asked = Handover(f"{OWN}{group}/handover", old, to)
    store.put(asked.key, json.dumps({"old": old, "to": to}), lease=store.grant(ASKED_S))
    return asked


def asked(store: Store, group: str) -> Handover | None:
    """The handover that is asked for now."""
    entry = store.get(f"{OWN}{group}/handover")
    return Handover(entry.key, **json.loads(entry.value)) if entry else None


def drop_leader(
    store: Store,
    group: str,
    entry: Entry,
    found: Entry | None,
    why: str,
    by: str,
    present: Sequence[str] = (),
    to: str | None = None,
) -> bool:
    """Drop the leader key ``entry``, provided the sync key ``found`` still stands, and all keys in ``present`` (votes,
    or the handover that is asked for) are there; whether it was.

    ``why``, and who did it, is written down for ``pgherd status``. Where there are heirs, the failover key is written
    as well: it names who is gone, and no candidate, as for a switchover away from it. So Patroni has all heirs race as
    ever, and nobody else, but they don't ask who is gone how it is (a machine that is cut off would let them wait for
    two seconds), nor measure themselves by how far it said it was: what they lack of that was not acknowledged. Whoever
    wins removes the failover key. ``to`` is the only heir from then on: the others are taken out of the sync key. (Were
    it named as the failover key's candidate, Patroni would let the others wait for two seconds, and a write needs one.)
    """
    said = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "node": entry.value, "why": why, "by": by}
    put = {f"{OWN}{group}/last": json.dumps(said)}
    if found is None or not heirs(found, entry.value, to):
        return to is None and store.delete_if(entry, present=present, put=put)
    put[f"{NAMESPACE}{group}/failover"] = json.dumps({"leader": entry.value})
    if to is not None:
        put[found.key] = json.dumps(json.loads(found.value) | {"sync_standby": to})
    return store.delete_if(entry, unchanged=(found,), present=present, put=put)


def dropped(store: Store, group: str) -> str | None:
    """Whose leader key a watcher has dropped, while nobody has taken it since; not one that ran out by itself."""
    if leader(store, group) is not None:
        return None
    failover, said = store.get(f"{NAMESPACE}{group}/failover"), store.get(f"{OWN}{group}/last")
    if failover is None or said is None or failover.revision != said.revision:  # one transaction wrote both
        return None
    return str(json.loads(said.value)["node"])


def votes_prefix(group: str, node: str) -> str:
    """Where those who take ``node`` for gone say so; the rest of the key is the voter's machine."""
    return f"{OWN}{group}/gone/{node}/"


def last_failover(store: Store, group: str) -> dict[str, Any] | None:
    """The last change of primary: ``at``, ``from``, ``to``, ``timeline``, and ``why``, as far as a watcher has said it.

    Patroni writes down the group's very first start as well; that is none.
    """
    entry = store.get(f"{NAMESPACE}{group}/history")
    lines = json.loads(entry.value) if entry else []
    named = [line for line in lines if len(line) >= 5]
    if not named:
        return None
    timeline, _, _, at, to = named[-1][:5]
    before = named[-2][4] if len(named) > 1 else None
    found = {"at": at, "to": to, "timeline": timeline + 1, "from": before, "why": "planned, or by Patroni"}
    said = store.get(f"{OWN}{group}/last")
    if said is not None:
        note = json.loads(said.value)
        apart_s = datetime.fromisoformat(at) - datetime.fromisoformat(note["at"])
        if abs(apart_s.total_seconds()) < 30:
            return found | {"from": note["node"], "why": note["why"]}
    return found if before else None


def last_failovers(home: Path) -> dict[str, dict[str, Any]]:
    """The same of each group of the herd in ``home``, as far as etcd tells."""
    file = herdfile.read(home)
    found: dict[str, dict[str, Any]] = {}
    if not file.replicated:
        return found
    try:
        with closing(machine.read(home / MACHINES / file.etcd[0].name).store()) as store:
            for group in dict.fromkeys(n.group for n in file.nodes):
                last = last_failover(store, group)
                if last is not None:
                    found[group] = last
    except (HerdError, OSError, ValueError):
        return found
    return found
