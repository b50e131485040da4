"""The engine port for herds made of plain PostgreSQL servers; ``single`` and ``fleet`` differ in traits and start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg

from ...errors import GroupUnavailable, HerdError, NoSuchHerd, StalePlan, UnknownName
from ...model.schema import Schema
from ...model.topology import EngineName, Group, GroupId, Topology
from ...planning.apply import plan_apply
from ...planning.leave import plan_leave
from ...planning.move import plan_moves
from ...planning.plan import Plan, Step, Traits
from ...planning.rebalance import Move
from ...planning.split import Split, plan_splits
from ..asking import AnyConnection, Enough, Question, wait_for_async
from ..base import Connection, OnStep
from ..conduct import Conduct
from ..failures import talking_to
from .executor import changes_held, execute, settle_idle_moves
from .pools import Pools
from .scripts import catalog, digest, script
from .store import read_generation, read_topology
from .two_phase import TwoPhaseTransaction, settle_leftovers
from .whereabouts import SyncConnection, Whereabouts

SETTLE_ATTEMPTS = 12
"""How often a commit left half done is settled in the background, for about 20 s; then whoever comes next does it."""

LEAVE_ATTEMPTS = 3


class ServersEngine:
    """See :class:`pgherd.engines.base.Engine`. ``base`` holds the libpq parameters that all groups share."""

    name: EngineName
    scripts: tuple[str, ...]
    """the SQL files that make schema ``pgherd``"""
    traits: Traits

    def __init__(self, base: dict[str, Any], groups: tuple[Group, ...]) -> None:
        self._pools = Pools(base, groups)
        self._topology = Topology(0, self.name, groups)
        self._leaving: dict[str, Group] = {}
        self._left: set[str] = set()
        self._settling: asyncio.Task[None] | None = None

    @property
    def topology(self) -> Topology:
        """The topology as last read."""
        return self._topology

    async def refresh(self) -> Topology:
        """Read the newest topology; any one node is enough."""
        last: HerdError = NoSuchHerd("the herd has no groups")
        answered = False
        for group in self._topology.groups:
            try:
                async with self._pools.connection(group.name) as connection:
                    with talking_to(group.name, "reading the topology"):
                        found = await read_topology(connection)
            except GroupUnavailable as error:
                last = error
                continue
            answered = True
            if found is not None:  # or that group has left since
                await self._adopt(found)
                return self._topology
        if answered:
            return self._topology
        raise last

    async def newest_generation(self) -> int:
        """The generation that the first group knows that answers, and has not left."""
        last: HerdError = NoSuchHerd("the herd has no groups")
        for group in self._topology.groups:
            try:
                async with self._pools.connection(group.name) as connection:
                    with talking_to(group.name, "reading the generation"):
                        if found := await read_generation(connection):
                            return found
            except GroupUnavailable as error:
                last = error
        raise last

    async def _adopt(self, topology: Topology) -> None:
        self._topology = topology
        await self._pools.set_groups(topology.groups)

    async def first_plan(self, groups: tuple[Group, ...]) -> Plan:
        """The plan that makes servers a herd, or follows servers whose address changed."""
        raise NotImplementedError

    def install_catalog(self, groups: tuple[GroupId, ...]) -> Step:
        """Make schema ``pgherd``, or bring one that an older version made up to date."""
        return Step("install_catalog", "schema pgherd", groups, catalog(self.scripts))

    async def has_old_catalog(self) -> bool:
        """Whether another version made the herd's schema ``pgherd``, and we may change it."""
        if not self._topology.generation:
            return False
        first = self._topology.groups[0].name
        async with self._pools.connection(first) as connection:
            with talking_to(first, "reading the catalog's version"):
                query = "SELECT to_regclass('pgherd.catalog'), has_schema_privilege('pgherd', 'CREATE')"
                table, permitted = (await (await connection.execute(query)).fetchall())[0]
                if not permitted or table is None:
                    return bool(permitted)
                done = await connection.execute("SELECT digest FROM pgherd.catalog")
                return [row[0] for row in await done.fetchall()] != [digest(self.scripts)]

    async def start(self, groups: tuple[Group, ...], leaving: frozenset[str] = frozenset()) -> None:
        """Make the servers a herd if they are none yet, settle what was left half done, follow changed addresses.

        ``leaving``: of ``groups`` those that are to leave, if they have not yet.
        """
        self._leaving = {g.name: g for g in groups if g.name in leaving}
        await self._pools.set_groups(groups)
        self._topology = Topology(0, self.name, groups)
        for group in groups:
            with suppress(GroupUnavailable):  # a herd answers with a server down; whoever needs that group is told
                await settle_leftovers(self._pools, [group.name], 0.0)
        await self.refresh()
        if self._topology.generation:
            with suppress(HerdError):  # a group is down, or it is not for this role to clear up
                await settle_idle_moves(self._pools, [g.name for g in self._topology.groups])
        await self._pools.set_groups(groups)
        plan = await self.first_plan(groups)
        if plan.phases:
            await execute(
                self._pools,
                plan,
                (self._topology if plan.parent_generation else plan.phases[0].result).groups[0].name,
                None,
            )
            await self._pools.reset()
        await self.refresh()
        for name in leaving:
            with suppress(HerdError):  # it holds shards again, or a group is down: whoever asked for it is told
                await self.leave(name)

    async def leave(self, name: str) -> None:
        """Take an empty group out of the herd, and make the server forget it; finishes what was begun.

        Raises ChangeRefused when something is there, GroupUnavailable when any group is down.
        """
        for _ in range(LEAVE_ATTEMPTS):
            await self.refresh()
            found = next((g for g in self._topology.groups if g.name == name), None)
            if found is None:
                break
            self._leaving[name] = found
            try:
                await self.execute(plan_leave(self._topology, found.name))
            except StalePlan:
                continue
        if name in self._left:
            return
        group = self._leaving.get(name)
        if group is None:
            raise UnknownName(f"there is no group {name!r}", hint="pgherd status shows them")
        everybody = (*self._topology.groups, group)
        await self._pools.set_groups(everybody)
        try:
            # It may have decided commits that others have not heard of yet.
            await settle_leftovers(self._pools, [g.name for g in everybody], 0.0)
            async with self._pools.connection(name) as connection:
                with talking_to(name, "forgetting the herd"):
                    await connection.execute(script("leave"))
        finally:
            await self._pools.set_groups(self._topology.groups)
        self._left.add(name)

    def plan(self, desired: Schema) -> Plan:
        """The plan that makes the herd hold ``desired``."""
        return plan_apply(self._topology, desired, self.traits)

    def plan_moves(self, moves: tuple[Move, ...]) -> Plan:
        """The plan that moves shards between groups while they are in use."""
        return plan_moves(self._topology, moves, self.traits)

    def plan_splits(self, splits: tuple[Split, ...], moves: tuple[Move, ...] = ()) -> Plan:
        """The plan that splits shards in two, and then moves shards, while they are in use."""
        first = plan_splits(self._topology, splits, self.traits)
        then = plan_moves(first.result or self._topology, moves, self.traits)
        return replace(first, phases=(*first.phases, *then.phases))

    async def execute(self, plan: Plan, on_step: OnStep | None = None, conduct: Conduct | None = None) -> Topology:
        """Carry a plan out."""
        reached = await execute(self._pools, plan, self._topology.groups[0].name, on_step, conduct)
        if reached is not None:
            await self._adopt(reached)
            await self._pools.reset()  # prepared statements and known types may be out of date
        return self._topology

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Topology]:
        """Keep others from changing the herd inside the block."""
        groups = [g.name for g in self._topology.groups]
        async with changes_held(self._pools, groups):
            await self.refresh()
            yield self._topology

    async def recover(self, min_age_s: float = 0.0) -> int:
        """Settle commits that were left half done."""
        return await settle_leftovers(self._pools, [g.name for g in self._topology.groups], min_age_s)

    @asynccontextmanager
    async def connection(self, group: str, node: str | None = None) -> AsyncIterator[Connection]:
        """A connection to the group's primary or ``node``, in autocommit; the driver's errors come out as pgherd's."""
        async with self._pools.connection(group, node) as connection:
            with talking_to(group):
                yield connection

    async def take(self, group: str, node: str | None = None) -> Connection:
        """As :meth:`connection`, until it is given back."""
        return await self._pools.take(group, transaction=False, node=node)

    async def give(self, group: str, node: str | None, connection: AnyConnection) -> None:
        """Take a connection back."""
        assert isinstance(connection, psycopg.AsyncConnection)
        await self._pools.give(group, connection)

    async def wait(
        self, questions: Sequence[Question], enough: Enough | None = None, timeout_s: float | None = None
    ) -> None:
        """Wait in the event loop; see :func:`pgherd.engines.asking.wait_for_async`."""
        await wait_for_async(questions, enough, timeout_s)

    def conninfo(self, group: str) -> dict[str, Any]:
        """The libpq parameters that reach the group's primary as last known."""
        return self._pools.whereabouts.conninfo(group)

    def connect_now(self, group: str, node: str | None = None) -> SyncConnection:
        """A new connection to the group's primary or ``node``, made while the calling thread waits."""
        return self._pools.whereabouts.connect_now(group, node, autocommit=True)

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the groups' nodes answer, and which of them is primary."""
        return self._pools.whereabouts

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[TwoPhaseTransaction]:
        """A transaction over any groups."""
        transaction = TwoPhaseTransaction(self._pools)
        try:
            yield transaction
        except BaseException:
            await transaction.rollback()
            raise
        try:
            await transaction.commit()
        finally:
            if transaction.left_over and self._settling is None:
                self._settling = asyncio.create_task(self._settle())

    async def _settle(self) -> None:
        """Tell those who could not be told how a commit ended, once they are back: its rows are locked until then."""
        try:
            for attempt in range(SETTLE_ATTEMPTS):
                with suppress(HerdError):
                    await self.recover()
                    return
                await asyncio.sleep(min(2.0, 0.1 * 2**attempt))
        finally:
            self._settling = None

    async def close(self) -> None:
        """Give all connections back."""
        if self._settling is not None:
            self._settling.cancel()
            with suppress(asyncio.CancelledError):
                await self._settling
        await self._pools.close()
