"""A chunk's rows and the load's new state in one commit; rows that a server refuses are found and rejected."""

from __future__ import annotations

import re

import numpy as np
import psycopg
from numpy.typing import NDArray

from ..engines.base import Engine, Transaction
from ..engines.failures import talking_to
from ..errors import ServerRefused, StaleTopology
from ..model.schema import Table, TableKind
from ..routing.route import Router
from ..rows.write import Writer
from .prepare import Ready, ReadyPart
from .records import Reject
from .rejects import RejectFile
from .state import LoadState, Position

_ROW_STATES = ("22", "23", "44", "P0001")
"""SQLSTATEs about a row: data exception, integrity violation, view's check option, a trigger's RAISE."""
_SAVEPOINT = "pgherd_rows"
_VALUE = re.compile(r': ".*"', re.DOTALL)

Rows = NDArray[np.intp]


class Committer:
    """Commits the chunks of one load, in order."""

    def __init__(self, engine: Engine, table: Table, router: Router, state: LoadState, reject_file: RejectFile) -> None:
        self._engine = engine
        self._table = table
        self._router = router
        self._writer = Writer(engine, table, router)
        self._groups: list[str] = [g.name for g in engine.topology.groups]
        self._generation = engine.topology.generation
        self._state = state
        self._reject_file = reject_file

    async def commit(self, ready: Ready) -> None:
        """Write the chunk. Raises ServerRefused (about more than a row), GroupUnavailable, InDoubt, HerdBusy."""
        while True:
            try:
                return await self._commit(ready)
            except (ServerRefused, StaleTopology):
                if not await self._follow():
                    raise

    async def _follow(self) -> bool:
        """Whether the herd has changed since the rows were last routed; from now on they go by its newest topology."""
        topology = await self._engine.refresh()
        if topology.generation == self._generation:
            return False
        self._generation = topology.generation
        self._router = Router(
            topology.shards(topology.table(self._table.name)), {c.name: c.type for c in self._table.columns}
        )
        self._writer = Writer(self._engine, self._table, self._router)
        self._groups = [g.name for g in topology.groups]
        return True

    async def _commit(self, ready: Ready) -> None:
        try:
            try:
                await self._write(ready, search=False)
            except ServerRefused as error:
                if not _about_a_row(error):
                    raise
                await self._write(ready, search=True)
        except (ServerRefused, StaleTopology):
            self._reject_file.cut()
            raise

    async def _write(self, ready: Ready, *, search: bool) -> None:
        self._writer.written.clear()
        async with self._engine.transaction() as transaction:
            rejects = ready.rejects
            if search:
                refused = [r for part in ready.parts for r in await self._search(transaction, part)]
                rejects = sorted([*rejects, *refused], key=lambda r: r.line)
            else:
                refused = []
                await self._writer.insert(transaction, [p.batch for p in ready.parts])
            await self._writer.note(transaction, "load")
            old = self._state.position
            new = Position(
                ready.lines_done,
                old.rows_done + ready.rows - len(refused),
                old.rejected + len(rejects),
                # Written before the commit: a kill in between leaves too much, which is cut off, never too little.
                self._reject_file.append(rejects),
            )
            await self._state.advance(transaction, new)
        self._state.moved(new)
        self._reject_file.keep(new.reject_bytes)

    async def _search(self, transaction: Transaction, part: ReadyPart) -> list[Reject]:
        """Write what can be written of a part; the rows that are refused, each found in about 2 log2(n) attempts."""
        refused: list[Reject] = []
        waiting = list(self._by_groups(part))
        while waiting:
            groups, rows = waiting.pop()
            error = await self._attempt(transaction, part, groups, rows)
            if error is None:
                continue
            if len(rows) == 1:
                refused.append(part.reject(int(rows[0]), error.code, _reason(error)))
            else:
                half = len(rows) // 2
                waiting += [(groups, rows[half:]), (groups, rows[:half])]
        return refused

    def _by_groups(self, part: ReadyPart) -> list[tuple[list[str], Rows]]:
        if self._table.kind is TableKind.REFERENCE:
            return [(list(self._groups), np.arange(part.batch.n))]
        homes: dict[str, list[Rows]] = {}
        for shard, rows in self._router.route_many(part.batch.columns):
            homes.setdefault(shard.home, []).append(rows)
        return [([home], np.sort(np.concatenate(rows))) for home, rows in homes.items()]

    async def _attempt(
        self, transaction: Transaction, part: ReadyPart, groups: list[str], rows: Rows
    ) -> ServerRefused | None:
        await self._on(transaction, groups, f"SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT {_SAVEPOINT}")
        written = self._writer.written.copy()
        try:
            await self._writer.insert(transaction, [part.batch.take(rows)])
        except ServerRefused as error:
            if not _about_a_row(error):
                raise
            self._writer.written = written
            await self._on(transaction, groups, f"ROLLBACK TO {_SAVEPOINT}; RELEASE {_SAVEPOINT}")
            return error
        await self._on(transaction, groups, f"RELEASE {_SAVEPOINT}")
        return None

    async def _on(self, transaction: Transaction, groups: list[str], statement: str) -> None:
        for group in groups:
            connection = await transaction.on(group)
            with talking_to(group, f"writing {self._table.name}"):
                await connection.execute(statement)


def _about_a_row(error: ServerRefused) -> bool:
    cause = error.__cause__
    return isinstance(cause, psycopg.Error) and (cause.sqlstate or "").startswith(_ROW_STATES)


def _reason(error: ServerRefused) -> str:
    """The server's message; what it quotes of the row is left out, the row stands next to it."""
    cause = error.__cause__
    assert isinstance(cause, psycopg.Error)
    return f"{_VALUE.sub('', cause.diag.message_primary or 'refused')} (SQLSTATE {cause.sqlstate})"
