"""The clients of a drill: writers, readers, and a probe on every node that tries to write there, all the time.

Writers and readers look for the primary the way every client of a herd does. Probes don't look: they show who accepts
writes, whoever should. All that anybody did goes into one history.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from ..model.topology import Node
from . import lists
from .history import History, Kind, Op, Outcome
from .link import Gone, Link, Refused

WRITERS = 3
TIMEOUT_S = 1.5
"""How long a client waits for an answer before it takes the server for gone and looks for another."""
PACE_S = 0.005
PROBE_PACE_S = 0.05
READ_PACE_S = 0.02
RETRY_S = 0.02
_OWN_KEYS = 1_000_000
"""Client n has the keys from n million on, and half of its appends go to the lists that all writers share."""

Connect = Callable[[], psycopg.Connection[Any]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A read that got no answer."""

    at_s: float
    node: str | None


@dataclass(slots=True)
class Load:
    """Clients at work. ``primary`` connects to whoever is primary, ``direct`` to one node."""

    primary: Connect
    direct: Callable[[Node], psycopg.Connection[Any]]
    nodes: tuple[Node, ...]
    seed: int = 0
    writers: int = WRITERS
    enter: Callable[[str], None] | None = None
    history: History = field(default_factory=History)
    refusals: list[Refusal] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _shared: int = 0
    _problems: list[BaseException] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Seconds on the history's clock."""
        return time.monotonic() - self._began

    def start(self) -> None:
        """Set everybody to work."""
        jobs: list[tuple[Callable[..., None], Any]] = [(self._write, n) for n in range(1, self.writers + 1)]
        jobs += [(self._probe, (self.writers + 10 + i, n)) for i, n in enumerate(self.nodes)]
        jobs += [(self._read_current, self.writers + 1), (self._read_any, self.writers + 2)]
        for work, what in jobs:
            thread = threading.Thread(target=self._run, args=(work, what), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, work: Callable[[Any], None], what: Any) -> None:
        try:
            work(what)
        except BaseException as error:  # noqa: BLE001 - a client that died unnoticed would pass for a herd that is down
            self._problems.append(error)

    def stop(self) -> None:
        """Let everybody finish what they are at. Raises what any of them died of."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if self._problems:
            raise self._problems[0]

    def acknowledged(self, after_s: float = 0.0, besides: str | None = None) -> int:
        """Writes that began after a time and were acknowledged, by any node but ``besides``."""
        return sum(
            op.kind is Kind.APPEND and op.outcome is Outcome.OK and op.began_s > after_s and op.node != besides
            for op in self.history
        )

    def _write(self, client: int) -> None:
        link: Link | None = None
        done = 0
        while not self._stop.wait(PACE_S):
            if link is None and (link := self._connected(self.primary)) is None:
                continue
            done += 1
            if done % 2:
                key = client * _OWN_KEYS + done // (2 * lists.PER_LIST)
            else:
                self._shared += 1
                key = self._shared // lists.PER_LIST
            link = self._append(link, client, key, client * _OWN_KEYS * 1000 + done)
        _close(link)

    def _probe(self, what: tuple[int, Node]) -> None:
        client, node = what
        if self.enter is not None:
            self.enter(node.name)
        link: Link | None = None
        done = 0
        while not self._stop.wait(PROBE_PACE_S):
            if link is None and (link := self._connected(lambda: self.direct(node))) is None:
                continue
            done += 1
            value = client * _OWN_KEYS * 1000 + done
            # A standby refuses; that is no news, and the link stays good for when it doesn't.
            link = self._append(link, client, client * _OWN_KEYS + done // lists.PER_LIST, value, keep=True)
        _close(link)

    def _append(self, link: Link, client: int, key: int, value: int, *, keep: bool = False) -> Link | None:
        began, outcome, place, timeline = self.now(), Outcome.OK, None, None
        kept: Link | None = link
        try:
            ((position, line),) = link.ask(lists.APPEND, [key, value], TIMEOUT_S)
            place, timeline = int(position or 0), int(line or "0", 16)
        except Refused:
            outcome = Outcome.FAILED
            if not keep:  # it is a primary no more
                link.close()
                kept = None
        except Gone:
            outcome, kept = Outcome.UNKNOWN, None
        self.history.add(
            Op(
                Kind.APPEND,
                client,
                key,
                began,
                self.now(),
                outcome,
                value=value,
                position=place,
                node=link.node,
                timeline=timeline,
            )
        )
        return kept

    def _read_current(self, client: int) -> None:
        chance = random.Random(f"{self.seed} current")  # noqa: S311
        self._read(client, self.primary, chance, current=True)

    def _read_any(self, client: int) -> None:
        chance = random.Random(f"{self.seed} any")  # noqa: S311
        self._read(client, lambda: self.direct(chance.choice(self.nodes)), chance, current=False)

    def _read(self, client: int, connect: Connect, chance: random.Random, *, current: bool) -> None:
        link: Link | None = None
        reads = 0
        while not self._stop.wait(READ_PACE_S):
            reads += 1
            if link is None or (not current and reads % 50 == 0):  # go round the nodes
                if link is not None:
                    link.close()
                link = self._connected(connect)
                if link is None:
                    self.refusals.append(Refusal(self.now(), None))
                    continue
            keys = [self._shared // lists.PER_LIST, *(c * _OWN_KEYS for c in range(1, self.writers + 1))]
            key, began = chance.choice(keys), self.now()
            try:
                rows = link.ask(lists.READ, [key], TIMEOUT_S)
            except (Refused, Gone):
                self.refusals.append(Refusal(self.now(), link.node))
                link.close()
                link = None
                continue
            seen = lists.parse(rows[0][0]) if rows else ()
            self.history.add(
                Op(Kind.READ, client, key, began, self.now(), Outcome.OK, seen=seen, current=current, node=link.node)
            )
        _close(link)

    def _connected(self, connect: Connect) -> Link | None:
        try:
            return Link(connect())
        except (psycopg.Error, OSError):
            self._stop.wait(RETRY_S)
            return None


def _close(link: Link | None) -> None:
    if link is not None:
        link.close()
