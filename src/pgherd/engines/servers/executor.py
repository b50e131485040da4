"""Carries a plan out. Guards invariants 4 and 6: a phase happens on all groups or none, and only after its parent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from typing import Any

import psycopg
from psycopg import sql

from ...errors import ChangeRefused, HerdBusy, HerdError, InDoubt, StalePlan
from ...model.names import Name, quote_literal
from ...model.topology import GroupId, Topology
from ...planning.plan import Phase, Plan, Step
from ..base import Connection, OnStep
from ..failures import talking_to
from .pools import Pools
from .store import read_generation, write_topology
from .two_phase import TwoPhaseTransaction, settle_leftovers

CHANGE_LOCK = 0x70676865726400
"""Key of the advisory lock that whoever changes a herd holds on its first group."""
LOCK_WAIT_S = 10.0
SWAP_WAIT_S = 0.5
"""How long a move's commit waits for a lock: writers queue behind it, and it may be part of a deadlock that spans
servers, which no detector sees. So it gives up before it hurts, lets everybody pass, and tries again."""
SWAP_ATTEMPTS = 20
PATIENT = ("build_index", "keep_changes")
"""Builds that wait for older transactions while they keep nobody out."""


async def execute(pools: Pools, plan: Plan, first_group: str, on_step: OnStep | None) -> Topology | None:
    """Run every phase of ``plan``; the last topology reached, None for an empty plan.

    Raises HerdBusy when another change, or a statement that holds a lock, runs for longer than ten seconds, StalePlan
    when the herd has moved on, ServerRefused when a server refuses a statement: then the phase is undone and earlier
    phases stand.
    """
    if not plan.phases:
        return None
    total, done = len(plan.steps), 0
    async with _change_lock(pools, first_group) as connection:
        parent = plan.parent_generation
        for phase in plan.phases:
            groups = [g.name for g in phase.result.groups]
            await settle_leftovers(pools, groups, 0.0, alone=True)
            await settle_moves(pools, groups)
            with talking_to(first_group):
                generation = await read_generation(connection)
            if generation != parent:
                raise StalePlan(
                    f"the plan was made for generation {parent}, the herd is at {generation}",
                    hint="make the plan again (run the same command)",
                )
            done = await _run_phase(pools, phase, done, total, on_step)
            parent = phase.result.generation
    return plan.result


async def _run_phase(pools: Pools, phase: Phase, done: int, total: int, on_step: OnStep | None) -> int:
    def tell(steps: Sequence[Step]) -> None:
        nonlocal done
        for step in steps:
            done += 1
            if on_step:
                on_step(done, total, step)

    try:
        for kind, steps in groupby(phase.builds, key=lambda s: s.kind):
            together = list(steps)
            if kind == "build_index":  # each group its own, at the same time
                tell(together)
                await _build_all(pools, together)
                continue
            for step in together:
                tell([step])
                await _build_all(pools, [step])
        transaction = await _ready(pools, phase, tell)
        await transaction.commit()
    except InDoubt:
        raise
    except BaseException:
        await _clear_up(pools, phase)
        raise
    tell(phase.afters)
    await _clear_up(pools, phase)
    return done


async def _ready(pools: Pools, phase: Phase, tell: Callable[[Sequence[Step]], None]) -> TwoPhaseTransaction:
    """A transaction in which all of the phase's commits are done."""
    if not phase.afters:
        return await _try(pools, phase, tell, LOCK_WAIT_S)
    for _ in range(SWAP_ATTEMPTS - 1):
        try:
            return await _try(pools, phase, tell, SWAP_WAIT_S)
        except HerdBusy:
            tell = _tell_nobody
        await asyncio.sleep(SWAP_WAIT_S)
        await _build_all(pools, [s for s in phase.builds if s.kind == "catch_up"])
    return await _try(pools, phase, tell, SWAP_WAIT_S)


def _tell_nobody(steps: Sequence[Step]) -> None:
    """What is tried again was told before."""


async def _try(
    pools: Pools, phase: Phase, tell: Callable[[Sequence[Step]], None], lock_wait_s: float
) -> TwoPhaseTransaction:
    transaction = TwoPhaseTransaction(pools)
    try:
        for step in phase.commits:
            tell([step])
            await _all(_run(transaction, step, g, lock_wait_s) for g in step.groups)
        for group in phase.result.groups:
            with talking_to(group.name, "recording the new generation"):
                await write_topology(await transaction.on(group.name), phase.result)
    except BaseException:
        await transaction.rollback()
        raise
    return transaction


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
        await _build(pools, Step("clear_move", shard, (GroupId(group),), sql), group)


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
            await connection.execute(f"SET LOCAL lock_timeout = '{int(lock_wait_s * 1000)}ms'")
            await connection.execute(step.sql)
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


async def _build_all(pools: Pools, steps: Sequence[Step]) -> None:
    """Groups build at the same time, each its own steps in order."""

    async def chain(group: str) -> None:
        for step in steps:
            if group in step.groups:
                await _build(pools, step, group)

    await _all(chain(g) for g in dict.fromkeys(g for s in steps for g in s.groups))


async def _build(pools: Pools, step: Step, group: str) -> None:
    async with pools.connection(group) as connection:
        with talking_to(group, f"doing {step.kind} {step.target}"):
            if step.kind == "build_index":
                await _drop_invalid(connection, step.target)
            if step.kind in PATIENT:
                await connection.execute(step.sql)
                return
            try:
                async with connection.transaction():
                    # A server that works on for a client that is dead keeps the next one from clearing up.
                    await connection.execute("SET LOCAL client_connection_check_interval = '1s'")
                    await connection.execute(f"SET LOCAL lock_timeout = '{int(LOCK_WAIT_S * 1000)}ms'")
                    await connection.execute(step.sql)
            except psycopg.errors.LockNotAvailable as error:
                raise _busy(step, group, error) from error


async def _drop_invalid(connection: Connection, index: str) -> None:
    """An index whose concurrent build was interrupted is useless and in the way."""
    row = await (
        await connection.execute("SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s)", [index])
    ).fetchone()
    if row and not row[0]:
        name = Name.parse(index)
        await connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(*name)))


@asynccontextmanager
async def _change_lock(pools: Pools, group: str) -> AsyncIterator[Connection]:
    """Hold the herd's change lock: session-level, so that it goes with a process that dies."""
    async with pools.connection(group) as connection:
        with talking_to(group, "taking the change lock"):
            await connection.execute(f"SET lock_timeout = '{int(LOCK_WAIT_S * 1000)}ms'")
            try:
                await connection.execute("SELECT pg_advisory_lock(%s)", [CHANGE_LOCK])
            except psycopg.errors.LockNotAvailable as error:
                raise HerdBusy(
                    "another change of this herd is running", hint="wait for it to end, then again"
                ) from error
            finally:
                await connection.execute("RESET lock_timeout")
        try:
            yield connection
        finally:
            try:
                await connection.execute("SELECT pg_advisory_unlock(%s)", [CHANGE_LOCK])
            except psycopg.Error:
                await connection.close()  # the lock goes with its session
