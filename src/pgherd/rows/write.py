"""Writing rows at their homes. Each function works inside one distributed transaction: all groups or none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from psycopg import sql
from psycopg.adapt import PyFormat
from psycopg.rows import dict_row

from ..engines.base import Connection, Engine, Transaction
from ..engines.failures import talking_to
from ..errors import BadInput, BadRow
from ..model.names import Name
from ..model.schema import Table, TableKind, VectorType
from ..model.topology import Shard
from ..routing.route import Router
from .batch import Batch, vectors
from .copying import copy_into, sendable
from .where import Condition

T = TypeVar("T")
EVERYWHERE = "SET LOCAL pgherd.everywhere = 'on'"


class Writer:
    """Writes one table's rows. ``router`` knows its shards, ``groups`` are all groups of the herd."""

    def __init__(self, engine: Engine, table: Table, router: Router) -> None:
        self._engine = engine
        self._table = table
        self._router = router
        self._groups = [g.name for g in engine.topology.groups]

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
        return await self._write(transaction, batches, upsert=True)

    def by_home(self, batch: Batch) -> list[Batch]:
        """The batch in one part a group, for callers who commit each group by itself."""
        rows_of: dict[str, list[Any]] = {}
        for shard, rows in self._router.route_many(batch.columns):
            rows_of.setdefault(shard.home, []).append(rows)
        return [batch.take(np.sort(np.concatenate(rows))) for rows in rows_of.values()]

    def _identity(self, column: str) -> bool:
        found = self._table.column(column)
        return found is not None and (found.identity is not None or found.default is not None)

    async def _write(self, transaction: Transaction, batches: Sequence[Batch], *, upsert: bool) -> int:
        for batch in batches:
            await self._draw_ids(batch)
            if self._table.kind is TableKind.REFERENCE:
                await self._write_copies(transaction, batch, upsert)
                continue
            parts = [(shard, batch.take(rows)) for shard, rows in self._router.route_many(batch.columns)]
            by_home: dict[str, list[tuple[Shard, Batch]]] = {}
            for shard, part in parts:
                by_home.setdefault(shard.home, []).append((shard, part))

            async def write_home(home: str, parts: list[tuple[Shard, Batch]]) -> None:
                connection = await transaction.on(home)
                with talking_to(home, f"writing {self._table.name}"):
                    for shard, part in parts:
                        if upsert:
                            await self._upsert_into(connection, shard.relation, part)
                        else:
                            await copy_into(connection, shard.relation, self._table, part)

            await _all(write_home(home, parts) for home, parts in by_home.items())
        return sum(b.n for b in batches)

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

    async def _upsert_into(self, connection: Connection, relation: Name, batch: Batch) -> None:
        await connection.execute(self._insert_statement(relation, batch, upsert=True), self._arrays(batch))

    def _insert_statement(self, relation: Name, batch: Batch, *, upsert: bool) -> sql.Composed:
        """INSERT from one array a column: one statement, whatever the number of rows, and no right to make tables."""
        names = [sql.Identifier(n) for n in batch.columns]
        arrays = [sql.SQL("{}::{}[]").format(self._placeholder(n), sql.SQL(self._type(n))) for n in batch.columns]
        statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})").format(
            sql.Identifier(*relation), sql.SQL(", ").join(names), sql.SQL(", ").join(arrays)
        )
        if not upsert:
            return statement
        key = self._table.primary_key
        changed = [n for n in batch.columns if n not in key]
        action: sql.Composable = sql.SQL("NOTHING")
        if changed:
            action = sql.SQL("UPDATE SET {}").format(
                sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in changed)
            )
        columns = sql.SQL(", ").join(map(sql.Identifier, key))
        return statement + sql.SQL(" ON CONFLICT ({}) DO {}").format(columns, action)

    def _placeholder(self, column: str) -> sql.Placeholder:
        """Encoded vectors exist in binary only, and the driver would send a list as text."""
        found = self._table.column(column)
        kind = found.vector if found else None
        dense = kind is not None and kind[0] in (VectorType.VECTOR, VectorType.HALFVEC)
        return sql.Placeholder(format=PyFormat.BINARY if dense else PyFormat.AUTO)

    def _type(self, column: str) -> str:
        found = self._table.column(column)
        assert found is not None
        return found.type

    def _arrays(self, batch: Batch) -> list[Any]:
        arrays = []
        for name, values in batch.columns.items():
            column = self._table.column(name)
            assert column is not None
            if column.type.endswith("]"):
                raise BadInput(f"upsert of array column {name!r} is not supported", hint="use insert, or sql()")
            arrays.append(list(sendable(values, column)))
        return arrays

    async def _write_copies(self, transaction: Transaction, batch: Batch, upsert: bool) -> None:
        """Write the first copy, then give all others the very same rows, defaults included."""
        columns = [c for c in self._table.columns if c.generated is None]
        wanted = sql.SQL(", ").join(sql.Identifier(c.name) for c in columns)
        first, *others = self._groups
        connection = await transaction.on(first)
        with talking_to(first, f"writing {self._table.name}"):
            await connection.execute(EVERYWHERE)
            statement = self._insert_statement(self._table.name, batch, upsert=upsert)
            done = await connection.execute(statement + sql.SQL(" RETURNING {}").format(wanted), self._arrays(batch))
            rows = await done.fetchall()
        whole = Batch(len(rows), {c.name: list(v) for c, v in zip(columns, zip(*rows, strict=True), strict=True)})
        if not rows:
            return

        async def copy(group: str) -> None:
            connection = await transaction.on(group)
            with talking_to(group, f"writing {self._table.name}"):
                await connection.execute(EVERYWHERE)
                statement = self._insert_statement(self._table.name, whole, upsert=upsert)
                await connection.execute(statement, self._arrays(whole))

        await _all(copy(g) for g in others)

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
            sql.SQL("{} = {}").format(sql.Identifier(n), sql.Placeholder(f"pgherd_set_{i}"))
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
        if column is not None and column.vector and value is not None:
            return sendable(vectors([value], column), column)[0]
        return value

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
                    await connection.execute(EVERYWHERE)
                for shard in shards:
                    text = head + sql.Identifier(*shard.relation) + tail + sql.SQL(" WHERE ") + condition.sql
                    done = await connection.execute(text, {**condition.parameters, **parameters})
                    count += done.rowcount
            return count

        counts = await _all(run(home, shards) for home, shards in homes.items())
        return max(counts, default=0) if reference else sum(counts)

    async def _move(self, transaction: Transaction, condition: Condition, changes: Mapping[str, Any]) -> int:
        columns = [c for c in self._table.columns if c.generated is None]
        wanted = sql.SQL(", ").join(sql.Identifier(c.name) for c in columns)
        moved: list[dict[str, Any]] = []

        async def take(shard: Shard) -> None:
            connection = await transaction.on(shard.home)
            with talking_to(shard.home, f"moving rows of {self._table.name}"):
                cursor = connection.cursor(row_factory=dict_row)
                statement = sql.SQL("DELETE FROM {} WHERE {} RETURNING {}").format(
                    sql.Identifier(*shard.relation), condition.sql, wanted
                )
                await cursor.execute(statement, condition.parameters)
                moved.extend(await cursor.fetchall())

        for shard in condition.shards(self._router):
            await take(shard)
        if not moved:
            return 0
        new = {n: self._value(n, v) for n, v in changes.items()}
        rows = [{**row, **new} for row in moved]
        by_home: dict[str, list[tuple[Shard, dict[str, Any]]]] = {}
        for row in rows:
            shard = self._router.route(row)
            by_home.setdefault(shard.home, []).append((shard, row))

        async def put(home: str, rows: list[tuple[Shard, dict[str, Any]]]) -> None:
            connection = await transaction.on(home)
            values = sql.SQL(", ").join(sql.Placeholder(c.name) for c in columns)
            with talking_to(home, f"moving rows of {self._table.name}"):
                for shard, row in rows:
                    statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
                        sql.Identifier(*shard.relation), wanted, values
                    )
                    await connection.execute(statement, row)

        await _all(put(home, rows) for home, rows in by_home.items())
        return len(moved)


async def _all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; when one fails, the others end before its error is raised, so that none writes after a rollback."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
