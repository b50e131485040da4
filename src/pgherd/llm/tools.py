"""The tools themselves, as plain JSON in and out; :mod:`pgherd.mcp` only carries them. Each call leaves a log entry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from .. import herdfile
from ..client import AsyncHerd
from ..embedding.regional import RegionalModels
from ..engines.modellog import ModelLog
from ..engines.open import open_region
from ..engines.region import RegionEngine
from ..errors import BadInput, HerdError, QueryRefused, UnknownName
from ..model.names import Name
from ..model.schema import Table
from ..planning.readers import missing_groups
from .accesslog import Entry
from .fence import check
from .query import Answer, Limits, reading, run, streamed, wrapped
from .reader import Login, read_login, refuse_findings, role_names

MAX_AT_ONCE = 4
MAX_QUESTION = 4_000
MAX_K = 100


@asynccontextmanager
async def open_tools(
    home: Path, region: str, *, limits: Limits | None = None, keep_questions: bool = False
) -> AsyncIterator[RegionTools]:
    """The tools of a region's reader, whose passwords are in ``home``.

    Raises NoSuchHerd, UnknownName, GroupUnavailable, and UnsafeSetting when the reader could do more than read.
    """
    file = herdfile.read(home)
    if region not in {n.label.region for n in file.nodes}:
        regions = ", ".join(dict.fromkeys(n.label.region for n in file.nodes))
        raise UnknownName(f"there is no region {region!r} in this herd", hint=f"regions: {regions}")
    login = read_login(home, region, file.dbname)
    engine = await open_region(home, region, role_names(region, file.dbname)[0], login.reader)
    try:
        for group in engine.topology.groups:
            async with engine.connection(group.name) as connection:
                await refuse_findings(connection, group.name, engine.reader)
        log = ModelLog(engine, {"user": engine.reader.scribe, "password": login.scribe})
        models = RegionalModels(file.embedding, log.note)
        try:
            yield RegionTools(engine, login, limits or Limits(), keep_questions, models)
        finally:
            log.close()
    finally:
        await engine.close()


class RegionTools:
    """What a language model can call. Made by :func:`open_tools`."""

    def __init__(
        self, engine: RegionEngine, login: Login, limits: Limits, keep_questions: bool, models: RegionalModels
    ) -> None:
        self._engine = engine
        self._herd = AsyncHerd(engine, models=models)
        self._login = login
        self._limits = limits
        self._keep_questions = keep_questions
        self._free = asyncio.Semaphore(MAX_AT_ONCE)

    async def list_tables(self, client: str) -> dict[str, Any]:
        """The tables that may be read, with their columns' names."""
        async with self._logged(client, "list_tables", None) as entry:
            tables = [
                {
                    "name": name,
                    "kind": table.kind.value,
                    "columns": [c.name for c in table.columns],
                    "searchable": bool(table.vector_columns),
                    **self._completeness([table.name]),
                }
                for name, table in (await self._tables()).items()
            ]
            entry.rows = len(tables)
            return {"region": self._engine.reader.region, "tables": tables}

    async def describe(self, client: str, table: str) -> dict[str, Any]:
        """A table's columns, keys and the texts its vectors are made of."""
        async with self._logged(client, "describe", table) as entry:
            found = self._table(await self._tables(), table, entry)
            return {
                "name": table,
                "kind": found.kind.value,
                "columns": [{"name": c.name, "type": c.type, "nullable": not c.not_null} for c in found.columns],
                "primary_key": list(found.primary_key),
                "references": [{"columns": list(fk.columns), "table": str(fk.references)} for fk in found.foreign_keys],
                "embeddings": [{"vector": e.vector_column, "text": e.text_column} for e in found.embeddings],
                **self._completeness([found.name]),
            }

    async def search(
        self,
        client: str,
        table: str,
        question: str,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        min_similarity: float | None = None,
    ) -> dict[str, Any]:
        """The rows of a table whose meaning is nearest to the question, at the homes that the reader may read."""
        async with self._logged(client, "search", question) as entry:
            found = self._table(await self._tables(), table, entry)
            if not 0 < k <= MAX_K:
                raise BadInput(f"k is {k}", hint=f"1 to {MAX_K}")
            if len(question) > MAX_QUESTION:
                raise BadInput(f"the question has {len(question)} characters", hint=f"{MAX_QUESTION} at most")
            if not all(_is_plain(v) for v in (where or {}).values()):
                raise BadInput("where takes values and lists of values", hint='{"column": value} or {"column": [a, b]}')
            async with asyncio.timeout(self._limits.seconds):
                hits = await self._herd.table(str(found.name)).search(
                    question, k, where=dict(where) if where else None, min_similarity=min_similarity
                )
            answer = Answer()
            size = 0
            for hit in hits:
                row = json.loads(json.dumps(hit.row, default=str))
                size += len(json.dumps(row))
                if size > self._limits.bytes:
                    answer.truncated = f"the rows hold more than {self._limits.bytes} bytes"
                    break
                answer.rows.append({"distance": hit.as_json()["distance"], "row": row})
            entry.rows = len(answer.rows)
            body = {"hits": answer.rows, "truncated": answer.truncated}
            return {**body, **self._completeness([found.name])}

    async def query(self, client: str, sql: str) -> dict[str, Any]:
        """The rows of one SELECT."""
        async with self._logged(client, "query", sql) as entry:
            statement, names = await self._statement(sql, entry)
            answer = await run(self._engine.conninfo(self._group), self._group, statement, self._limits)
            entry.rows = len(answer.rows)
            body = {"rows": answer.rows, "row_count": len(answer.rows), "truncated": answer.truncated}
            return {**body, **self._completeness(names)}

    async def explain(self, client: str, sql: str) -> dict[str, Any]:
        """How PostgreSQL would run that SELECT; it is not run."""
        async with self._logged(client, "explain", sql) as entry:
            statement, names = await self._statement(sql, entry)
            group = self._group
            async with reading(self._engine.conninfo(group), group, self._limits) as connection:
                lines = [row[0] async for row in streamed(connection, "EXPLAIN " + statement)]
            entry.rows = 0
            return {"plan": "\n".join(lines)[: self._limits.bytes], **self._completeness(names)}

    @property
    def _group(self) -> str:
        return self._engine.topology.groups[0].name

    async def _tables(self) -> dict[str, Table]:
        """The readable tables by the names that queries use: those of schema public bare, others as schema_table."""
        if self._herd.is_due:
            await self._herd.look()
        return {str(t.name).replace(".", "_"): t for t in self._engine.topology.schema.tables}

    def _table(self, tables: dict[str, Table], name: str, entry: Entry) -> Table:
        found = tables.get(name)
        if found is None:
            raise UnknownName(f"there is no table {name!r} here", hint="tables: " + (", ".join(tables) or "none"))
        entry.tables = [name]
        return found

    async def _statement(self, text: str, entry: Entry) -> tuple[str, list[Name]]:
        tables = await self._tables()
        checked = check(text, {n: [c.name for c in t.columns] for n, t in tables.items()})
        entry.tables = list(checked.tables)
        used = {n: tables[n] for n in checked.tables}
        shards = {n: (t, [s.relation for s in self._engine.topology.shards(t)]) for n, t in used.items()}
        return wrapped(checked, shards, self._limits), [t.name for t in used.values()]

    def _completeness(self, names: list[Name]) -> dict[str, Any]:
        """Whether other regions hold rows of these tables too, which the reader doesn't see."""
        missing = missing_groups(self._engine.whole, self._engine.reader, names)
        return {"complete": not missing, "missing": missing}

    @asynccontextmanager
    async def _logged(self, client: str, tool: str, question: str | None) -> AsyncIterator[Entry]:
        """Run a call; its entry is written before it is answered, and without an entry there is no answer."""
        entry = Entry(client, tool, question if self._keep_questions else None)
        async with self._free:
            try:
                yield entry
            except HerdError as error:
                # A server's message may quote a value; the fence's own names what it refused.
                entry.refused = error.message if isinstance(error, QueryRefused) else error.code
                raise
            except TimeoutError as error:
                entry.refused = "timeout"
                hint = "ask for less, or use a condition"
                raise QueryRefused(f"the search took longer than {self._limits.seconds:g} s", hint=hint) from error
            except BaseException as error:
                entry.refused = type(error).__name__
                raise
            finally:
                scribe = {"user": self._engine.reader.scribe, "password": self._login.scribe}
                await entry.write({**self._engine.conninfo(self._group), **scribe}, self._group)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(v) and not isinstance(v, list) for v in value)
    return value is None or isinstance(value, (str, int, float, bool))
