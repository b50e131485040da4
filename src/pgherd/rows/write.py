"""Writing rows at their homes. Each function works inside one distributed transaction: all groups or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ..engines.base import Connection, Engine, Transaction
from ..engines.failures import talking_to
from ..errors import BadInput, BadRow
from ..model.names import Name
from ..model.schema import Table, TableKind
from ..model.topology import Shard
from ..routing.route import Router
from .batch import Batch, vectors
from .cells import gather
from .copying import copy_into, outgoing, sendable
from .insert import as_texts, insert_rows, insert_texts, is_dense, stored_columns
from .quoting import escaped, identifier
from .together import together
from .trail import note
from .types import cast_type
from .where import Condition

SLICE_ROWS = 20_000
Routed = list[tuple[Shard, NDArray[np.intp]]]
"""Which of a batch's rows, ascending, go to which shard."""


def everywhere(generation: int) -> str:
    """What a transaction says that changes every copy of a reference table that there was at ``generation``."""
    return f"SET LOCAL pgherd.everywhere = '{generation}'"


def _within(routed: Routed, start: int, count: int) -> Routed:
    """The same of ``count`` rows from ``start`` on, counted from there."""
    found = []
    for shard, rows in routed:
        first, last = np.searchsorted(rows, (start, start + count))
        if first < last:
            found.append((shard, rows[first:last] - start))
    return found


class Writer:
    """Writes one table's rows. ``router`` knows its shards, ``groups`` are all groups of the herd."""

    def __init__(self, engine: Engine, table: Table, router: Router) -> None:
        self._engine = engine
        self._table = table
        self._router = router
        self._topology = engine.topology  # a client that reads meanwhile may learn of a newer one
        self._groups = [g.name for g in self._topology.groups]
        self.written: Counter[str] = Counter()
        """rows by group, of those groups that had a part in it, since the last :meth:`note`"""

    @property
    def _alias(self) -> sql.SQL:
        """What a condition may call the table, whichever shard it meets."""
        return identifier(self._table.name.name)

    async def insert(self, transaction: Transaction, batches: Sequence[Batch]) -> int:
        """COPY new rows home; how many. A key that exists is an error and undoes the transaction."""
        return await self._write(transaction, batches, upsert=False)

    async def upsert(self, transaction: Transaction, batches: Sequence[Batch]) -> int:
        """Insert rows, or replace the given columns of those whose primary key exists; how many."""
        if not self._table.primary_key:
            raise BadInput(f"table {self._table.name} has no primary key", hint="use insert, or give it a key")
        for batch in batches:
            missing = [c for c in self._table.primary_key if c not in batch.columns and not self._identity(c)]
            if missing:
                raise BadRow(f"primary key column {missing[0]!r} of {self._table.name} is missing in a row")
        written = 0
        for batch in batches:
            if self._table.cells is not None and self._table.cells.vector_column in batch.columns:
                batch = self._last_of_each_key(batch)
                self.written.update(await gather(transaction, self._table, self._router, batch))
            written += await self._write(transaction, [batch], upsert=True)
        return written

    async def note(self, transaction: Transaction, tool: str) -> None:
        """Leave a line of what was written in the trail of each group, if the herd keeps one."""
        written, self.written = self.written, Counter()
        if self._topology.schema.trail is None:
            return

        async def leave(group: str) -> None:
            connection = await transaction.on(group)
            with talking_to(group, "keeping the audit trail"):
                await note(connection, tool, self._table.name, written[group])

        await together(leave(group) for group in written)

    def by_home(self, batch: Batch, *, upsert: bool) -> list[Batch]:
        """The batch in one part a group, for callers who commit each group by itself."""
        if upsert and self._table.cells is not None:  # one key may be in several parts
            batch = self._last_of_each_key(batch)
        rows_of: dict[str, list[Any]] = {}
        for shard, rows in self._router.route_many(batch.columns):
            rows_of.setdefault(shard.home, []).append(rows)
        return [batch.take(np.sort(np.concatenate(rows))) for rows in rows_of.values()]

    def _identity(self, column: str) -> bool:
        found = self._table.column(column)
        return found is not None and (found.identity is not None or found.default is not None)

    async def _write(self, transaction: Transaction, batches: Sequence[Batch], *, upsert: bool) -> int:
        written = 0
        for batch in batches:
            await self._draw_ids(batch)
            if self._table.kind is TableKind.REFERENCE:
                written += await self._write_copies(transaction, batch, upsert)
                continue
            routed = self._router.route_many(batch.columns)  # all rows have a home, before any is sent
            # A slice is small enough to be encoded while the servers still take in the one before.
            start = 0
            for part in [batch] if upsert else batch.slices(SLICE_ROWS):
                written += await self._write_home(transaction, part, _within(routed, start, part.n), upsert)
                start += part.n
        return written

    async def _write_home(self, transaction: Transaction, batch: Batch, routed: Routed, upsert: bool) -> int:
        by_home: dict[str, Routed] = {}
        for shard, rows in routed:
            by_home.setdefault(shard.home, []).append((shard, rows))
        for home in sorted(by_home):  # always in the same order: two writers must not wait for each other
            connection = await transaction.on(home)
        copied = bool(by_home) and not upsert and not await self._held_back(home, connection, by_home[home])
        encoded = outgoing(connection, self._table, batch) if copied else None

        async def write(home: str, parts: Routed) -> int:
            connection = await transaction.on(home)
            count = 0
            with talking_to(home, f"writing {self._table.name}"):
                for shard, rows in parts:
                    if encoded is None:
                        count += await self._insert_into(connection, shard.relation, batch.take(rows), upsert)
                    else:
                        await copy_into(connection, shard.relation, encoded, rows)
                        count += len(rows)
            self.written[home] += count
            return count

        return sum(await together(write(home, parts) for home, parts in by_home.items()))

    async def _draw_ids(self, batch: Batch) -> None:
        """Identity columns that decide where a row goes need their value before it goes."""
        for name in self._table.partition_columns:
            column = self._table.column(name)
            if column is not None and column.identity and name not in batch.columns:
                home = self._groups[0]
                async with self._engine.connection(home) as connection:
                    drawn = await connection.execute(
                        "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)",
                        [self._table.name.sql, name, batch.n],
                    )
                    batch.columns[name] = [row[0] for row in await drawn.fetchall()]

    async def _held_back(self, home: str, connection: Connection, routed: Routed) -> bool:
        """Whether policies hold this role back: PostgreSQL takes no COPY from it."""
        if not self._table.row_security:
            return False
        with talking_to(home, f"writing {self._table.name}"):
            shard = routed[0][0].relation.sql
            done = await connection.execute("SELECT row_security_active(%s::regclass)", [shard])
            return bool((await done.fetchall())[0][0])

    async def _insert_into(self, connection: Connection, relation: Name, batch: Batch, upsert: bool) -> int:
        if upsert:
            batch = self._last_of_each_key(batch)
        statement, values = insert_rows(connection, self._table, relation, batch, upsert=upsert)
        await connection.execute(statement, values)
        return batch.n

    def _last_of_each_key(self, batch: Batch) -> Batch:
        """One statement may not write a row twice: of rows with one key the last one wins, as if sent one by one."""
        key = self._table.key
        if not all(c in batch.columns for c in key):
            return batch
        columns = (batch.columns[c] for c in key)
        keys = zip(*(c.tolist() if isinstance(c, np.ndarray) else c for c in columns), strict=True)
        try:
            last = {key: i for i, key in enumerate(keys)}
        except TypeError:  # not hashable: the server will say if there is one twice
            return batch
        return batch if len(last) == batch.n else batch.take(np.array(sorted(last.values()), np.intp))

    async def _write_copies(self, transaction: Transaction, batch: Batch, upsert: bool) -> int:
        """Write the first copy, then give all others the very same rows, defaults included."""
        if upsert:
            batch = self._last_of_each_key(batch)
        first, *others = self._groups
        connection = await transaction.on(first)
        with talking_to(first, f"writing {self._table.name}"):
            await connection.execute(everywhere(self._topology.generation))
            statement, values = insert_rows(connection, self._table, self._table.name, batch, upsert=upsert)
            done = await connection.execute(statement + sql.SQL(" RETURNING {}").format(as_texts(self._table)), values)
            rows = await done.fetchall()

        async def copy(group: str) -> None:
            connection = await transaction.on(group)
            with talking_to(group, f"writing {self._table.name}"):
                await connection.execute(everywhere(self._topology.generation))
                await connection.execute(*insert_texts(self._table, self._table.name, rows, upsert=upsert))

        if rows:
            await together(copy(g) for g in others)
        self.written.update(dict.fromkeys(self._groups, batch.n))
        return batch.n

    # changing and deleting what is there

    async def delete(self, transaction: Transaction, condition: Condition) -> int:
        """Delete the matching rows; how many."""
        return await self._on_shards(transaction, condition, sql.SQL("DELETE FROM "), sql.SQL(""), {})

    async def update(self, transaction: Transaction, condition: Condition, changes: Mapping[str, Any]) -> int:
        """Set columns of the matching rows; rows whose partition key changes move to their new home; how many."""
        if not changes:
            raise BadInput("update changes nothing", hint="give at least one column and its new value")
        self._check_columns(changes)
        if set(changes) & set(self._table.partition_columns):
            return await self._move(transaction, condition, changes)
        assignments = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(identifier(n), self._assigned(n, f"pgherd_set_{i}"))
            for i, n in enumerate(changes)
        )
        parameters = {f"pgherd_set_{i}": self._value(n, v) for i, (n, v) in enumerate(changes.items())}
        tail = sql.SQL(" SET ") + assignments
        return await self._on_shards(transaction, condition, sql.SQL("UPDATE "), tail, parameters)

    def _check_columns(self, columns: Mapping[str, Any]) -> None:
        for name in columns:
            column = self._table.column(name)
            if column is None:
                raise BadInput(f"table {self._table.name} has no column {name!r}")
            if column.generated is not None:
                raise BadInput(
                    f"column {name!r} of {self._table.name} is generated", hint="change what it is made from"
                )

    def _value(self, name: str, value: Any) -> Any:
        column = self._table.column(name)
        assert column is not None
        return sendable(vectors([value], column) if column.vector else [value], column)[0]

    def _assigned(self, name: str, parameter: str) -> sql.Composable:
        column = self._table.column(name)
        assert column is not None
        if is_dense(column):
            return sql.Placeholder(parameter)
        return sql.SQL("{}::{}").format(sql.Placeholder(parameter), sql.SQL(escaped(cast_type(column.type))))

    async def _on_shards(
        self,
        transaction: Transaction,
        condition: Condition,
        head: sql.Composable,
        tail: sql.Composable,
        parameters: Mapping[str, Any],
    ) -> int:
        """Run ``head relation tail WHERE condition`` on every shard that may hold matching rows (on every copy)."""
        shards = condition.shards(self._router)
        reference = self._table.kind is TableKind.REFERENCE
        homes: dict[str, list[Shard]] = {g: list(shards) for g in self._groups} if reference else {}
        for shard in () if reference else shards:
            homes.setdefault(shard.home, []).append(shard)

        async def run(home: str, shards: list[Shard]) -> int:
            connection = await transaction.on(home)
            count = 0
            with talking_to(home, f"writing {self._table.name}"):
                if reference:
                    await connection.execute(everywhere(self._topology.generation))
                for shard in shards:
                    target = sql.SQL("{} AS {}").format(identifier(shard.relation), self._alias)
                    text = head + target + tail + sql.SQL(" WHERE ") + condition.sql
                    done = await connection.execute(text, {**condition.parameters, **parameters})
                    count += done.rowcount
            self.written[home] += count
            return count

        for home in sorted(homes):
            await transaction.on(home)
        counts = await together(run(home, shards) for home, shards in homes.items())
        return max(counts, default=0) if reference else sum(counts)

    async def _move(self, transaction: Transaction, condition: Condition, changes: Mapping[str, Any]) -> int:
        """Take the matching rows out and put them, changed, where they belong now."""
        columns = stored_columns(self._table)
        keys = self._table.partition_columns
        wanted = as_texts(self._table) + sql.SQL("".join(", {}" for _ in keys)).format(*map(identifier, keys))
        moved: list[tuple[str, tuple[Any, ...]]] = []
        for shard in condition.shards(self._router):
            connection = await transaction.on(shard.home)
            with talking_to(shard.home, f"moving rows of {self._table.name}"):
                statement = sql.SQL("DELETE FROM {} AS {} WHERE {} RETURNING {}").format(
                    identifier(shard.relation), self._alias, condition.sql, wanted
                )
                done = await connection.execute(statement, condition.parameters)
                moved.extend((shard.home, row) for row in await done.fetchall())
            self.written[shard.home] += 0
        if not moved:
            return 0
        with talking_to(shard.home, f"moving rows of {self._table.name}"):
            new = await self._new_texts(connection, changes)
        arriving: dict[str, dict[Name, list[list[str | None]]]] = {}
        for home, row in moved:
            shard = self._router.route({**dict(zip(keys, row[len(columns) :], strict=True)), **changes})
            texts = [new.get(c.name, text) for c, text in zip(columns, row, strict=False)]
            arriving.setdefault(shard.home, {}).setdefault(shard.relation, []).append(texts)
            self.written.update({home, shard.home})

        async def put(home: str, relations: dict[Name, list[list[str | None]]]) -> None:
            connection = await transaction.on(home)
            with talking_to(home, f"moving rows of {self._table.name}"):
                for relation, rows in relations.items():
                    await connection.execute(*insert_texts(self._table, relation, rows))

        await together(put(home, shards) for home, shards in arriving.items())
        return len(moved)

    async def _new_texts(self, connection: Connection, changes: Mapping[str, Any]) -> dict[str, str | None]:
        """The new values as the server writes them."""
        texts = sql.SQL(", ").join(
            sql.SQL("({})::text").format(self._assigned(n, f"pgherd_set_{i}")) for i, n in enumerate(changes)
        )
        values = {f"pgherd_set_{i}": self._value(n, v) for i, (n, v) in enumerate(changes.items())}
        done = await connection.execute(sql.SQL("SELECT ") + texts, values)
        row = await done.fetchone()
        assert row is not None
        return dict(zip(changes, row, strict=True))
