"""Judging primaries on other machines: what nobody there can do for us any more.

A thread of its own, since etcd may make it wait. A vote is a key with a lease: it goes when its voter does. The leader
key is dropped in one transaction that also asks whether the votes still stand.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from ..dcs import Store
from ..errors import HerdError
from ..local.machine import Machine, WatchedNode
from ..local.processes import Processes
from . import keys
from .decide import Peer, PeerAction, on_peer
from .pulse import Pulse
from .rest import Rest

LOOK_EVERY_S = 0.5
HURRY_S = 0.1
VOTE_TTL_S = 3
PEER_INTERVAL_S = 0.5
AGAIN_S = 30.0
"""How long is left alone: a primary that took its key again after it was dropped, a Patroni that was started anew."""
log = logging.getLogger("pgherd.watcher")


class Ballot(threading.Thread):
    """Watches the groups' primaries that are not on this machine, and takes part in dropping their leader keys."""

    def __init__(self, spec: Machine) -> None:
        super().__init__(name="ballot", daemon=True)
        self._spec = spec
        self._store: Store = spec.store()
        self._pulses = {n.name: self._pulse(n) for n in spec.peers}
        self._leaders: dict[str, str | None] = {}
        self._asked: dict[str, keys.Handover] = {}
        self._votes: dict[tuple[str, str], int] = {}
        self._dropped: dict[str, float] = {}
        self._woken: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def _pulse(self, node: WatchedNode) -> Pulse:
        spec, rest = self._spec, self._rest(node)
        return Pulse(node, spec.sql_user, spec.sql_password, rest=rest, interval_s=PEER_INTERVAL_S)

    def _rest(self, node: WatchedNode) -> Rest:
        return Rest(node.host, node.rest_port, self._spec.identity)

    def follow(self, spec: Machine) -> None:
        """There are other nodes and peers from now on. For another thread to call: nothing is changed in place."""
        before = self._pulses
        pulses = {n.name: p if (p := before.get(n.name)) and p.node == n else self._pulse(n) for n in spec.peers}
        for pulse in pulses.values():
            if before.get(pulse.node.name) is not pulse:
                pulse.start()
        self._spec, self._pulses = spec, pulses
        for pulse in before.values():
            if pulses.get(pulse.node.name) is not pulse:
                pulse.wanted.clear()

    def leads(self, node: WatchedNode) -> bool | None:
        """Whether the leader key named ``node`` when it was last read; None if it could not be."""
        found = self._leaders.get(node.group, "")
        return None if found == "" else found == node.name

    def handover(self, node: WatchedNode) -> keys.Handover | None:
        """What ``node`` is asked to hand over; it is told once."""
        return self._asked.pop(node.name, None)

    def run(self) -> None:
        """Judge for ever."""
        for pulse in self._pulses.values():
            pulse.start()
        while True:
            hurry = False
            for group in sorted({n.group for n in (*self._spec.nodes, *self._spec.peers)}):
                try:
                    hurry |= self._judge(group)
                    self._said.pop(group, None)
                except HerdError as error:
                    self._leaders.pop(group, None)
                    if error.message != self._said.get(group):
                        log.warning("group %s: %s", group, error.message)
                    self._said[group] = error.message
                except Exception:
                    log.exception("group %s", group)
            time.sleep(HURRY_S if hurry else LOOK_EVERY_S)

    def _judge(self, group: str) -> bool:
        """Look at one group; whether to look again soon."""
        # A primary that is gone is known from before, even while etcd elects a leader of its own.
        entry = keys.leader(self._store, group)
        name = self._leaders[group] = entry.value if entry else None
        for pulse in self._pulses.values():
            if pulse.node.group == group:
                (pulse.wanted.set if pulse.node.name == name else pulse.wanted.clear)()
        for key in [k for k in self._votes if k[0] == group and k[1] != name]:
            self._withdraw(*key)
        if name is None:
            self._open_eyes(group)
        if any(n.name == name for n in self._spec.nodes):
            asked = keys.asked(self._store, group)
            if asked is not None and asked.old == name:
                self._asked[asked.old] = asked
        pulse_of = self._pulses.get(name or "")
        if entry is None or name is None or pulse_of is None:
            return False
        if pulse_of.probes == 0 and (group, name) not in self._votes:
            return False
        prefix = keys.votes_prefix(group, name)
        lease = self._votes.get((group, name))
        if lease is not None and not self._store.keep(lease):
            del self._votes[group, name]
        mine = prefix + self._spec.name
        votes = [e.key for e in self._store.under(prefix)]
        voters = {n.machine for n in (*self._spec.nodes, *self._spec.peers) if n.group == group}
        voters |= set(self._spec.witnesses.get(group, ())) | {self._spec.name}
        sync = keys.sync(self._store, group)
        peer = Peer(
            strict=group in self._spec.strict,
            heirs=len(keys.heirs(sync, name)),
            silent_s=pulse_of.silent_s,
            probes=pulse_of.probes,
            voters=len(voters - {pulse_of.node.machine}),
            votes=len(votes),
            voted=(group, name) in self._votes and mine in votes,
            just_dropped=time.monotonic() - self._dropped.get(name, -AGAIN_S) < AGAIN_S,
        )
        action = on_peer(peer)
        if action is PeerAction.VOTE:
            log.info("group %s: %s on %s answers nobody here; voting", group, name, pulse_of.node.machine)
            self._votes[group, name] = lease = self._store.grant(VOTE_TTL_S)
            self._store.put(mine, "gone", lease=lease)
        elif action is PeerAction.WITHDRAW:
            self._withdraw(group, name)
        elif action is PeerAction.DROP:
            who = ", ".join(sorted(v.removeprefix(prefix) for v in votes))
            why = f"machine gone, agreed by {who}"
            if keys.drop_leader(self._store, group, entry, sync, why, self._spec.name, votes):
                self._dropped[name] = time.monotonic()
                log.info("group %s: dropped the leader key of %s; gone for %s", group, name, who)
                self._leaders[group] = None
        return peer.probes > 0

    def _open_eyes(self, group: str) -> None:
        """Start our nodes' Patroni anew where it would not take over, because failsafe mode was on a moment ago.

        For the 20 s (ttl) after a primary has last told it that it goes on without etcd, Patroni takes that one for the
        leader, also when its key is gone. Whose key a watcher has dropped goes on no more.
        """
        gone = keys.dropped(self._store, group)
        for node in self._spec.nodes:
            if gone in (None, node.name) or node.group != group or node.patroni is None:
                continue
            if time.monotonic() - self._woken.get(node.name, -AGAIN_S) < AGAIN_S:
                continue
            if not self._rest(node).state().get("failsafe_mode_is_active"):
                continue
            self._woken[node.name] = time.monotonic()
            log.info("group %s: Patroni of %s takes %s for the primary still; started anew", group, node.name, gone)
            Processes(Path(node.patroni.directory)).kill_keepers()

    def _withdraw(self, group: str, node: str) -> None:
        del self._votes[group, node]
        self._store.delete(keys.votes_prefix(group, node) + self._spec.name)
