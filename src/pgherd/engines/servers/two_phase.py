"""Commits over several groups. Guards: rows written together appear together, whoever dies in between.

One group decides: its transaction also inserts the outcome into ``pgherd.decision``, then all others are prepared
(PREPARE TRANSACTION), then it commits as usual. A prepared leftover is settled by asking the deciding group; if nothing
is written there, writing ``abort`` there first is what makes it safe to roll back (presumed abort, with the decision
row's unique key as the arbiter). The row comes before the first PREPARE so that whoever asks waits for a coordinator
that lives, and finds nothing as soon as it is dead. Source: PostgreSQL 18 manual, PREPARE TRANSACTION; Gray and
Lamport, Consensus on Transaction Commit, 2006.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg import sql

from ...errors import GroupUnavailable, HerdError, InDoubt, ServerRefused
from ..base import Connection
from ..failures import is_connection_loss, talking_to, translate
from . import acknowledged
from .pools import Pools

GID_PREFIX = "pgherd:"
SETTLE_LOCK_TIMEOUT_MS = 1000
LET_GO_S = 1.0
"""How long whoever is cancelled during a commit waits for its end all the same."""


def new_gid(decider: str) -> str:
    """A global transaction id that names the group which decides."""
    return f"{GID_PREFIX}{uuid.uuid4().hex}:{decider}"


class TwoPhaseTransaction:
    """A transaction over the groups it is used on; a single group commits without a second phase.

    Groups that are ``leaving`` never decide: with the commit they are gone.
    """

    def __init__(self, pools: Pools, leaving: Iterable[str] = ()) -> None:
        self._pools = pools
        self._leaving = frozenset(leaving)
        self._parts: dict[str, Connection] = {}
        self._joining = asyncio.Lock()
        self.left_over = False
        """whether somebody has yet to be told how it ended"""

    async def on(self, group: str) -> Connection:
        """The connection to ``group``; its transaction begins at the first call."""
        async with self._joining:
            if group not in self._parts:
                connection = await self._pools.take(group)
                self._parts[group] = connection
                with talking_to(group, "beginning a transaction"):
                    await connection.execute("BEGIN")
            return self._parts[group]

    @asynccontextmanager
    async def apart(self, group: str) -> AsyncIterator[Connection]:
        """A transaction of its own beside this one, on another connection to ``group``, committed when it is left."""
        async with self._pools.connection(group) as connection:
            with talking_to(group, "committing beside a transaction"):
                async with connection.transaction():
                    yield connection

    async def commit(self) -> None:
        """Make all of it durable. InDoubt only when the deciding group went away at the very commit, or waits for
        standbys of which none is in reach.

        Cancelled halfway, some groups would commit and others roll back; and a wait for standbys that is cancelled
        shows others what can still be lost. So whoever is not patient goes, and the commit goes on without him.
        """
        if not self._parts:
            return
        work = asyncio.ensure_future(self._commit())
        try:
            while not (await asyncio.wait([work], timeout=acknowledged.LOOK_EVERY_S))[0]:
                await self._look(work)
            work.result()
        except asyncio.CancelledError:
            await asyncio.wait([work], timeout=LET_GO_S)
            raise
        finally:
            if not work.done():
                self.left_over = True
                self._pools.leave(work, self._parts.values())
            elif not work.cancelled():
                work.exception()

    async def _look(self, work: asyncio.Future[None]) -> None:
        """Raise InDoubt if a group's part waits for standbys that are out of reach."""
        for group, part in list(self._parts.items()):
            stuck = False
            with suppress(GroupUnavailable):
                async with self._pools.connection(group) as connection:
                    with talking_to(group, "looking at a commit"):
                        stuck = await acknowledged.is_stuck(connection, part.info.backend_pid)
            if stuck and not work.done():
                raise InDoubt(
                    f"group {group} waits for its standbys, and none is in reach: the write is done when one is back,"
                    " and lost if its server is lost before",
                    hint="pgherd status; read the rows before writing them again",
                )

    async def _commit(self) -> None:
        decider, *others = sorted(self._parts, key=lambda g: (g in self._leaving, g))
        try:
            if others:
                await self._commit_all(decider, others)
            else:
                await self._decide(decider)
        finally:
            await self._give_back()

    async def rollback(self) -> None:
        """Undo all of it."""
        await self._each(self._parts, "ROLLBACK", ignore=True)
        await self._give_back()

    async def _commit_all(self, decider: str, others: list[str]) -> None:
        gid = new_gid(decider)
        literal = sql.Literal(gid)
        prepare = sql.SQL("PREPARE TRANSACTION {}").format(literal)
        undo = sql.SQL("ROLLBACK PREPARED {}").format(literal)
        try:
            await self._claim(decider, gid)
            await self._each(others, prepare, expect="PREPARE TRANSACTION")
            await self._decide(decider)
        except InDoubt:
            self.left_over = True
            raise
        except BaseException as error:
            self.left_over = isinstance(error, GroupUnavailable)
            await self._each([decider], "ROLLBACK", ignore=True)
            await self._each(others, "ROLLBACK", ignore=True)
            await self._each(others, undo, ignore=True)
            raise
        # Decided. Whoever can't be told now is told by recovery; nobody else will ask when all have been told.
        try:
            await self._each(others, sql.SQL("COMMIT PREPARED {}").format(literal))
        except HerdError:
            self.left_over = True
            return
        forget = "BEGIN; SET LOCAL synchronous_commit = off; DELETE FROM pgherd.decision WHERE gid = {}; COMMIT"
        await self._each([decider], sql.SQL(forget).format(literal), ignore=True)

    async def _claim(self, decider: str, gid: str) -> None:
        with talking_to(decider, "committing"):
            await self._parts[decider].execute(
                "INSERT INTO pgherd.decision (gid, outcome) VALUES (%s, 'commit')", [gid]
            )

    async def _decide(self, decider: str) -> None:
        connection = self._parts[decider]
        try:
            done = await connection.execute("COMMIT")
        except psycopg.Error as error:
            if not is_connection_loss(error):
                raise translate(error, decider, "committing") from error
            hint = "the next pgherd command settles it; read the rows before writing them again"
            raise InDoubt(f"group {decider} went away during the commit, which may have happened", hint=hint) from error
        acknowledged.check(connection, decider)
        if done.statusmessage == "ROLLBACK":
            raise ServerRefused(f"group {decider} rolled the transaction back instead of committing")

    async def _each(
        self, groups: Iterable[str], statement: str | sql.Composed, *, expect: str = "", ignore: bool = False
    ) -> None:
        async def run(group: str) -> None:
            try:
                with talking_to(group, "committing"):
                    done = await self._parts[group].execute(statement)
                try:
                    acknowledged.check(self._parts[group], group)
                except InDoubt as error:
                    if not expect:
                        raise
                    raise ServerRefused(f"group {group} gave up replicating its part of a commit") from error
                if expect and done.statusmessage != expect:  # PREPARE of a failed transaction is a quiet ROLLBACK
                    raise ServerRefused(f"group {group} rolled the transaction back instead of committing")
            except HerdError:
                if not ignore:
                    raise

        results = await asyncio.gather(*(run(g) for g in groups), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _give_back(self) -> None:
        parts, self._parts = self._parts, {}
        for group, connection in parts.items():
            await self._pools.give(group, connection)


async def settle_leftovers(pools: Pools, groups: Iterable[str], min_age_s: float, *, alone: bool = False) -> int:
    """Commit or roll back every prepared transaction of pgherd's older than ``min_age_s``; how many were settled.

    One whose coordinator is still deciding is left alone. ``alone``: the caller holds the herd's change lock, so that
    a herd's very first change, before there is a place for decisions, can't be under way.
    """
    settled = 0
    for group in groups:
        async with pools.connection(group) as connection:
            with talking_to(group, "looking for unfinished commits"):
                found = await connection.execute(
                    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, %s)"
                    " AND prepared <= clock_timestamp() - make_interval(secs => %s)",
                    [GID_PREFIX, min_age_s],
                )
                gids = [row[0] for row in await found.fetchall()]
            for gid in gids:
                outcome = await _outcome(pools, gid, alone)
                if outcome:
                    verb = "COMMIT" if outcome == "commit" else "ROLLBACK"
                    try:
                        await connection.execute(sql.SQL(f"{verb} PREPARED {{}}").format(sql.Literal(gid)))
                        settled += 1
                    except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectNotInPrerequisiteState):
                        pass  # its coordinator finished it meanwhile, or is doing so right now
                    except psycopg.errors.InsufficientPrivilege:
                        pass  # another role's: that role, or a superuser, settles it
                    except psycopg.Error as error:
                        raise translate(error, group, "finishing a commit") from error
    return settled


async def _outcome(pools: Pools, gid: str, alone: bool) -> str | None:
    decider = gid.rsplit(":", 1)[-1]
    async with pools.connection(decider) as connection:
        with talking_to(decider, "asking how a commit ended"):
            try:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = {SETTLE_LOCK_TIMEOUT_MS}")
                    await connection.execute(
                        "INSERT INTO pgherd.decision (gid, outcome) VALUES (%s, 'abort') ON CONFLICT DO NOTHING", [gid]
                    )
            except psycopg.errors.LockNotAvailable:
                return None  # its coordinator lives and is still deciding
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                return "abort" if alone else None
            row = await (
                await connection.execute("SELECT outcome FROM pgherd.decision WHERE gid = %s", [gid])
            ).fetchone()
            return str(row[0]) if row else None
