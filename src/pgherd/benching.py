"""How fast a table of a herd is searched: client processes that ask without a pause, and what they meet.

Each client is a process with a herd of its own, as the processes of an application are. The questions are made of the
table's rows (see tuning/questions.py) unless there are better ones; what share of the nearest rows is found is measured
against reading every row, before the clients start.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from math import ceil
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from pathlib import Path
from statistics import mean, median
from typing import Any

from .client import AsyncHerd
from .engines.failures import talking_to
from .errors import BadInput, HerdError, LocalServerError, ResidencyRefused
from .model.vectors import default_metric
from .rows.where import condition_of
from .sync import connect
from .table import AsyncTable
from .tuning.questions import mixtures_of, sample_rows
from .tuning.recall import recall_of
from .tuning.tasks import count_of, pinned_alike

QUESTIONS = 500
CHECKED = 50
"""Of so many questions the recall is measured; each reads every row once."""
WARMING = 20
"""Searches of each client before it is timed."""
AFTER_ERROR_S = 0.05
READY_S = 120.0


@dataclass(slots=True)
class Met:
    """What one client met: milliseconds a search, milliseconds by the node or group that answered, errors by code."""

    ms: list[float] = field(default_factory=list)
    answered_ms: dict[str, list[float]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """What every client does. ``options`` as for :meth:`pgherd.table.AsyncTable.search`."""

    dsn: str | None
    home: Path | None
    table: str
    questions: Sequence[Any]
    k: int
    options: Mapping[str, Any]
    clients: int
    seconds: float


def as_json(job: Job, met: Sequence[Met], recall: float | None) -> dict[str, Any]:
    """All clients together; times are milliseconds as clients saw them."""
    every = sorted(ms for m in met for ms in m.ms)
    nodes = sorted({name for m in met for name in m.answered_ms})
    spread = {f"p{p}": round(every[ceil(len(every) * p / 100) - 1], 3) for p in (50, 95, 99)} if every else {}
    return {
        "table": job.table,
        "clients": job.clients,
        "seconds": round(max(m.seconds for m in met), 2),
        "k": job.k,
        "questions": len(job.questions),
        "searches": len(every),
        "searches_per_s": round(sum(len(m.ms) / m.seconds for m in met if m.seconds), 1),
        "ms": {**spread, "max": round(every[-1], 3)} if every else None,
        "client_cpu_ms": round(sum(m.cpu_s for m in met) / len(every) * 1000, 3) if every else None,
        "recall": None if recall is None else round(recall, 4),
        "nodes": [
            {"name": n, "p50_ms": round(median([ms for m in met for ms in m.answered_ms.get(n, [])]), 3)} for n in nodes
        ],
        "failed": dict(sum((m.failed for m in met), Counter())),
    }


async def questions_for(
    herd: AsyncHerd, table: AsyncTable, column: str, where: str | None = None, wanted: int = QUESTIONS
) -> list[Any]:
    """Questions made of rows of the shards that will be asked.

    Raises BadInput for a table without vectors, ResidencyRefused if rows of one region would be sent to another.
    """
    definition = table.definition
    target = next(c for c in definition.vector_columns if c.name == column)
    shards = condition_of(where, None, definition).shards(herd.router(definition))
    if len(pinned_alike(herd.topology, shards)) > 1:
        raise ResidencyRefused(
            f"questions made of rows of {definition.name} would take them out of the regions where they must stay",
            hint="ask questions of your own (--questions FILE), or rows of one region (--where)",
        )
    counts = []
    for shard in shards:
        async with herd.engine.connection(shard.home) as connection:
            with talking_to(shard.home, f"counting rows of {shard.name}"):
                counts.append(await count_of(connection, shard, column))
    rows: list[Any] = []
    for shard, count in zip(shards, counts, strict=True):
        async with herd.engine.connection(shard.home) as connection:
            with talking_to(shard.home, f"reading rows of {shard.name}"):
                share = ceil(2 * wanted * count / max(1, sum(counts)))
                rows += await sample_rows(connection, shard.relation, column, count, share) if count else []
    metric = default_metric(target, herd.topology.indexes(definition))
    made = mixtures_of(rows, target, metric, wanted)
    if not made:
        raise BadInput(f"table {definition.name} has no vectors in {column!r}", hint="load some first: pgherd load")
    return made


async def recall_for(table: AsyncTable, questions: Sequence[Any], k: int, options: Mapping[str, Any]) -> float | None:
    """The share of the k nearest rows that searches find; None when they read every row anyway."""
    if options.get("exact"):
        return None
    plain = {n: v for n, v in options.items() if n not in ("recall", "ef_search", "read", "max_staleness_s")}
    found = []
    for question in questions[:CHECKED]:
        nearest = [h.distance for h in await table.search(question, k, **{**plain, "exact": True})]
        found.append(recall_of([h.distance for h in await table.search(question, k, **options)], nearest, k))
    return mean(found)


def run(job: Job, on_progress: Callable[[float], None] | None = None) -> list[Met]:
    """Let all clients search at the same time; what each met. ``on_progress`` is told the seconds that have passed.

    Raises what a client raised that could not begin.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pipes: list[Pipe] = []
        for number in range(job.clients):
            mine, theirs = context.Pipe()
            process = context.Process(target=_client, args=(theirs, job, number), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.terminate)
            pipes.append(mine)
        for pipe in pipes:
            _heard(pipe, READY_S)
        for pipe in pipes:
            pipe.send(None)
        began = time.monotonic()
        while len(wait(pipes, timeout=0.2)) < len(pipes) and (passed := time.monotonic() - began) < job.seconds:
            if on_progress:
                on_progress(passed)
        return [_heard(pipe, READY_S) for pipe in pipes]


def _heard(pipe: Pipe, timeout_s: float) -> Any:
    hint = "use fewer clients; there may be too little memory for so many"
    if not pipe.poll(timeout_s):
        raise LocalServerError(f"a client has said nothing for {timeout_s:.0f} s", hint=hint)
    try:
        heard = pipe.recv()
    except EOFError as error:
        raise LocalServerError("a client ended before its time", hint=hint) from error
    if isinstance(heard, HerdError):
        raise heard
    return heard


def _client(pipe: Pipe, job: Job, number: int) -> None:
    """The process of one client: it says that it is ready, waits to be told, and says what it met."""
    with suppress(KeyboardInterrupt, BrokenPipeError, EOFError):
        try:
            with connect(job.dsn, home=job.home) as herd:
                table, options, questions = herd.table(job.table), dict(job.options), job.questions
                at = number * len(questions) // job.clients
                for i in range(WARMING):
                    table.search(questions[(at + i) % len(questions)], job.k, **options)
                pipe.send(Met())
                pipe.recv()
                met = Met()
                began, cpu_s = time.monotonic(), time.process_time()
                while (started := time.monotonic()) - began < job.seconds:
                    at += 1
                    try:
                        hits = table.search(questions[at % len(questions)], job.k, **options)
                    except HerdError as error:
                        met.failed[error.code] += 1
                        time.sleep(AFTER_ERROR_S)
                        continue
                    met.ms.append((time.monotonic() - started) * 1000)
                    for group in hits.groups:
                        met.answered_ms.setdefault(group.node or group.name, []).append(group.ms)
                met.seconds, met.cpu_s = time.monotonic() - began, time.process_time() - cpu_s
                pipe.send(met)
        except HerdError as error:
            pipe.send(error)
