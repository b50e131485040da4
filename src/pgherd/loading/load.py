"""What ``pgherd load TABLE FILE`` does: read, check and embed the next chunk while the one before is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..client import AsyncHerd
from ..errors import BadInput
from ..model.schema import Table
from ..routing.learning import sample_size
from ..routing.nearest import Centroids
from ..search.request import vector_column
from .arrowfile import ArrowReader
from .commit import Committer
from .csvfile import CsvReader
from .jsonlfile import JsonlReader
from .prepare import Filler, Preparer, Ready, check_columns
from .records import Reader
from .rejects import RejectFile
from .sampling import vectors_in
from .source import Format, Source, open_source
from .state import Position, hold

DEFAULT_BATCH_ROWS = 20_000
MAX_BATCH_VECTOR_BYTES = 16 << 20
MAX_EMBEDDED_ROWS = 2_000
"""A kill costs at most one chunk's embeddings; a remote model is paid by the text."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load is. Rows and rejects count since this call began, bytes from the beginning of the file."""

    rows: int
    rejected: int
    total_rows: int | None
    bytes_done: int
    bytes_total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """What this call did: rows written and rejected. ``total_rows``, ``total_rejected``: the file's, over all calls.

    ``resumed_from``: the line (row of a parquet or arrow file) after which it went on, 0 for a new load.
    ``already_loaded``: the file had been loaded whole before, nothing was done. ``reject_file``: None without rejects.
    ``cells_learned``: how many cells were learned from the file, of a table that is shared out by them.
    """

    rows: int
    rejected: int
    seconds: float
    resumed_from: int
    reject_file: Path | None
    total_rows: int
    total_rejected: int
    already_loaded: bool = False
    cells_learned: int = 0


async def load(
    herd: AsyncHerd,
    table: str,
    file: Path,
    *,
    embed: Mapping[str, str] | None = None,
    reject_file: Path | None = None,
    batch_rows: int = DEFAULT_BATCH_ROWS,
    restart: bool = False,
    format: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Loaded:
    """Load a csv, jsonl, parquet or arrow file into a table; each row is written once, also after a kill.

    The format is told by the suffix (csv and jsonl also ``.gz``), or by ``format``. ``embed`` maps text columns to the
    vector columns computed from them, besides those that the schema declares. Bad rows, also those that a server
    refuses, go to ``reject_file`` (``FILE.rejected.jsonl``) as JSON lines, and the others are loaded. Called again for
    the same file it goes on where it was, or does nothing if that was the end; ``restart`` begins again.
    Raises BadInput (before anything is written: unreadable or empty file, wrong columns), UnknownName, HerdBusy (the
    file is being loaded), ServerRefused, GroupUnavailable, EmbeddingFailed, InDoubt.
    """
    started = time.perf_counter()
    if batch_rows < 1:
        raise BadInput("batch_rows must be at least 1")
    definition = herd.topology.table(table)
    source = await asyncio.to_thread(open_source, Path(file), format)
    rejects = Path(reject_file) if reject_file else source.path.with_name(source.path.name + ".rejected.jsonl")
    if rejects.absolute() == source.path:
        raise BadInput("the reject file is the file itself", hint="name another reject file")
    open_reader = partial(_open_reader, source, definition, embed or {})
    reader = await asyncio.to_thread(open_reader)
    try:
        fillers = _fillers(herd, definition, reader, embed or {})
        if reader.names:
            check_columns(reader.names, definition, {f.vector for f in fillers})
        job = _Job(herd, definition, source, reader, fillers, rejects, progress, started, open_reader)
        return await job.run(_chunk_rows(definition, batch_rows, fillers), restart)
    finally:
        reader.close()


@dataclass(slots=True)
class _Job:
    herd: AsyncHerd
    table: Table
    source: Source
    reader: Reader
    fillers: list[Filler]
    rejects: Path
    progress: Callable[[Progress], None] | None
    started: float
    open_again: Callable[[], Reader]
    cells_learned: int = 0

    async def run(self, rows: int, restart: bool) -> Loaded:
        engine = self.herd.engine
        group = engine.topology.groups[0].name
        load_id = self.source.load_id(self.table.name)
        router = self.herd.router(self.table)
        async with hold(engine, group, load_id, str(self.table.name), self.source.path.name) as state:
            begin = state.position
            if begin.finished and not restart:
                return self._loaded(begin, begin)
            if restart:
                await state.move(engine, Position())
                begin = state.position
            centroids = await self._centroids(rows)
            committer = Committer(engine, self.table, router, state, RejectFile(self.rejects, begin.reject_bytes))
            preparer = self._preparer(centroids)
            async for ready in _ahead(preparer.all(self.reader.chunks(begin.lines_done, rows))):
                await committer.commit(ready)
                self._report(begin, state.position, ready)
            await state.move(engine, replace(state.position, finished=True))
            return self._loaded(begin, state.position)

    def _preparer(self, centroids: Centroids | None) -> Preparer:
        json_values = self.source.format is Format.JSONL
        router = self.herd.router(self.table)
        return Preparer(self.table, router, self.fillers, json_values=json_values, centroids=centroids)

    async def _centroids(self, rows: int) -> Centroids | None:
        """The table's centroids, learned from this file if there are none yet; None for a table without cells."""
        cells = self.table.cells
        if cells is None:
            return None
        known = await self.herd.cells.read(cells)
        if known is None:
            wanted = sample_size(len(self.herd.topology.shards(self.table)))
            reader = await asyncio.to_thread(self.open_again)  # a file is read once
            try:
                sample = await asyncio.to_thread(
                    vectors_in, reader.chunks(0, rows), self._preparer(None), cells.vector_column, wanted
                )
            finally:
                reader.close()
            self.cells_learned = await self.herd.table(str(self.table.name)).learn(sample)
        return await self.herd.cells.learned(self.table)

    def _report(self, begin: Position, now: Position, ready: Ready) -> None:
        if self.progress:
            self.progress(
                Progress(
                    now.rows_done - begin.rows_done,
                    now.rejected - begin.rejected,
                    self.reader.total_rows,
                    ready.bytes_done,
                    self.source.size,
                    time.perf_counter() - self.started,
                )
            )

    def _loaded(self, begin: Position, now: Position) -> Loaded:
        return Loaded(
            rows=now.rows_done - begin.rows_done,
            rejected=now.rejected - begin.rejected,
            seconds=time.perf_counter() - self.started,
            resumed_from=begin.lines_done,
            reject_file=self.rejects if now.rejected else None,
            total_rows=now.rows_done,
            total_rejected=now.rejected,
            already_loaded=begin.finished,
            cells_learned=self.cells_learned,
        )


def _open_reader(source: Source, table: Table, embed: Mapping[str, str]) -> Reader:
    if source.format is Format.CSV:
        return CsvReader(source)
    if source.format is Format.JSONL:
        computed = {*embed.values(), *(e.vector_column for e in table.embeddings)}
        plain = [c for c in table.columns if not (c.default or c.identity or c.generated or "serial" in c.type)]
        optional = (c.name for c in plain if not c.not_null and c.name not in (*table.primary_key, *computed))
        return JsonlReader(source, frozenset(optional))
    return ArrowReader(source, frozenset(c.name for c in table.vector_columns))


def _fillers(herd: AsyncHerd, table: Table, reader: Reader, embed: Mapping[str, str]) -> list[Filler]:
    declared = {e.vector_column: e.text_column for e in table.embeddings if e.vector_column not in reader.names}
    for text, vector in embed.items():
        if table.column(text) is None:
            raise BadInput(f"table {table.name} has no column {text!r} to embed", hint="embed TEXT:VECTOR")
        if reader.names and text not in reader.names:
            raise BadInput(f"the file has no column {text!r} to embed", hint="columns: " + ", ".join(reader.names))
        if vector in reader.names:
            raise BadInput(f"the file has column {vector!r} already", hint="leave out the embedding, or the column")
        declared[vector] = text
    wanted = {v: t for v, t in declared.items() if not reader.names or t in reader.names}
    targets = {v: vector_column(table, v) for v in wanted}
    for column in targets.values():
        herd.models.embedder(table, column)  # that there is none that fits is said before a file is read
    return [Filler(t, v, partial(herd.models.of_rows, table, targets[v])) for v, t in wanted.items()]


def _chunk_rows(table: Table, wanted: int, fillers: list[Filler]) -> int:
    width = sum(4 * (c.vector[1] or 0) for c in table.vector_columns if c.vector)
    most = min(wanted, max(1, MAX_BATCH_VECTOR_BYTES // width)) if width else wanted
    return min(most, MAX_EMBEDDED_ROWS) if fillers else most


async def _ahead(chunks: Iterator[Ready]) -> AsyncIterator[Ready]:
    """The next chunk is prepared on a thread while the caller works on this one."""
    upcoming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
    try:
        while (ready := await upcoming) is not None:
            upcoming = asyncio.create_task(asyncio.to_thread(next, chunks, None))
            yield ready
    finally:
        await asyncio.wait([upcoming])
        if not upcoming.cancelled():
            upcoming.exception()
