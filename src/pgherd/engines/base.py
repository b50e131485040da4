"""The port: what every engine offers. One conformance suite runs against all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import AsyncConnection

from ..model.schema import Schema
from ..model.topology import EngineName, Topology
from ..planning.plan import Plan, Step
from ..planning.rebalance import Move
from ..planning.split import Split
from .asking import AnyConnection, Enough, Question
from .conduct import Conduct

if TYPE_CHECKING:
    from .servers.whereabouts import Whereabouts

Connection = AsyncConnection[Any]
OnStep = Callable[[int, int, Step], None]
"""Called before each step with its number (from 1), how many there are, and the step."""


class Transaction(Protocol):
    """Statements on several groups that take effect together or not at all."""

    async def on(self, group: str) -> Connection:
        """The connection to ``group`` inside this transaction; the group takes part from now on."""
        ...


class Lender(Protocol):
    """Lends connections by group, in autocommit, and waits for what was asked on them: in a loop, or in a thread."""

    async def take(self, group: str, node: str | None = None) -> AnyConnection:
        """A connection to the group's primary, or to ``node`` of it, to be given back. GroupUnavailable."""
        ...

    async def give(self, group: str, node: str | None, connection: AnyConnection) -> None:
        """Take a connection back; one on which something is still under way is closed."""
        ...

    async def wait(
        self, questions: Sequence[Question], enough: Enough | None = None, timeout_s: float | None = None
    ) -> None:
        """Until all questions are answered, it is ``enough``, or time is up."""
        ...


class Engine(Lender, Protocol):
    """Serves one herd. Opened by :func:`pgherd.engines.open.open_engine`."""

    @property
    def name(self) -> EngineName:
        """Which engine this is."""
        ...

    @property
    def topology(self) -> Topology:
        """The topology as last read; :meth:`refresh` reads it again."""
        ...

    async def refresh(self) -> Topology:
        """Read the newest topology from the servers; GroupUnavailable when none answers."""
        ...

    async def newest_generation(self) -> int:
        """The generation that the first group knows; cheaper than :meth:`refresh`."""
        ...

    def plan(self, desired: Schema) -> Plan:
        """The plan that makes the herd hold ``desired``; nothing is changed."""
        ...

    def plan_moves(self, moves: tuple[Move, ...]) -> Plan:
        """The plan that moves shards between groups while they are in use; nothing is changed."""
        ...

    def plan_splits(self, splits: tuple[Split, ...], moves: tuple[Move, ...] = ()) -> Plan:
        """The plan that splits shards in two, and then moves shards, while they are in use; nothing is changed."""
        ...

    async def execute(self, plan: Plan, on_step: OnStep | None = None, conduct: Conduct | None = None) -> Topology:
        """Carry a plan out, its moves as ``conduct`` says; StalePlan if the herd has moved on, HerdBusy
        if another change is running."""
        ...

    async def leave(self, name: str) -> None:
        """Take an empty group out of the herd; finishes what was begun. Raises ChangeRefused, GroupUnavailable."""
        ...

    def held(self) -> AbstractAsyncContextManager[Topology]:
        """Keep others from changing the herd inside the block; what was left half done is settled first. HerdBusy."""
        ...

    async def recover(self, min_age_s: float = 0.0) -> int:
        """Settle commits that were left half done longer than ``min_age_s`` ago; how many there were."""
        ...

    def connection(self, group: str, node: str | None = None) -> AbstractAsyncContextManager[Connection]:
        """A connection to the group's primary, or to the node of the group that is named, in autocommit."""
        ...

    def conninfo(self, group: str) -> dict[str, Any]:
        """The libpq parameters that reach the group's primary as last known; they may hold a password."""
        ...

    def connect_now(self, group: str, node: str | None = None) -> psycopg.Connection[Any]:
        """A new connection as of :meth:`connection`, made while the calling thread waits."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction over any groups; committed at the end of the block, rolled back on an exception."""
        ...

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the groups' nodes answer, and which of them is primary."""
        ...

    async def close(self) -> None:
        """Give all connections back."""
        ...
