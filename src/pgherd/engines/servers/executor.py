"""Carries a plan out. Guards invariants 4 and 6: a phase happens on all groups or none, and only after its parent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import groupby, takewhile
from time import monotonic
from typing import Any

import psycopg

from ...errors import ChangeRefused, HerdBusy, HerdError, InDoubt, StalePlan
from ...model.codec import topology_to_json
from ...model.names import quote_literal
from ...model.topology import GroupId, Topology
from ...planning.plan import NOBODY, Phase, Plan, Step
from ..base import Connection, OnStep
from ..conduct import Conduct, Moved
from ..failures import talking_to
from .building import build_index, builds_on, parts_on, with_resources
from .changelock import CHANGE_LOCK, change_lock
from .moving import catch_up, copy_rows, watched
from .pools import Pools
from .store import Record, read_document, read_generation, write_topology
from .stream import Bucket
from .two_phase import TwoPhaseTransaction, settle_leftovers

LOCK_WAIT_S = 10.0
SWAP_S = 0.2
"""How long a move's commit may wait, for locks and last rows together: writers queue behind it meanwhile, and it may be
part of a deadlock that spans servers, which no detector sees. So it gives up before it hurts, lets everybody pass,
and tries again, after half of its attempts with twice the time. What is left to do once it has waited for all takes a
fraction of that."""
SWAP_PAUSE_S = 0.5
SWAP_ATTEMPTS = 25
IN_PLAN = "SET LOCAL pgherd.plan = 'on';\n"
"""What tells a plan's statements from anybody else's, where a superuser runs them (engines/sql/guard.sql)."""
HOLDS = ("hold_writers", "hold_shard", "hold_readers", "catch_up")
"""The steps of a move's commit that wait for others, in an order that matters; those after them need no order."""


async def execute(
    pools: Pools, plan: Plan, first_group: str, on_step: OnStep | None, conduct: Conduct | None = None
) -> Topology | None:
    """Run every phase of ``plan``; the last topology reached, None for an empty plan.

    Phases are committed one after the other; the builds of moves run ahead, so that several are copied and indexed at
    the same time. Raises HerdBusy when another change, or a statement that holds a lock, runs for longer than ten
    seconds (a change that moves shards is not waited for), StalePlan when the herd has moved on, ServerRefused when a
    server refuses a statement: then the phase is undone and earlier phases stand.
    """
    if not plan.phases:
        return None
    async with change_lock(pools, first_group, long=any(p.move for p in plan.phases)) as connection:
        run = _Run(pools, plan, on_step, conduct or Conduct())
        parent = plan.parent_generation
        before: dict[str, Any] | None = None
        await run.settle(plan.phases[0])
        await settle_moves(pools, _groups(plan.phases[0]))
        try:
            for number, phase in enumerate(plan.phases):
                if number:
                    await run.settle(phase)
                with talking_to(first_group):
                    generation = await read_generation(connection)
                    if not number and generation:
                        before = await read_document(connection)
                if generation != parent:
                    raise StalePlan(
                        f"the plan was made for generation {parent}, the herd is at {generation}",
                        hint="make the plan again (run the same command)",
                    )
                await run.phase(number, before)
                parent, before = phase.result.generation, topology_to_json(phase.result)
        finally:
            await run.stop()
    return plan.result


def _groups(phase: Phase) -> list[str]:
    """All groups that a phase has to do with: those of its result, and those that leave with it."""
    return list(dict.fromkeys([*(g.name for g in phase.result.groups), *(g for s in phase.steps for g in s.groups)]))


class _Run:
    """One plan being carried out."""

    def __init__(self, pools: Pools, plan: Plan, on_step: OnStep | None, conduct: Conduct) -> None:
        self._pools, self._phases, self._on_step, self._conduct = pools, plan.phases, on_step, conduct
        self._total, self._told = len(plan.steps), 0
        self._bucket = Bucket(conduct.max_rate)
        self._ahead: dict[int, asyncio.Task[None]] = {}
        self._moved = [Moved(p.move) if p.move else None for p in plan.phases]

    async def settle(self, phase: Phase) -> None:
        """Settle commits that somebody left half done."""
        await settle_leftovers(self._pools, _groups(phase), 0.0, alone=True)

    async def phase(self, number: int, before: dict[str, Any] | None) -> None:
        """One phase; the builds of the moves right after it begin meanwhile, as many as there are jobs."""
        phase, moved = self._phases[number], self._moved[number]
        ready = self._phases[number : number + max(1, self._conduct.jobs)]
        for i, _ in enumerate(takewhile(lambda p: p is phase or (phase.move and p.move), ready), number):
            if i not in self._ahead:
                self._ahead[i] = asyncio.create_task(self._build(i))
        await self._ahead[number]
        began = monotonic()
        for step in phase.builds:  # now that it is this phase's turn: since then more may have been written
            if step.moving and step.kind == "catch_up":
                self._tell([step])
                await catch_up(self._pools, step, self._conduct)
        if moved:
            moved.catch_up_s += monotonic() - began
        transaction, waits_since = await self._ready(phase, moved, Record.of(phase.result, before))
        try:
            await transaction.commit()
        except InDoubt:
            del self._ahead[number]
            raise
        del self._ahead[number]
        if moved:
            moved.writers_waited_ms = max(moved.writers_waited_ms, 1000 * (monotonic() - waits_since))
            moved.commit_s = monotonic() - began - moved.catch_up_s
            self._conduct.moved.append(moved)
        self._tell(phase.afters)
        await _clear_up(self._pools, phase)

    async def stop(self) -> None:
        """Undo what was begun and has not been committed; nothing, if all is done."""
        begun, self._ahead = self._ahead, {}
        for task in begun.values():
            task.cancel()
        await asyncio.gather(*begun.values(), return_exceptions=True)
        for number in begun:
            await _clear_up(self._pools, self._phases[number])

    def _tell(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._told += 1
            if self._on_step:
                self._on_step(self._told, self._total, step)

    async def _build(self, number: int) -> None:
        """All builds of a phase but catching up, which is for when its turn has come."""
        for kind, steps in groupby(self._phases[number].builds, key=lambda s: s.kind):
            together = list(steps)
            if kind == "build_index":  # each group its own, at the same time
                self._tell(together)
                await _build_indexes(self._pools, self._phases[number].result, tuple(together))
                continue
            for step in together:
                if step.moving is None or kind != "catch_up":
                    self._tell([step])
                    await self._timed(step, self._phases[number], self._moved[number])

    async def _timed(self, step: Step, phase: Phase, moved: Moved | None) -> None:
        began = monotonic()
        if step.moving and moved:
            await copy_rows(self._pools, step, self._bucket, self._conduct, moved)
        elif step.index:
            beside = [p for p in self._phases if p.move] if phase.move else [phase]
            builds = parts_on(phase.result, step, beside, self._conduct.jobs)
            await _build_part(self._pools, step, phase.result, builds, self._conduct)
        else:
            await _build_all(self._pools, [step], self._conduct)
        if moved and step.kind == "copy_rows":
            moved.copy_s += monotonic() - began
        elif moved and step.kind in ("add_key", "build_part"):
            moved.index_s += monotonic() - began

    async def _ready(self, phase: Phase, moved: Moved | None, record: Record) -> tuple[TwoPhaseTransaction, float]:
        """A transaction in which all of the phase's commits are done, and since when it has kept anybody waiting."""
        if not phase.afters:
            return await _try(self._pools, phase, self._tell, LOCK_WAIT_S, record)
        told: set[int] = set()

        def tell(steps: Sequence[Step]) -> None:
            """What is tried again is told once."""
            new = [s for s in steps if id(s) not in told]
            told.update(map(id, new))
            self._tell(new)

        for attempt in range(1, SWAP_ATTEMPTS + 1):
            began = monotonic()
            try:
                if moved:
                    moved.attempts = attempt
                wait_s = SWAP_S if attempt <= SWAP_ATTEMPTS // 2 else 2 * SWAP_S
                return await _try(self._pools, phase, tell, wait_s, record, limit=True)
            except HerdBusy:
                if attempt == SWAP_ATTEMPTS:
                    raise
            if moved:
                moved.writers_waited_ms = max(moved.writers_waited_ms, 1000 * (monotonic() - began))
            await asyncio.sleep(SWAP_PAUSE_S)
            for step in (s for s in phase.builds if s.kind == "catch_up"):
                if step.moving:
                    await catch_up(self._pools, step, self._conduct)
                else:
                    await _build_all(self._pools, [step])
        raise AssertionError("the last attempt returns or raises")


async def _try(
    pools: Pools,
    phase: Phase,
    tell: Callable[[Sequence[Step]], None],
    wait_s: float,
    record: Record,
    *,
    limit: bool = False,
) -> tuple[TwoPhaseTransaction, float]:
    """Do a phase's commits, waiting ``wait_s`` for each lock.

    With ``limit`` that is for all locks together, and what comes after the last of them is done on all groups at once.
    """
    staying, groups = [g.name for g in phase.result.groups], _groups(phase)
    transaction = TwoPhaseTransaction(pools, leaving=[g for g in groups if g not in staying])
    waits_since: float | None = None
    held = max((i for i, s in enumerate(phase.commits, 1) if s.kind in HOLDS), default=0) if limit else None
    try:
        for group in groups if limit else ():
            await transaction.on(group)
        for step in phase.commits[:held]:
            tell([step])
            if waits_since is None and step.blocks != NOBODY:
                waits_since = monotonic()
            left = wait_s - (monotonic() - waits_since) if limit and waits_since else wait_s
            await _all(_run(transaction, step, g, max(left, 0.05)) for g in step.groups)
        rest = phase.commits[held:] if limit else ()
        tell(rest)
        await _all(_finish(transaction, rest, record, g, g in staying) for g in groups)
    except BaseException:
        await transaction.rollback()
        raise
    return transaction, waits_since or monotonic()


async def _finish(
    transaction: TwoPhaseTransaction,
    steps: Sequence[Step],
    record: Record,
    group: str,
    stays: bool,
) -> None:
    for step in steps:
        if group in step.groups:
            await _run(transaction, step, group, SWAP_S)
    if stays:
        with talking_to(group, "recording the new generation"):
            await write_topology(await transaction.on(group), record)


async def _clear_up(pools: Pools, phase: Phase) -> None:
    """What can't be cleared now, because a group is gone, is cleared by the next change or start."""
    for step in phase.afters:
        with suppress(HerdError):
            await _build_all(pools, [step])


async def settle_moves(pools: Pools, groups: Sequence[str]) -> None:
    """Clear up after moves whose process died; the caller holds the change lock, so none is under way."""
    found: list[tuple[str, str, bool]] = []
    for group in groups:
        async with pools.connection(group) as connection:
            with talking_to(group, "looking for unfinished moves"):
                found += [(group, shard, incoming) for shard, incoming in await _moving(connection)]
    for group, shard, incoming in sorted(found, key=lambda f: not f[2]):  # who takes lets go before who gives
        sql = f"SELECT pgherd.clear_{'incoming' if incoming else 'outgoing'}({quote_literal(shard)})"
        await _build(pools, Step("clear_move", shard, (GroupId(group),), sql), group, Conduct())


async def _moving(connection: Connection) -> list[tuple[str, bool]]:
    row = await (await connection.execute("SELECT to_regclass('pgherd.moving') IS NOT NULL")).fetchone()
    if not row or not row[0]:
        return []
    done = await connection.execute("SELECT shard, incoming FROM pgherd.moving ORDER BY shard")
    return [(str(shard), bool(incoming)) for shard, incoming in await done.fetchall()]


async def settle_idle_moves(pools: Pools, groups: Sequence[str]) -> None:
    """At a start: the same, if there is anything to clear and nobody is changing the herd right now."""
    async with pools.connection(groups[0]) as connection:
        with talking_to(groups[0], "looking for unfinished moves"):
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", [CHANGE_LOCK])).fetchone()
            if not row or not row[0]:
                return
        try:
            await settle_moves(pools, groups)
        finally:
            await connection.execute("SELECT pg_advisory_unlock(%s)", [CHANGE_LOCK])


async def _run(transaction: TwoPhaseTransaction, step: Step, group: str, lock_wait_s: float) -> None:
    if step.apart:
        async with transaction.apart(group) as connection:
            await _do(connection, step, group, lock_wait_s)
    else:
        await _do(await transaction.on(group), step, group, lock_wait_s)


async def _do(connection: Connection, step: Step, group: str, lock_wait_s: float) -> None:
    if not step.sql:
        return
    with talking_to(group, f"doing {step.kind} {step.target}"):
        try:
            settings = f"SET LOCAL lock_timeout = '{int(lock_wait_s * 1000)}ms';\n{IN_PLAN}"
            if step.secret:
                await connection.execute(settings)
                await connection.execute("SELECT pgherd.quietly(%s)", [step.sql])
            else:
                await connection.execute(settings + step.sql)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise _busy(step, group, error) from error
        except (psycopg.errors.InvalidTableDefinition, psycopg.errors.InvalidFunctionDefinition) as error:
            if step.kind not in ("replace_view", "replace_function"):
                raise
            raise ChangeRefused(
                f"{step.kind.removeprefix('replace_')} {step.target} can't be replaced: {error.diag.message_primary}",
                hint="PostgreSQL replaces it only while its columns (a function's result) stay, new columns at the end;"
                " give the new one another name",
            ) from error


def _busy(step: Step, group: str, error: psycopg.Error) -> HerdBusy:
    """Waiting longer would keep everybody out who comes after us."""
    if step.kind == "catch_up":
        return HerdBusy(
            f"group {group}: {error.diag.message_primary}", hint="try again when less is being written to that shard"
        )
    return HerdBusy(
        f"group {group}: another session holds a lock that {step.kind} {step.target} needs",
        hint="wait until it ends (pg_stat_activity shows it), then again",
    )


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all; one that fails waits for the others, so that none goes on after the rollback."""
    for result in await asyncio.gather(*coroutines, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _build_all(pools: Pools, steps: Sequence[Step], conduct: Conduct | None = None) -> None:
    """Groups build at the same time, each its own steps in order."""
    await _chains(steps, lambda step, group: _build(pools, step, group, conduct or Conduct()))


async def _build_indexes(pools: Pools, topology: Topology, steps: tuple[Step, ...]) -> None:
    """The same for indexes, which are built concurrently: they wait for older transactions, and keep nobody out."""

    async def build(step: Step, group: str) -> None:
        async with pools.connection(group) as connection:
            with talking_to(group, f"doing {step.kind} {step.target}"):
                await build_index(connection, step, topology, builds_on(topology, group, steps))

    await _chains(steps, build)


async def _chains(steps: Sequence[Step], run: Callable[[Step, str], Coroutine[Any, Any, None]]) -> None:
    async def chain(group: str) -> None:
        for step in steps:
            if group in step.groups:
                await run(step, group)

    await _all(chain(g) for g in dict.fromkeys(g for s in steps for g in s.groups))


async def _build(pools: Pools, step: Step, group: str, conduct: Conduct) -> None:
    async with pools.connection(group) as connection:
        pid = connection.pgconn.backend_pid
        with talking_to(group, f"doing {step.kind} {step.target}"):
            async with watched(pools, step, group, pid, conduct):
                await _run_build(connection, step, group)


async def _build_part(pools: Pools, step: Step, topology: Topology, builds: int, conduct: Conduct) -> None:
    """An index of a table that nobody uses yet, with the machine's memory and processors."""
    group = step.groups[0]
    async with pools.connection(group) as connection:
        pid = connection.pgconn.backend_pid
        with talking_to(group, f"doing {step.kind} {step.target}"):
            async with watched(pools, step, group, pid, conduct):
                await with_resources(connection, step, topology, builds, lambda: _run_build(connection, step, group))


async def _run_build(connection: Connection, step: Step, group: str) -> None:
    try:
        async with connection.transaction():
            # A server that works on for a client that is dead keeps the next one from clearing up.
            await connection.execute("SET LOCAL client_connection_check_interval = '1s'")
            await connection.execute(f"SET LOCAL lock_timeout = '{int(LOCK_WAIT_S * 1000)}ms'")
            await connection.execute(IN_PLAN + step.sql)
    except psycopg.errors.LockNotAvailable as error:
        raise _busy(step, group, error) from error


@asynccontextmanager
async def changes_held(pools: Pools, groups: Sequence[str]) -> AsyncIterator[None]:
    """Nobody changes the herd inside the block; what an earlier change left half done is settled first."""
    async with change_lock(pools, groups[0]):
        await settle_leftovers(pools, groups, 0.0, alone=True)
        await settle_moves(pools, groups)
        yield
