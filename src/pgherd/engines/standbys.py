"""What a client knows of the nodes of replicated groups, for reads that need not go to the primary.

While such reads are made, each node is asked four times a second, on a connection of its own, whether it is a standby,
how far its log has come, and which generation of the herd it knows. A node that doesn't answer keeps nobody waiting: it
is left out until it does. Source: PostgreSQL 18 manual, 9.28 "System Administration Functions".
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from time import monotonic

import psycopg
from psycopg import AsyncConnection

from ..model.topology import Group, Node
from .base import Connection, Engine
from .reading import NodeState, Reading, choose, hedge_after_s, staleness_s

EVERY_S = 0.25
ANSWER_S = 1.0
"""A node that has not answered for so long is left out."""
IDLE_S = 10.0
"""The asking stops when nobody has read from replicas for so long."""
FIRST_S = 3.0
"""How long the very first read waits to get to know the nodes."""
FORGET_S = 2.0
"""How long reads that took long are held against a node; then it gets another chance."""
WEIGHT = 0.2
_SAMPLES = 600
_ASK = """
SELECT pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0',
       (SELECT max(generation) FROM pgherd.topology)
"""


class _Known:
    """One node: ``answered_at`` and ``asked_at`` are moments of this client's clock, ``ms`` what reads took lately."""

    def __init__(self) -> None:
        self.answered_at = float("-inf")
        self.standby = True
        self.position = 0
        self.answer_ms = 0.0
        self.ms: float | None = None
        self.noted_at = float("-inf")

    def expected_ms(self, now: float) -> float | None:
        """What a read takes: as measured lately, else as long as a simple question."""
        if self.ms is not None and now - self.noted_at < FORGET_S:
            return max(self.ms, self.answer_ms)
        return self.answer_ms if self.answered_at > float("-inf") else None


class Standbys:
    """See the module. Made for one engine; runs on the event loop of :meth:`ready`'s first caller."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, _Known] = {}
        self._primary_was: dict[str, deque[tuple[float, int]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._used_at = float("-inf")
        self.newest_generation = 0

    @property
    def is_ready(self) -> bool:
        """Whether the nodes are being asked; if not, :meth:`ready` has to be awaited first."""
        self._used_at = monotonic()
        return self._task is not None and not self._task.done()

    async def ready(self) -> None:
        """Begin to ask the nodes, and wait until all have answered once, or long enough."""
        if self.is_ready:
            return
        groups = self._engine.topology.groups
        self._task = asyncio.create_task(self._watch(groups))
        deadline = monotonic() + FIRST_S
        while monotonic() < deadline and not all(self._is_known(g) for g in groups):
            await asyncio.sleep(0.01)

    def _is_known(self, group: Group) -> bool:
        return all(self._state(group, n) is not None for n in group.nodes)

    def nodes(self, group: str, reading: Reading) -> list[str]:
        """The names of the nodes that may answer, the fastest first."""
        return choose(self._states(group), reading)

    def hedge_after_s(self, group: str) -> float:
        """How long to wait for one node before another is asked."""
        return hedge_after_s(self._states(group))

    def note(self, node: str, ms: float) -> None:
        """A read of ``node`` took so long, or had not ended after so long."""
        known = self._known.setdefault(node, _Known())
        now = monotonic()
        fresh = known.ms is None or now - known.noted_at > FORGET_S
        known.ms = ms if fresh else known.ms + WEIGHT * (ms - known.ms)  # type: ignore[operator]
        known.noted_at = now

    def _states(self, group: str) -> list[NodeState]:
        known = self._engine.topology.group(group)
        return [s for n in known.nodes if (s := self._state(known, n)) is not None]

    def _state(self, group: Group, node: Node) -> NodeState | None:
        """None for a node that doesn't answer."""
        known, now = self._known.get(node.name), monotonic()
        if known is None or now - known.answered_at > ANSWER_S + EVERY_S:
            return None
        stale_s = 0.0
        if known.standby:
            found = staleness_s(known.position, tuple(self._primary_was.get(group.name, ())), now)
            return NodeState(node.name, True, found, known.expected_ms(now))
        return NodeState(node.name, False, stale_s, known.expected_ms(now))

    async def _watch(self, groups: tuple[Group, ...]) -> None:
        """Ask all nodes until nobody cares any more, or the herd's groups are others."""
        tasks = [asyncio.create_task(self._ask_again_and_again(g, n)) for g in groups for n in g.nodes]
        try:
            while monotonic() - self._used_at < IDLE_S and self._engine.topology.groups == groups:
                await asyncio.sleep(EVERY_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_again_and_again(self, group: Group, node: Node) -> None:
        connection: Connection | None = None
        try:
            while True:
                try:
                    async with asyncio.timeout(ANSWER_S):
                        if connection is None:
                            info = self._engine.whereabouts.conninfo_of(node)
                            connection = await AsyncConnection.connect(**info, autocommit=True)
                        await self._ask(connection, group, node)
                except (TimeoutError, psycopg.Error):
                    if connection is not None:
                        await connection.close()
                        connection = None
                await asyncio.sleep(EVERY_S)
        finally:
            if connection is not None:
                await connection.close()

    async def _ask(self, connection: Connection, group: Group, node: Node) -> None:
        asked_at = monotonic()
        row = await (await connection.execute(_ASK)).fetchone()
        assert row is not None
        standby, position, generation = row
        known = self._known.setdefault(node.name, _Known())
        known.answered_at = monotonic()
        known.answer_ms = (known.answered_at - asked_at) * 1000
        known.standby, known.position = bool(standby), int(position or 0)
        self.newest_generation = max(self.newest_generation, int(generation or 0))
        if not standby:
            was = self._primary_was.setdefault(group.name, deque(maxlen=_SAMPLES))
            if was and was[-1][1] == known.position:
                was.pop()  # it has not moved: the later moment says more
            was.append((asked_at, known.position))

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
