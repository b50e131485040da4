"""The public Python API. ``connect_async`` is the one implementation; ``pgherd.sync`` runs it on a thread."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import numpy as np
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from .embedding.base import Embedder
from .embedding.chat import model_and_url, row_text
from .embedding.regional import Answering, RegionalModels, is_here
from .engines.base import Connection, Engine, OnStep
from .engines.conduct import Conduct
from .engines.failures import is_connection_loss, talking_to
from .engines.guard import unguarded_notes
from .engines.modellog import ModelLog
from .engines.open import open_dsn, open_home
from .engines.plainsql import unrecorded_notes
from .engines.reading import Read, Reading, reading_of
from .engines.standbys import Standbys
from .errors import BadInput, GroupUnavailable, HerdError, InDoubt, ServerRefused, StaleTopology, UnknownName
from .herdfile import Endpoint, default_home, read
from .model.names import Name
from .model.schema import Column, Index, Schema, Table, TableKind, Trail
from .model.topology import Shard, Topology
from .model.vectors import Metric
from .patience import PATIENCE_S, patiently
from .planning.plan import Plan
from .routing.learning import learn
from .routing.route import Router
from .rows.batch import Batch, batches_of
from .rows.batch import vectors as vectors_of
from .rows.cells import KnownCells, put_into_cells
from .rows.quoting import identifier
from .rows.statements import Effect, effect_of, is_about_rows, modified_reference_tables, tables_in
from .rows.trail import LINE, Line, noted, run_noted
from .rows.where import Condition, condition_of
from .rows.write import Writer, everywhere
from .search.answers import Answer, Answers
from .search.hedging import Reads, nodes_for
from .search.hits import Hit, Hits
from .search.hybrid import hybrid_request_of
from .search.narrowing import Narrowing
from .search.nearest import nearest_only
from .search.repeated import Repeated, form_of, repeated_of
from .search.request import MAX_FORMS, Forms, Page, Request, request_of, vector_column
from .search.scatter import scatter
from .search.words import words_of
from .textmodels import TextModels
from .tuning.calibrate import SAMPLE, tune
from .tuning.knowledge import Calibrations
from .tuning.store import Calibration
from .tuning.tasks import Progress

T = TypeVar("T")
LOOK_EVERY_S = 2.0
"""How long a client trusts its topology when it reads; moves rely on it (planning/move.py, READERS_S)."""
FOLLOW = 5
"""How many changes of the herd in a row one call follows: shards are split and moved one after the other."""


@asynccontextmanager
async def connect_async(
    dsn: str | None = None,
    *,
    home: str | Path | None = None,
    embedder: Embedder | str | None = None,
    endpoints: Mapping[str, str] | None = None,
    llms: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
) -> AsyncIterator[AsyncHerd]:
    """Open a herd: by the DSN of any one of its servers, or by its home (``PGHERD_HOME`` if left out).

    ``embedder`` turns texts into vectors wherever the schema names no model; an :class:`Embedder` or a spec like
    ``wordllama``. ``endpoints`` maps regions to the base URLs of endpoints there, to which alone texts of pinned
    rows are sent; those of the home's herd.toml if left out. ``llms`` maps regions to answering models there, as
    ``openai:MODEL@BASE_URL``; those of herd.toml if left out. While a group with standbys changes its primary, calls
    that may be repeated are, for up to ``patience_s``. Raises NoSuchHerd, GroupUnavailable, BadInput.
    """
    where = None if dsn else Path(home) if home else default_home()
    file = read(where) if where else None
    regional = dict(file.embedding) if file else {}
    if endpoints is not None:
        regional = {region: Endpoint(url) for region, url in endpoints.items()}
    answering = dict(file.llm) if file else {}
    if llms is not None:
        parts = {region: model_and_url(spec) for region, spec in llms.items()}
        answering = {region: Endpoint(url, model) for region, (model, url) in parts.items()}
    engine = await (open_dsn(dsn) if dsn else open_home(where or default_home()))
    log = ModelLog(engine)
    herd = AsyncHerd(engine, embedder, patience_s, RegionalModels(regional, log.note, answering))
    try:
        yield herd
    finally:
        log.close()
        if herd._hearing is not None:
            herd._hearing.cancel()
            await asyncio.wait([herd._hearing])
        await herd._standbys.close()
        await engine.close()


async def _written(connection: Connection, table: Name) -> Any:
    """A digest of the rows of ``table`` that this transaction has written."""
    query = sql.SQL(
        "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {} t WHERE xmin = pg_current_xact_id()::xid"
    )
    return await (await connection.execute(query.format(sql.Identifier(*table)))).fetchone()


class AsyncHerd:
    """One Postgres out of many. Made by :func:`connect_async`."""

    def __init__(
        self,
        engine: Engine,
        embedder: Embedder | str | None = None,
        patience_s: float = PATIENCE_S,
        models: RegionalModels | None = None,
    ) -> None:
        self._engine = engine
        regional = models or RegionalModels({}, ModelLog(engine).note)
        self.models = TextModels(engine, self.router, embedder, regional)
        """which model gets which text"""
        self._patience_s = patience_s
        self._known: dict[Name, _Known] = {}
        self._calibrations = Calibrations()
        self._narrowing = Narrowing()
        self._standbys = Standbys(engine)
        self.cells = KnownCells(engine)
        """the centroids of tables that are shared out by cells"""
        self._looked_at = monotonic()
        self._heard, self._heard_at = 0, monotonic()
        self._hearing: asyncio.Task[None] | None = None

    @property
    def topology(self) -> Topology:
        """Groups, tables and homes, as last read."""
        return self._engine.topology

    @property
    def engine(self) -> Engine:
        """What serves the herd; for code that needs connections or transactions of its own."""
        return self._engine

    def table(self, name: str) -> AsyncTable:
        """A table of the herd; UnknownName if there is none of that name."""
        return AsyncTable(self, self.topology.table(name).name)

    async def plan(self, schema: Schema) -> Plan:
        """What ``apply`` would do; nothing is changed."""
        await self._engine.refresh()
        made = self._engine.plan(schema)
        self.models.check(schema)
        notes: tuple[str, ...] = ()
        if made.result:
            notes = await unguarded_notes(self._engine, made.result)
            notes += await unrecorded_notes(self._engine, made.result)
        return replace(made, notes=(*made.notes, *notes))

    async def execute(self, plan: Plan, on_step: OnStep | None = None, conduct: Conduct | None = None) -> Topology:
        """Carry a plan out, its moves as ``conduct`` says. Raises StalePlan, HerdBusy, ServerRefused."""
        return await self._engine.execute(plan, on_step, conduct)

    async def recover(self) -> int:
        """Settle commits over several groups that somebody left half done; how many there were."""
        return await self._engine.recover()

    async def sql(
        self, query: str, params: Mapping[str, Any] | Sequence[Any] | None = None, *, region: str | None = None
    ) -> list[dict[str, Any]]:
        """Run SQL on a node (of ``region``, or the first one) and return its rows as dicts.

        Any node answers any SQL. A statement that changes a reference table runs on all groups in one commit.
        In a herd with standbys one that changes rows is tried again while a group has no primary, and raises InDoubt
        rather than wait for standbys that are out of reach.
        Raises ServerRefused, GroupUnavailable, UnknownName, InDoubt.
        """
        await self.keep_up()
        group = self._group_for(region)
        references = modified_reference_tables(query, self.topology)
        if references:
            return await self.with_fresh_topology(lambda: self._sql_everywhere(query, params, references))
        effect = effect_of(query)
        if effect is Effect.POSSIBLE and self.patience_s and is_about_rows(query):
            return await self.with_fresh_topology(lambda: self._sql_committed(self._group_for(region), query, params))

        async def run() -> list[dict[str, Any]]:
            try:
                return await self._sql_on(group, query, params, effect)
            except GroupUnavailable as error:
                known = self.topology.generation
                if not await self._has_changed(known, error) or group in [g.name for g in self.topology.groups]:
                    raise
                return await self._sql_on(self._group_for(region), query, params, effect)

        return await patiently(run, self.patience_s if effect is Effect.NONE else 0.0)

    async def _sql_on(self, group: str, query: str, params: Any, effect: Effect) -> list[dict[str, Any]]:
        async with self._engine.connection(group) as connection:
            try:
                return await self._rows_of(connection, query, params)
            except psycopg.OperationalError as error:
                if effect is Effect.POSSIBLE and is_connection_loss(error):
                    raise InDoubt(
                        f"group {group} went away while it ran the statement, which may have taken effect",
                        hint="read the rows before writing them again",
                    ) from error
                raise

    async def _sql_committed(self, group: str, query: str, params: Any) -> list[dict[str, Any]]:
        """In a transaction: it may be tried again without a primary, and does not wait for ever for standbys."""
        async with self._engine.transaction() as transaction:
            connection = await transaction.on(group)
            with talking_to(group):
                return await self._rows_of(connection, query, params)

    async def _rows_of(self, connection: Connection, query: str, params: Any) -> list[dict[str, Any]]:
        cursor = connection.cursor(row_factory=dict_row)
        if self.topology.schema.trail is not None:
            return list(await run_noted(connection, cursor, query, params))
        await cursor.execute(query, params)
        return await cursor.fetchall() if cursor.description else []

    async def _sql_everywhere(self, query: str, params: Any, references: list[Name]) -> list[dict[str, Any]]:
        topology = self.topology
        rows: list[dict[str, Any]] = []
        effects = set()
        async with self._engine.transaction() as transaction:
            for group in topology.groups:
                connection = await transaction.on(group.name)
                with talking_to(group.name):
                    await connection.execute(everywhere(topology.generation))
                    cursor = connection.cursor(row_factory=dict_row)
                    await cursor.execute(query, params)
                    rows = await cursor.fetchall() if cursor.description else []
                    if topology.schema.trail is not None:
                        await connection.execute(LINE, ["sql", tables_in(query), max(0, cursor.rowcount)])
                    effects.add((cursor.rowcount, *[await _written(connection, name) for name in references]))
                if len(effects) > 1:
                    raise BadInput(
                        "the statement gives a reference table other rows on every node (a default or function such as"
                        " random(), clock_timestamp() or an identity column)",
                        hint="give the values in the statement, or write with the table's insert() or upsert()",
                    )
        return rows

    @property
    def patience_s(self) -> float:
        """How long a call is tried again while a group has no primary; nothing is to be waited for without standbys."""
        return self._patience_s if any(len(g.nodes) > 1 for g in self.topology.groups) else 0.0

    async def with_fresh_topology(self, call: Callable[[], Awaitable[T]], *, repeatable: bool = False) -> T:
        """Run ``call``, which reads, or writes all or nothing; again if the herd has changed or a group had no primary.

        One that is ``repeatable`` is run again even when it may have happened.
        """

        async def settle() -> None:
            await self._engine.recover()

        return await patiently(lambda: self._following(call), self.patience_s, settle=settle if repeatable else None)

    async def _following(self, call: Callable[[], Awaitable[T]]) -> T:
        """A shard that was moved is found the long way, one that was split is there under its old name no longer."""
        for _ in range(FOLLOW - 1):
            known = self.topology.generation
            try:
                return await call()
            except (StaleTopology, ServerRefused, GroupUnavailable) as error:
                if not await self._has_changed(known, error):
                    raise
        return await call()

    async def has_changed_since(self, generation: int) -> bool:
        """Read the topology anew; whether it is another one."""
        return (await self._engine.refresh()).generation != generation

    async def _has_changed(self, known: int, error: HerdError) -> bool:
        """Whether the herd is another than at generation ``known``; a group that failed may have left it."""
        try:
            return await self.has_changed_since(known)
        except GroupUnavailable:
            raise error from error.__cause__

    @property
    def is_due(self) -> bool:
        """Whether it is time to look for a newer topology; with an old one, moved shards are found the long way."""
        return monotonic() - self._looked_at > LOOK_EVERY_S

    async def look(self) -> None:
        """Read the topology again if a group knows a newer one; not more often than every few seconds."""
        self._looked_at = monotonic()
        with suppress(GroupUnavailable):
            if await self._engine.newest_generation() != self.topology.generation:
                await self._engine.refresh()

    async def keep_up(self) -> None:
        """Before a write: go by the newest topology heard of, which may say that the herd keeps an audit trail.

        What there is to hear is asked beside the write, which it must not hold up; one of the next goes by it.
        """
        if self._heard > self.topology.generation:
            with suppress(GroupUnavailable):
                await self._engine.refresh()
        due = monotonic() - self._heard_at > LOOK_EVERY_S
        if due and (self._hearing is None or self._hearing.done()):
            self._heard_at = monotonic()
            self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        with suppress(HerdError):
            self._heard = await self._engine.newest_generation()

    def is_ready(self, reading: Reading) -> bool:
        """Whether a read may go on at once: what is known of the herd is new enough, or else :meth:`get_ready`."""
        if reading.read is Read.PRIMARY:
            return not self.is_due
        return self._standbys.is_ready and self._standbys.newest_generation <= self.topology.generation

    async def get_ready(self, reading: Reading) -> None:
        """Bring what is known of the herd up to date: its topology and, for reads from replicas, its nodes."""
        if reading.read is Read.PRIMARY:
            await self.look()
            return
        await self._standbys.ready()
        if self._standbys.newest_generation > self.topology.generation:
            with suppress(GroupUnavailable):
                await self._engine.refresh()

    def reads(self, reading: Reading) -> Reads | None:
        """Where a read may be answered, as searches need it; None: by the primaries, which alone can keep a trail."""
        if reading.read is Read.PRIMARY or self.topology.schema.trail is not None:
            return None
        return Reads(reading, self._standbys)

    def _group_for(self, region: str | None) -> str:
        for group in self.topology.groups:
            if region is None or region in (group.name, group.primary.label.region):
                return group.name
        regions = ", ".join(dict.fromkeys(g.primary.label.region for g in self.topology.groups))
        raise UnknownName(f"there is no region {region!r} in this herd", hint=f"regions: {regions}")

    def router(self, table: Table) -> Router:
        """The table's router at this generation."""
        return self._about(table.name).router

    def _about(self, name: Name) -> _Known:
        """What is known of a table at this generation; UnknownName once it is gone."""
        found, topology = self._known.get(name), self._engine.topology
        if found is None or found.topology is not topology:
            table = topology.table(name)
            router = Router(topology.shards(table), {c.name: c.type for c in table.columns})
            found = self._known[name] = _Known(topology, table, topology.indexes(table), router, {}, {}, {})
        return found


class _Known(NamedTuple):
    """What every call on a table needs, worked out once a topology."""

    topology: Topology
    table: Table
    indexes: tuple[Index, ...]
    router: Router
    forms: Forms
    targets: dict[str | None, Column]
    repeats: dict[Hashable, Repeated]

    def target(self, column: str | None) -> Column:
        """The vector column named, or the table's only one. BadInput."""
        found = self.targets.get(column)
        if found is None:
            found = self.targets[column] = vector_column(self.table, column)
        return found


class AsyncTable:
    """One table of a herd: rows are written at their homes, searches go to all homes at once."""

    def __init__(self, herd: AsyncHerd, name: Name) -> None:
        self._herd = herd
        self._name = name

    @property
    def herd(self) -> AsyncHerd:
        """The herd it belongs to."""
        return self._herd

    @property
    def definition(self) -> Table:
        """The table as the schema has it."""
        return self._herd._about(self._name).table

    async def insert(self, rows: Any, *, atomic: bool = True, embed: Mapping[str, str] | None = None) -> int:
        """Add new rows; how many. ``rows``, ``atomic`` and ``embed`` as in :meth:`upsert`."""
        return await self._write(rows, atomic, embed, upsert=False)

    async def upsert(self, rows: Any, *, atomic: bool = True, embed: Mapping[str, str] | None = None) -> int:
        """Insert rows, or replace the given columns of rows whose primary key exists; how many.

        ``rows``: one dict, an iterable of dicts, or a pyarrow, pandas or polars table. Vector columns take lists of
        numbers or an (n, dim) array; one that is left out is computed from its text column where the schema says
        which (``pgherd.embed_column``), or ``embed={text column: vector column}`` does. json and jsonb columns
        take dicts, lists and numbers; a str is JSON text. Of rows with one key and the same columns the last wins, and
        only it is counted. With ``atomic`` rows that belong to several groups appear together or not at all; without,
        each group commits by itself.
        Raises BadRow, DimensionMismatch (nothing is written then), ServerRefused, GroupUnavailable, InDoubt.
        """
        return await self._write(rows, atomic, embed, upsert=True)

    async def _write(self, rows: Any, atomic: bool, embed: Mapping[str, str] | None, *, upsert: bool) -> int:
        await self._herd.keep_up()
        table = self.definition
        batches = batches_of(rows, table)
        for batch in batches:
            await self._embed(table, batch, embed)
            if table.cells is not None:
                put_into_cells(table, await self._herd.cells.learned(table), batch)
        again = upsert and all(set(table.primary_key) <= set(b.columns) for b in batches)
        if atomic or table.kind is TableKind.REFERENCE:
            return await self._herd.with_fresh_topology(lambda: self._write_all(batches, upsert), repeatable=again)
        writer = self._writer(table)
        count = 0
        for batch in batches:
            for part in writer.by_home(batch, upsert=upsert):
                write = functools.partial(self._write_all, [part], upsert)
                count += await self._herd.with_fresh_topology(write, repeatable=again)
        return count

    async def _write_all(self, batches: Sequence[Batch], upsert: bool) -> int:
        writer = self._writer(self.definition)
        async with self._herd._engine.transaction() as transaction:
            count = await (writer.upsert if upsert else writer.insert)(transaction, batches)
            await writer.note(transaction, "upsert" if upsert else "insert")
        return count

    def _writer(self, table: Table) -> Writer:
        return Writer(self._herd._engine, table, self._herd.router(table))

    async def _embed(self, table: Table, batch: Batch, embed: Mapping[str, str] | None) -> None:
        pairs = [(e.text_column, e.vector_column) for e in table.embeddings]
        for text, vector in [*pairs, *(embed or {}).items()]:
            if vector in batch.columns or text not in batch.columns:
                continue
            texts = batch.columns[text]
            values: list[Any] = [None] * batch.n
            parts = self._herd.models.of_rows(table, vector_column(table, vector), batch.columns, batch.n)
            for model, rows in parts:  # all are chosen before any is asked
                present = [i for i in rows.tolist() if texts[i]]
                made: Any = await asyncio.to_thread(model.embed, [str(texts[i]) for i in present]) if present else []
                for i, v in zip(present, made, strict=True):
                    values[i] = v
            full = batch.n > 0 and all(v is not None for v in values)
            batch.columns[vector] = np.stack(values) if full else values

    async def delete(self, where: Mapping[str, Any] | str, params: Mapping[str, Any] | None = None) -> int:
        """Delete the rows that match (see :meth:`search` for ``where``); how many."""
        await self._herd.keep_up()
        condition = self._condition(where, params)

        async def delete() -> int:
            writer = self._writer(self.definition)
            async with self._herd._engine.transaction() as transaction:
                count = await writer.delete(transaction, condition)
                await writer.note(transaction, "delete")
            return count

        return await self._herd.with_fresh_topology(delete)

    async def update(
        self, where: Mapping[str, Any] | str, changes: Mapping[str, Any], params: Mapping[str, Any] | None = None
    ) -> int:
        """Set columns of the rows that match; how many. Rows whose partition key changes move to their new home."""
        await self._herd.keep_up()
        condition = self._condition(where, params)
        cells = self.definition.cells
        if cells is not None and cells.vector_column in changes:
            target = vector_column(self.definition, cells.vector_column)
            batch = Batch(1, {cells.vector_column: vectors_of([changes[cells.vector_column]], target)})
            put_into_cells(self.definition, await self._herd.cells.learned(self.definition), batch)
            changes = {**changes, cells.column: batch.columns[cells.column][0]}

        async def update() -> int:
            writer = self._writer(self.definition)
            async with self._herd._engine.transaction() as transaction:
                count = await writer.update(transaction, condition, changes)
                await writer.note(transaction, "update")
            return count

        return await self._herd.with_fresh_topology(update)

    async def get(
        self, key: Any, *, read: str | None = None, max_staleness_s: float | None = None
    ) -> dict[str, Any] | None:
        """The row with that primary key (a value, a tuple, or a dict of the key's columns), None without one.

        Asks one group only, when the key says which. ``read`` and ``max_staleness_s`` as for :meth:`search`.
        """
        reading = reading_of(read, max_staleness_s)
        if not self._herd.is_ready(reading):
            await self._herd.get_ready(reading)
        return await self._herd.with_fresh_topology(lambda: self._find(key, reading))

    async def _find(self, key: Any, reading: Reading) -> dict[str, Any] | None:
        table = self.definition
        columns = table.key
        if not columns:
            raise BadInput(f"table {table.name} has no primary key", hint="use search or sql")
        if not isinstance(key, Mapping):
            values = key if isinstance(key, (tuple, list)) else (key,)
            if table.cells is not None and len(values) == len(table.primary_key):
                columns = table.primary_key
            if len(values) != len(columns):
                raise self._not_the_key(table)
            key = dict(zip(columns, values, strict=True))
        elif not set(columns) <= set(key):
            raise self._not_the_key(table)
        condition = self._condition(key, None)
        for shard in condition.shards(self._herd.router(table)):
            row = await self._get(shard, condition, nodes_for(self._herd.reads(reading), shard.home))
            if row is not None:
                return row
        return None

    async def _get(self, shard: Shard, condition: Condition, nodes: Sequence[str | None]) -> dict[str, Any] | None:
        """The row, from the first of the nodes that answers: what a standby can't or won't say, the next one may."""
        *first, last = nodes
        for node in first:
            with suppress(GroupUnavailable, ServerRefused):
                return await self._get_from(node, shard, condition)
        return await self._get_from(last, shard, condition)

    async def _get_from(self, node: str | None, shard: Shard, condition: Condition) -> dict[str, Any] | None:
        query = sql.SQL("SELECT * FROM {} AS {} WHERE {} LIMIT 1").format(
            identifier(shard.relation), identifier(self._name.name), condition.sql
        )
        if self._herd.topology.schema.trail is not None:
            before, after = noted("\0", "get", self._name).split("\0")
            query = sql.SQL(before) + query + sql.SQL(after)
        async with self._herd._engine.connection(shard.home, node) as connection:
            with talking_to(shard.home, f"reading {self._name}"):
                cursor = connection.cursor(row_factory=dict_row)
                await cursor.execute(query, condition.parameters)
                return await cursor.fetchone()

    def _not_the_key(self, table: Table) -> BadInput:
        columns = ", ".join(table.key)
        return BadInput(f"the key of {table.name} is ({columns})", hint="give all of it: a value, a tuple or a dict")

    def _condition(self, where: Mapping[str, Any] | str, params: Mapping[str, Any] | None) -> Condition:
        return condition_of(where, params, self.definition)

    def is_ready(self, reading: Reading) -> bool:
        """Whether a search may go on at once, or else :meth:`get_ready`."""
        cells = self.definition.cells
        return self._herd.is_ready(reading) and (cells is None or not self._herd.cells.is_due(cells))

    async def get_ready(self, reading: Reading) -> None:
        """Bring what is known of the herd and of the table's cells up to date."""
        if not self._herd.is_ready(reading):
            await self._herd.get_ready(reading)
        cells = self.definition.cells
        if cells is not None:
            with suppress(GroupUnavailable, ServerRefused):  # who may not read them searches every shard
                await self._herd.cells.read(cells)

    async def search(
        self,
        question: Any,
        k: int = 10,
        *,
        where: Mapping[str, Any] | str | None = None,
        params: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
        after: Page | None = None,
        exact: bool = False,
        columns: Sequence[str] | None = None,
        column: str | None = None,
        metric: str | None = None,
        ef_search: int | None = None,
        recall: float | None = None,
        hybrid: bool | str = False,
        text_column: str | None = None,
        text_config: str | None = None,
        partial: bool = False,
        read: str | None = None,
        max_staleness_s: float | None = None,
    ) -> Hits:
        """The ``k`` rows nearest to a text or vector, over all groups that can hold them.

        ``where``: a dict (column equal to a value, in a list, or None for NULL) or an SQL expression with ``%(name)s``
        for ``params``; a condition on the partition key is answered by the groups that match only. ``min_similarity``
        cuts the tail (see Metric.max_distance). ``after`` is the ``next`` of the page before: no row comes twice, and
        with ``exact`` none is left out; an index may miss some. ``exact`` reads every row instead of the index.
        ``columns`` default to all but vectors; ``column`` names the vector column where there are several; ``metric``
        defaults to the one its index serves. ``partial`` accepts missing groups.
        ``recall`` is the share of the ``k`` nearest rows to be found: the cheapest setting that finds it is taken, as
        measured by :meth:`tune` (without a condition); 1.0 reads every row. Left out, 0.95 is aimed at; an index that
        was never measured gets ``ef_search`` = max(200, 4 k).
        ``hybrid`` fuses the nearest rows with those whose text matches the question (words, "phrases", or, -not: see
        websearch_to_tsquery; the ranking is search/hybrid.py's); with a vector for a question give the words:
        ``hybrid="…"``. ``text_column`` is where they are looked for, ``text_config`` PostgreSQL's text search
        configuration (see search/words.py for what they default to).
        ``read``: by the ``primary`` of each group (as if left out: every acknowledged write is seen), by the node that
        answers fastest (``nearest``: a slow one is not waited for, another is asked as well), or by a ``replica``.
        ``max_staleness_s`` is how old the answer may be, as measured by positions in the log; without it, any age.
        Raises BadInput, DimensionMismatch, GroupUnavailable, ServerRefused.
        """
        said = {
            "where": where, "params": params, "min_similarity": min_similarity, "after": after, "exact": exact,
            "columns": columns, "column": column, "metric": metric, "ef_search": ef_search, "recall": recall,
            "hybrid": hybrid, "text_column": text_column, "text_config": text_config, "partial": partial, "read": read,
            "max_staleness_s": max_staleness_s,
        }  # fmt: skip
        repeated, form = self.repeated(question, k, said)
        if repeated is not None and (hits := await repeated.ask(self._herd._engine, question)) is not None:
            return hits
        reading = reading_of(read, max_staleness_s)
        if not self.is_ready(reading):
            await self.get_ready(reading)
        model = self.model_of(question, column, where, params)
        vector = question if model is None else (await asyncio.to_thread(model.embed, [question]))[0]
        request = functools.partial(
            self.request,
            vector,
            k,
            column=column,
            where=where,
            params=params,
            min_similarity=min_similarity,
            after=after,
            exact=exact,
            columns=columns,
            metric=metric,
            ef_search=ef_search,
            recall=recall,
            words=words_of(question, hybrid, model),
            question=None if model is None else question,
            text_column=text_column,
            text_config=text_config,
            reading=reading,
        )

        async def ask() -> Hits:
            asked = request()
            hits = await scatter(self._herd._engine, asked, partial=partial)
            self.remember(form, asked, hits)
            return hits

        return await self._herd.with_fresh_topology(ask)

    def repeated(self, question: Any, k: int, options: Mapping[str, Any]) -> tuple[Repeated | None, Hashable]:
        """(the short way of a search that was carried out in this form before, if there is one; what the form is kept
        under). For a vector."""
        known, now = self._herd._about(self._name), monotonic()
        form: Hashable = (k, *options.items())
        try:
            found = known.repeats.get(form)
        except TypeError:
            form = form_of(k, options)
            found = known.repeats.get(form)
        if found is None or isinstance(question, str) or now - self._herd._looked_at > LOOK_EVERY_S:
            return None, form
        return (found if found.serves(now) else None), form

    def remember(self, form: Hashable, request: Request, hits: Hits) -> None:
        """The next search of this form may take the short way."""
        known = self._herd._about(self._name)
        if form is None or (form in known.repeats and known.repeats[form].holds(monotonic())):
            return
        cells, column = known.table.cells, known.table.column(request.form.shape.column)
        centroids = None if cells is None else self._herd.cells.of(cells)
        assert column is not None
        if request.form.table is not known.table or (cells is not None and centroids is None):
            return
        made = repeated_of(request, hits, column, None if cells is None or centroids is None else (cells, centroids))
        if made is not None:
            if len(known.repeats) >= MAX_FORMS:
                known.repeats.clear()
            known.repeats[form] = made

    async def answer(
        self, question: str, k: int = 5, *, columns: Sequence[str] | None = None, **options: Any
    ) -> Answers:
        """What the regions' answering models say to a question, from the ``k`` rows that :meth:`search` finds.

        One answer for each region that rows were found in: pinned rows are sent to an endpoint of their own region
        only, so no model sees another region's rows, and nobody joins the answers. Where one region of them has no
        endpoint, no row is sent to any. Each call is in ``pgherd.model_log`` of its region, without the texts.
        ``columns`` are what the models see of a row: the text that its vector is made of where the schema says which
        that is, else all but vectors. Other ``options`` as for :meth:`search`.
        Raises AnswerCrossesRegion, AnswerFailed, BadInput, and what :meth:`search` does.
        """
        if not isinstance(question, str):
            raise BadInput("a vector can't be answered", hint="ask in words")
        self._herd.models.regional.check_answering()
        table = self.definition
        if columns is None:
            columns = tuple(e.text_column for e in table.embeddings) or None
        hits = await self.search(question, k, columns=columns, **options)
        said = self._herd.models.of_answers(table, hits)  # before anything is sent to anybody

        async def ask(model: Answering, rows: list[Hit]) -> Answer:
            texts = [row_text(h.row) for h in rows]
            text = await asyncio.to_thread(model.answer, question, texts, str(table.name))
            return Answer(model.region, text, model.model.model, model.host, tuple(rows))

        answers = await asyncio.gather(*(ask(model, rows) for model, rows in said))
        return Answers(answers, hits.groups, hits.missing)

    def request(
        self,
        vector: Any,
        k: int,
        *,
        column: str | None = None,
        words: str | None = None,
        question: str | None = None,
        reading: Reading = Reading(),  # noqa: B008
        **options: Any,
    ) -> Request:
        """A search for a vector (hybrid: and words), checked but not carried out; options as for :meth:`search`.

        ``question``: what the vector was made of.
        """
        trail = self._herd.topology.schema.trail
        request = self._request(vector, k, column, words, reading, options)
        if trail is None:
            return request
        said = (question or words) if trail is Trail.QUESTIONS else None
        return request._replace(line=Line("search" if words is None else "hybrid", said))

    def _request(
        self, vector: Any, k: int, column: str | None, words: str | None, reading: Reading, options: dict[str, Any]
    ) -> Request:
        options["reads"] = self._herd.reads(reading)
        known = self._herd._about(self._name)
        table, indexes, router = known.table, known.indexes, known.router
        target = known.target(column)
        options["knowledge"], options["narrowing"] = self._herd._calibrations, self._herd._narrowing
        options["forms"] = known.forms
        if words is not None:
            return hybrid_request_of(table, indexes, router, vector, words, k=k, column=target, **options)
        for name in ("text_column", "text_config"):
            if options.pop(name, None) is not None:
                raise BadInput(f"{name} belongs to a hybrid search", hint="say hybrid=True, or leave it out")
        request = request_of(table, indexes, router, vector, k=k, column=target, **options)
        centroids = self._herd.cells.of(table.cells) if table.cells is not None else None
        if table.cells is None or centroids is None:
            return request
        return nearest_only(request, table.cells, centroids, vector)

    async def learn(self, vectors: Any) -> int:
        """Learn the cells of a table that is shared out by them (``distribute_by_nearest``); how many there are now.

        ``vectors``: (n, dim), a sample of those that its rows will have, from anywhere among them; of more than
        ``sample_size`` some are taken. Done once, before the first row: ``pgherd load`` does it by itself.
        Raises BadInput, DimensionMismatch, GroupUnavailable.
        """
        table = self.definition
        cells = table.cells
        if cells is None:
            hint = "SELECT pgherd.distribute_by_nearest(…) in its schema"
            raise BadInput(f"table {table.name} is not shared out by cells", hint=hint)
        shards = self._herd.topology.shards(table)
        await self._herd.cells.check_none(table, shards)
        sample = vectors_of(vectors, vector_column(table, cells.vector_column))
        sample = np.stack([v for v in sample if v is not None])
        found = await asyncio.to_thread(learn, sample, len(shards), Metric(cells.metric))
        rows = [{"cell": int(n), "centroid": v} for n, v in zip(found.numbers, found.vectors, strict=True)]
        await self._herd.table(str(cells.table)).insert(rows)
        await self._herd.cells.read(cells)
        return len(rows)

    async def tune(
        self,
        column: str | None = None,
        *,
        sample: int = SAMPLE,
        questions: Sequence[Any] | None = None,
        progress: Progress | None = None,
    ) -> tuple[Calibration, ...]:
        """Measure the vector indexes, all or one column's, with ``sample`` questions, for searches to choose by.

        They are made of the table's rows, and are rather harder than most: with ``questions`` of your users, texts or
        vectors as for :meth:`search`, the setting is right for theirs. Reads every row ``sample`` times. One
        calibration a shard and index; kept in the herd. ``progress`` is told the number of questions asked and to be
        asked in all. Raises BadInput, DimensionMismatch, GroupUnavailable, ServerRefused.
        """
        await self._herd._engine.refresh()  # shards may have moved
        known = self._herd._about(self._name)
        if column is not None:
            known.target(column)
        if questions is not None:
            column = known.target(column).name
            questions = await self.vectors_of(questions, column)
        cells = known.table.cells
        found = await tune(
            self._herd._engine,
            known.table,
            known.indexes,
            column=column,
            sample=sample,
            questions=questions,
            progress=progress,
            centroids=await self._herd.cells.read(cells) if cells else None,
        )
        self._herd._calibrations.forget()
        return found

    async def vectors_of(self, questions: Sequence[Any], column: str) -> list[Any]:
        """Questions for one column with those in words embedded, all at once. Raises BadInput."""
        vectors = list(questions)
        models = [self.model_of(q, column) for q in questions]
        words = [i for i, m in enumerate(models) if m is not None]
        if words:
            model = models[words[0]]
            assert model is not None
            made = await asyncio.to_thread(model.embed, [questions[i] for i in words])
            for i, vector in zip(words, made, strict=True):
                vectors[i] = vector
        return vectors

    def model_of(
        self,
        question: Any,
        column: str | None,
        where: Mapping[str, Any] | str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Embedder | None:
        """The model that a question in words needs; None for a vector. BadInput for an empty question.

        EmbeddingCrossesRegion for a question to one region, to which ``where`` may narrow it, that has no endpoint.
        """
        known = self._herd._about(self._name)
        table, target = known.table, known.target(column)
        if not isinstance(question, str) or target.vector is None or target.vector[0] not in ("vector", "halfvec"):
            return None
        if not question.strip():
            raise BadInput("the question is empty", hint="ask something, or give a vector")
        model = self._herd.models.embedder(table, target)
        if is_here(model):
            return model
        shards = self._herd.topology.shards(table)
        if where is not None:
            shards = tuple(self._condition(where, params).shards(self._herd.router(table)))
        return self._herd.models.of_question(table, model, shards)
