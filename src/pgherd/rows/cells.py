"""The cells of tables that are shared out by them: centroids as the herd keeps them, and the cell of each row.

They are a reference table like any other, so every node has them and a server that joins gets them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any

import numpy as np
from psycopg import sql

from ..engines.base import Engine, Transaction
from ..engines.failures import talking_to
from ..errors import BadInput, BadRow, GroupUnavailable
from ..model.names import Name
from ..model.schema import Cells, Table
from ..model.topology import Shard
from ..model.vectors import Metric
from ..routing.nearest import Centroids
from ..routing.route import Router
from .batch import Batch, Values
from .insert import as_texts, insert_texts, stored_columns, texts_of
from .quoting import escaped, identifier
from .together import together
from .types import cast_type

LOOK_EVERY_S = 2.0
"""How long a client believes that a table's cells are not learned yet."""


class KnownCells:
    """Centroids by table, as far as they are learned. They are read once: a table's cells never change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[Name, Centroids] = {}
        self._looked_at: dict[Name, float] = {}

    def of(self, cells: Cells) -> Centroids | None:
        """The centroids, if they have been read."""
        return self._known.get(cells.table)

    def is_due(self, cells: Cells) -> bool:
        """Whether it is time to look for them."""
        return cells.table not in self._known and (
            monotonic() - self._looked_at.get(cells.table, -LOOK_EVERY_S) >= LOOK_EVERY_S
        )

    async def read(self, cells: Cells) -> Centroids | None:
        """The centroids; None if there are none yet. Raises GroupUnavailable when no group answers."""
        known = self._known.get(cells.table)
        if known is None:
            known = await self._from_any_group(cells)
            self._looked_at[cells.table] = monotonic()
            if known is not None:
                self._known[cells.table] = known
        return known

    async def learned(self, table: Table) -> Centroids:
        """The centroids. Raises BadInput without any."""
        assert table.cells is not None
        found = await self.read(table.cells)
        if found is None:
            raise BadInput(
                f"no cells of table {table.name} have been learned: no row has a place",
                hint=f"pgherd load {table.name} FILE learns them from the file; table.learn(vectors) from vectors",
            )
        return found

    async def check_none(self, table: Table, shards: Sequence[Shard]) -> None:
        """Raises BadInput if cells have been learned, or if there are rows, which would not lie by them."""
        assert table.cells is not None
        if await self.read(table.cells) is not None:
            raise BadInput(
                f"the cells of {table.name} have been learned: its rows lie by them",
                hint="make a new table and copy the rows",
            )
        for shard in shards:
            query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(*shard.relation))
            async with self._engine.connection(shard.home) as connection:
                with talking_to(shard.home, f"looking into {shard.name}"):
                    found = await (await connection.execute(query)).fetchone()
            if found and found[0]:
                raise BadInput(
                    f"table {table.name} has rows, whose cells would not be the learned ones",
                    hint="take them out first",
                )

    async def _from_any_group(self, cells: Cells) -> Centroids | None:
        *others, last = [g.name for g in self._engine.topology.groups]
        for group in others:
            try:
                return await self._from(group, cells)
            except GroupUnavailable:
                continue
        return await self._from(last, cells)

    async def _from(self, group: str, cells: Cells) -> Centroids | None:
        query = sql.SQL("SELECT cell, centroid FROM {} ORDER BY cell").format(sql.Identifier(*cells.table))
        async with self._engine.connection(group) as connection:
            with talking_to(group, f"reading {cells.table}"):
                rows = await (await connection.execute(query)).fetchall()
        if not rows:
            return None
        vectors = np.stack([np.asarray(v if isinstance(v, np.ndarray) else v.to_numpy(), np.float32) for _, v in rows])
        return Centroids(np.array([number for number, _ in rows], np.int64), vectors, Metric(cells.metric))


def cells_of(centroids: Centroids, values: Values) -> Values:
    """The cell of each vector of a column; rows without one go to the first cell."""
    if isinstance(values, np.ndarray):
        return centroids.cells(values)
    found = np.full(len(values), centroids.numbers[0], np.int64)
    present = [i for i, v in enumerate(values) if v is not None]
    if present:
        found[present] = centroids.cells(np.stack([values[i] for i in present]).astype(np.float32))
    return found


def put_into_cells(table: Table, centroids: Centroids, batch: Batch) -> None:
    """Give each row its cell. Raises BadRow for rows that say neither their vector nor where they are."""
    assert table.cells is not None
    cells = table.cells
    if cells.vector_column in batch.columns:
        batch.columns[cells.column] = cells_of(centroids, batch.columns[cells.vector_column])
    elif cells.column not in batch.columns:
        raise BadRow(
            f"rows of {table.name} have a place by their {cells.vector_column!r}, which is missing",
            hint=f"give it, or {cells.column!r} of rows that exist",
        )


async def gather(transaction: Transaction, table: Table, router: Router, batch: Batch) -> Counter[str]:
    """Bring rows that have the keys of ``batch`` and lie in other cells to where their new vectors belong.

    How many left each group for another one.

    No unique key spans cells: a row that is written again near something else would be there twice.
    """
    assert table.cells is not None
    cell = table.cells.column
    keys = [c for c in map(table.column, table.primary_key) if c is not None and c.name != cell]
    if any(c.name not in batch.columns for c in keys):
        return Counter()  # drawn by the server: the rows are new
    stored = [c.name for c in stored_columns(table)]
    given = sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in (*keys, cell))
    names = sql.SQL(", ").join(sql.Identifier(f"pgherd_k{i}") for i in range(len(keys) + 1))
    same = [
        sql.SQL("{} = {}::{}").format(identifier(c.name), sql.Identifier(f"pgherd_k{i}"), _type(c.type))
        for i, c in enumerate(keys)
    ]
    other = sql.SQL("{} <> {}::bigint").format(identifier(cell), sql.Identifier(f"pgherd_k{len(keys)}"))
    by_home: dict[str, list[Name]] = {}
    for shard in router.shards:
        by_home.setdefault(shard.home, []).append(shard.relation)
    for home in sorted(by_home):
        await transaction.on(home)

    async def take(home: str, relations: list[Name]) -> list[tuple[Any, ...]]:
        connection = await transaction.on(home)
        values = [texts_of(connection, batch.columns[c]) for c in (*(k.name for k in keys), cell)]
        taken: list[tuple[Any, ...]] = []
        with talking_to(home, f"moving rows of {table.name}"):
            for relation in relations:
                statement = sql.SQL(
                    "DELETE FROM {} USING unnest({}) AS pgherd_new ({}) WHERE {} RETURNING {}, {}"
                ).format(
                    identifier(relation),
                    given,
                    names,
                    sql.SQL(" AND ").join([*same, other]),
                    as_texts(table),
                    sql.Identifier(f"pgherd_k{len(keys)}"),
                )
                taken += await (await connection.execute(statement, values)).fetchall()
        return taken

    arriving: dict[str, dict[Name, list[list[str | None]]]] = {}
    left: Counter[str] = Counter()
    found = await together(take(home, relations) for home, relations in by_home.items())
    for old, rows in zip(by_home, found, strict=True):
        for *texts, number in rows:
            shard = router.route({cell: int(number)})
            left.update({old} - {shard.home})
            texts[stored.index(cell)] = number
            arriving.setdefault(shard.home, {}).setdefault(shard.relation, []).append(texts)

    async def put(home: str, relations: dict[Name, list[list[str | None]]]) -> None:
        connection = await transaction.on(home)
        with talking_to(home, f"moving rows of {table.name}"):
            for relation, rows in relations.items():
                await connection.execute(*insert_texts(table, relation, rows, upsert=True))

    if arriving:
        await together(put(home, relations) for home, relations in arriving.items())
    return left


def _type(text: str) -> sql.SQL:
    return sql.SQL(escaped(cast_type(text)))
