"""The client for code without asyncio: each call runs the async client on one background thread and waits for it.

Searches skip the thread: their coroutines run here, over connections that block (see engines/immediate.py).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from .client import FOLLOW, AsyncHerd, connect_async
from .embedding.base import Embedder
from .engines.base import OnStep
from .engines.conduct import Conduct
from .engines.immediate import Immediate, run
from .engines.reading import reading_of
from .errors import BadInput, GroupUnavailable, ServerRefused, StaleTopology
from .model.schema import Schema, Table
from .model.topology import Topology
from .patience import PATIENCE_S, patiently_now
from .planning.plan import Plan
from .search.answers import Answers
from .search.hits import Hits
from .search.scatter import scatter
from .search.words import words_of
from .table import AsyncTable
from .tuning.calibrate import SAMPLE
from .tuning.store import Calibration
from .tuning.tasks import Progress

T = TypeVar("T")


class _Call(Generic[T]):
    """A coroutine on its way: started on the loop's thread, awaited on the caller's."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._running = threading.Lock()
        self._running.acquire()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(lambda _: self._running.release())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> None:
        # A bare lock is the cheapest way from thread to thread, and Ctrl-C interrupts it.
        self._running.acquire()

    def result(self) -> T:
        assert self._task is not None
        return self._task.result()


class _Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pgherd", daemon=True)
        self._thread.start()

    def check_open(self) -> None:
        if self._loop.is_closed():
            raise BadInput("this herd is closed", hint="use it inside the with block of pgherd.connect")
        if threading.current_thread() is self._thread:
            raise BadInput("a callback of a call can't make calls", hint="return from it first")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            self.check_open()
        except BadInput:
            coroutine.close()
            raise
        call = _Call(coroutine)
        self._loop.call_soon_threadsafe(call.start)
        try:
            call.wait()
        except BaseException:
            # Ctrl-C while waiting: let the coroutine undo what it began before anyone goes on.
            self._loop.call_soon_threadsafe(call.cancel)
            call.wait()
            raise
        return call.result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def connect(
    dsn: str | None = None,
    *,
    home: str | Path | None = None,
    embedder: Embedder | str | None = None,
    endpoints: Mapping[str, str] | None = None,
    llms: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Herd]:
    """Open a herd; arguments and errors as for :func:`pgherd.connect_async`."""
    loop = _Loop()
    try:
        opening = connect_async(
            dsn, home=home, embedder=embedder, endpoints=endpoints, llms=llms, patience_s=patience_s
        )
        inner = loop.run(opening.__aenter__())
        immediate = Immediate(inner.engine.connect_now)
        try:
            yield Herd(inner, loop, immediate)
        finally:
            immediate.close()
            loop.run(opening.__aexit__(None, None, None))
    finally:
        loop.close()


class Herd:
    """One Postgres out of many; see :class:`pgherd.client.AsyncHerd`. Made by :func:`connect`."""

    def __init__(self, inner: AsyncHerd, loop: _Loop, immediate: Immediate) -> None:
        self._inner = inner
        self._loop = loop
        self._immediate = immediate

    @property
    def topology(self) -> Topology:
        """Groups, tables and homes, as last read."""
        return self._inner.topology

    def table(self, name: str) -> HerdTable:
        """A table of the herd; UnknownName if there is none of that name."""
        return HerdTable(self._inner.table(name), self._loop, self._immediate)

    def plan(self, schema: Schema) -> Plan:
        """What ``apply`` would do; nothing is changed."""
        return self._loop.run(self._inner.plan(schema))

    def execute(self, plan: Plan, on_step: OnStep | None = None, conduct: Conduct | None = None) -> Topology:
        """Carry a plan out. Raises StalePlan, HerdBusy, ServerRefused."""
        return self._loop.run(self._inner.execute(plan, on_step, conduct))

    def recover(self) -> int:
        """Settle commits over several groups that somebody left half done; how many there were."""
        return self._loop.run(self._inner.recover())

    def sql(
        self, query: str, params: Mapping[str, Any] | Sequence[Any] | None = None, *, region: str | None = None
    ) -> list[dict[str, Any]]:
        """Run SQL on a node; see :meth:`pgherd.client.AsyncHerd.sql`."""
        return self._loop.run(self._inner.sql(query, params, region=region))


class HerdTable:
    """One table of a herd; see :class:`pgherd.table.AsyncTable`."""

    def __init__(self, inner: AsyncTable, loop: _Loop, immediate: Immediate) -> None:
        self._inner = inner
        self._loop = loop
        self._immediate = immediate

    @property
    def definition(self) -> Table:
        """The table as the schema has it."""
        return self._inner.definition

    def insert(self, rows: Any, *, atomic: bool = True, embed: Mapping[str, str] | None = None) -> int:
        """Add new rows; see :meth:`pgherd.table.AsyncTable.insert`."""
        return self._loop.run(self._inner.insert(rows, atomic=atomic, embed=embed))

    def upsert(self, rows: Any, *, atomic: bool = True, embed: Mapping[str, str] | None = None) -> int:
        """Insert or replace rows; see :meth:`pgherd.table.AsyncTable.upsert`."""
        return self._loop.run(self._inner.upsert(rows, atomic=atomic, embed=embed))

    def delete(self, where: Mapping[str, Any] | str, params: Mapping[str, Any] | None = None) -> int:
        """Delete rows; see :meth:`pgherd.table.AsyncTable.delete`."""
        return self._loop.run(self._inner.delete(where, params))

    def update(
        self, where: Mapping[str, Any] | str, changes: Mapping[str, Any], params: Mapping[str, Any] | None = None
    ) -> int:
        """Change rows, moving them if need be; see :meth:`pgherd.table.AsyncTable.update`."""
        return self._loop.run(self._inner.update(where, changes, params))

    def get(self, key: Any, *, read: str | None = None, max_staleness_s: float | None = None) -> dict[str, Any] | None:
        """The row with that primary key; see :meth:`pgherd.table.AsyncTable.get`."""
        return self._loop.run(self._inner.get(key, read=read, max_staleness_s=max_staleness_s))

    def learn(self, vectors: Any) -> int:
        """Learn the cells of a table that is shared out by them; see :meth:`pgherd.table.AsyncTable.learn`."""
        return self._loop.run(self._inner.learn(vectors))

    def tune(
        self,
        column: str | None = None,
        *,
        sample: int = SAMPLE,
        questions: Sequence[Any] | None = None,
        progress: Progress | None = None,
    ) -> tuple[Calibration, ...]:
        """Measure the vector indexes; see :meth:`pgherd.table.AsyncTable.tune`."""
        return self._loop.run(self._inner.tune(column, sample=sample, questions=questions, progress=progress))

    def search(self, question: Any, k: int = 10, **options: Any) -> Hits:
        """The nearest rows; options as for :meth:`pgherd.table.AsyncTable.search`."""
        self._loop.check_open()
        repeated, form = self._inner.repeated(question, k, options)
        if repeated is not None and (hits := run(repeated.ask(self._immediate, question))) is not None:
            return hits
        reading = reading_of(options.pop("read", None), options.pop("max_staleness_s", None))
        if not self._inner.is_ready(reading):
            self._loop.run(self._inner.get_ready(reading))
        partial, column = options.pop("partial", False), options.pop("column", None)
        model = self._inner.model_of(question, column, options.get("where"), options.get("params"))
        words = words_of(question, options.pop("hybrid", False), model)
        vector = question if model is None else model.embed([question])[0]
        said = None if model is None else question

        def ask() -> Hits:
            request = self._inner.request(
                vector, k, column=column, words=words, question=said, reading=reading, **options
            )
            hits = run(scatter(self._immediate, request, partial=partial))
            self._inner.remember(form, request, hits)
            return hits

        return patiently_now(lambda: self._following(ask), self._inner.herd.patience_s)

    def answer(self, question: str, k: int = 5, *, columns: Sequence[str] | None = None, **options: Any) -> Answers:
        """What models say to a question; see :meth:`pgherd.table.AsyncTable.answer`."""
        return self._loop.run(self._inner.answer(question, k, columns=columns, **options))

    def _following(self, ask: Callable[[], Hits]) -> Hits:
        """As AsyncHerd does: again when the herd has changed meanwhile."""
        for _ in range(FOLLOW - 1):
            known = self._inner.herd.topology.generation
            try:
                return ask()
            except (StaleTopology, ServerRefused, GroupUnavailable) as error:
                if not self._loop.run(self._inner.herd.is_another_after(known, error)):
                    raise
        return ask()
