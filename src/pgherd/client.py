"""The public Python API. ``connect_async`` is the one implementation; ``pgherd.sync`` runs it on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from .embedding.base import Embedder
from .embedding.chat import model_and_url
from .embedding.regional import RegionalModels
from .engines.base import Connection, Engine, OnStep
from .engines.conduct import Conduct
from .engines.failures import is_connection_loss, talking_to
from .engines.guard import unguarded_notes
from .engines.modellog import ModelLog
from .engines.open import open_dsn, open_home
from .engines.plainsql import unrecorded_notes
from .engines.reading import Read, Reading
from .engines.standbys import Standbys
from .errors import BadInput, GroupUnavailable, HerdError, InDoubt, ServerRefused, StaleTopology, UnknownName
from .herdfile import Endpoint, default_home, read
from .model.names import Name
from .model.schema import Schema, Table
from .model.topology import Topology
from .patience import PATIENCE_S, patiently
from .planning.plan import Plan
from .routing.route import Router
from .rows.cells import KnownCells
from .rows.statements import Effect, effect_of, is_about_rows, modified_reference_tables, tables_in
from .rows.trail import LINE, run_noted
from .rows.write import everywhere
from .search.hedging import Reads
from .search.narrowing import Narrowing
from .table import AsyncTable, Known
from .textmodels import TextModels
from .tuning.knowledge import Calibrations

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
        self._known: dict[Name, Known] = {}
        self.calibrations = Calibrations()
        """what is known of its indexes"""
        self.narrowing = Narrowing()
        """what is known of how many rows match conditions"""
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
                if not await self.is_another_after(known, error) or group in [g.name for g in self.topology.groups]:
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
                if not await self.is_another_after(known, error):
                    raise
        return await call()

    async def has_changed_since(self, generation: int) -> bool:
        """Read the topology anew; whether it is another one."""
        return (await self._engine.refresh()).generation != generation

    async def is_another_after(self, known: int, error: HerdError) -> bool:
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
        return self.about(table.name).router

    def about(self, name: Name) -> Known:
        """What is known of a table at this generation; UnknownName once it is gone."""
        found, topology = self._known.get(name), self._engine.topology
        if found is None or found.topology is not topology:
            table = topology.table(name)
            router = Router(topology.shards(table), {c.name: c.type for c in table.columns})
            found = self._known[name] = Known(topology, table, topology.indexes(table), router, {}, {}, {})
        return found
