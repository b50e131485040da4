"""One table of a herd: its rows written, read, searched and answered from, and its indexes measured."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from psycopg import sql
from psycopg.rows import dict_row

from .embedding.base import Embedder
from .embedding.chat import row_text
from .embedding.regional import Answering, is_here
from .engines.failures import talking_to
from .engines.reading import Reading, reading_of
from .errors import BadInput, GroupUnavailable, ServerRefused
from .model.names import Name
from .model.schema import Column, Index, Table, TableKind, Trail
from .model.topology import Shard, Topology
from .model.vectors import Metric
from .routing.learning import learn
from .routing.route import Router
from .rows.batch import Batch, batches_of
from .rows.batch import vectors as vectors_of
from .rows.cells import put_into_cells
from .rows.quoting import identifier
from .rows.trail import Line, noted
from .rows.where import Condition, condition_of
from .rows.write import Writer
from .search.answers import Answer, Answers
from .search.hedging import nodes_for
from .search.hits import Hit, Hits
from .search.hybrid import hybrid_request_of
from .search.nearest import nearest_only
from .search.repeated import Repeated, form_of, repeated_of
from .search.request import MAX_FORMS, Forms, Page, Request, request_of, vector_column
from .search.scatter import scatter
from .search.words import words_of
from .tuning.calibrate import SAMPLE, tune
from .tuning.store import Calibration
from .tuning.tasks import Progress

if TYPE_CHECKING:
    from .client import AsyncHerd


class Known(NamedTuple):
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
        return self._herd.about(self._name).table

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
        async with self._herd.engine.transaction() as transaction:
            count = await (writer.upsert if upsert else writer.insert)(transaction, batches)
            await writer.note(transaction, "upsert" if upsert else "insert")
        return count

    def _writer(self, table: Table) -> Writer:
        return Writer(self._herd.engine, table, self._herd.router(table))

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
            async with self._herd.engine.transaction() as transaction:
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
            async with self._herd.engine.transaction() as transaction:
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
        async with self._herd.engine.connection(shard.home, node) as connection:
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
        if repeated is not None and (hits := await repeated.ask(self._herd.engine, question)) is not None:
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
            hits = await scatter(self._herd.engine, asked, partial=partial)
            self.remember(form, asked, hits)
            return hits

        return await self._herd.with_fresh_topology(ask)

    def repeated(self, question: Any, k: int, options: Mapping[str, Any]) -> tuple[Repeated | None, Hashable]:
        """(the short way of a search that was carried out in this form before, if there is one; what the form is kept
        under). For a vector."""
        known = self._herd.about(self._name)
        form: Hashable = (k, *options.items())
        try:
            found = known.repeats.get(form)
        except TypeError:
            form = form_of(k, options)
            found = known.repeats.get(form)
        if found is None or isinstance(question, str) or self._herd.is_due or not found.serves(monotonic()):
            return None, form
        return found, form

    def remember(self, form: Hashable, request: Request, hits: Hits) -> None:
        """The next search of this form may take the short way."""
        known = self._herd.about(self._name)
        if form is None or (form in known.repeats and known.repeats[form].holds(monotonic())):
            return
        cells, column = known.table.cells, known.table.column(request.form.shape.column)
        centroids = None if cells is None else self._herd.cells.of(cells)
        assert column is not None
        if cells is not None and centroids is None:
            return
        if not any(f is request.form for f in known.forms.values()):  # its shards were found by an older topology
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
        known = self._herd.about(self._name)
        table, indexes, router = known.table, known.indexes, known.router
        target = known.target(column)
        options["knowledge"], options["narrowing"] = self._herd.calibrations, self._herd.narrowing
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
        await self._herd.engine.refresh()  # shards may have moved
        known = self._herd.about(self._name)
        if column is not None:
            known.target(column)
        if questions is not None:
            column = known.target(column).name
            questions = await self.vectors_of(questions, column)
        cells = known.table.cells
        found = await tune(
            self._herd.engine,
            known.table,
            known.indexes,
            column=column,
            sample=sample,
            questions=questions,
            progress=progress,
            centroids=await self._herd.cells.read(cells) if cells else None,
        )
        self._herd.calibrations.forget()
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
        known = self._herd.about(self._name)
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
