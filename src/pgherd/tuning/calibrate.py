"""Measure indexes on the servers they live on: recall against reading every row, and time, at rising effort."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Any

import psycopg

from ..engines.base import Connection, Engine
from ..engines.failures import talking_to
from ..errors import BadInput
from ..model.schema import Index, Table, VectorType
from ..routing.nearest import Centroids
from ..search.effort import Effort, usual_effort, with_index
from .curve import Curve, Point, Reach
from .indexes import IndexFacts
from .recall import asked_at, efforts_of, reaches_of, recalls_of
from .store import Calibration, write_calibration
from .tasks import Count, Progress, Task, ask, at_homes, find_truth, pinned_alike, tasks_of, tunable

MIN_SAMPLE = 10
SAMPLE = 100
"""A search finds all of the nearest or, lost in another part of the graph, none: fewer questions would say little."""


async def tune(
    engine: Engine,
    table: Table,
    indexes: tuple[Index, ...],
    *,
    column: str | None = None,
    sample: int = SAMPLE,
    questions: Sequence[Any] | None = None,
    progress: Progress | None = None,
    centroids: Centroids | None = None,
) -> tuple[Calibration, ...]:
    """Measure every hnsw and ivfflat index of ``table`` (or of one column) and keep what was found in the herd.

    ``questions`` are vectors of the columns' type, ``sample`` of them made of rows if left out; what is made of pinned
    rows is asked of shards that are pinned alike only. Groups are measured at the same time, the shards of one group
    one after the other. Empty shards are left out. ``centroids`` are a table's that is shared out by cells: then it is
    measured, too, how few of its shards are enough.
    Raises BadInput, GroupUnavailable, ServerRefused.
    """
    if questions is not None:
        sample = len(questions)
    if sample < MIN_SAMPLE:
        raise BadInput(f"a sample of {sample} questions says nothing", hint=f"at least {MIN_SAMPLE}; {SAMPLE} is usual")
    subjects = [s for s in tunable(table, indexes) if column in (None, s.column.name)]
    if not subjects:
        what = f"column {column!r} of {table.name}" if column else f"table {table.name}"
        raise BadInput(f"{what} has no hnsw or ivfflat index", hint=f"pgherd index create {table.name} COLUMN")
    shards = engine.topology.shards(table)
    together = [shards] if questions is not None else pinned_alike(engine.topology, shards)
    tasks = [await tasks_of(engine, part, subject, sample, questions) for subject in subjects for part in together]
    every = [t for of_subject in tasks for t in of_subject]
    count = Count(
        progress, sum(len(t.questions) * (1 + sum(len(efforts_of(f)) for f in t.facts.values())) for t in every)
    )
    await at_homes(engine, every, lambda connection, task: find_truth(connection, task, count))
    await at_homes(engine, every, lambda connection, task: _measure(connection, task, count))
    found = []
    for of_subject in tasks:
        reaches = reaches_of(table, of_subject, centroids) if centroids and of_subject else {}
        for task in of_subject:
            for stored in task.facts:
                one = _calibration(task, stored, of_subject, reaches.get(stored, ()), given=questions is not None)
                found.append((task, one))

    async def keep(connection: Connection, task: Task) -> None:
        with talking_to(task.shard.home, "keeping a calibration"):
            for calibration in (c for t, c in found if t is task):
                await write_calibration(connection, calibration)

    await at_homes(engine, every, keep)
    return tuple(calibration for _, calibration in found)


async def _measure(connection: Connection, task: Task, count: Count) -> None:
    try:
        # A small shard may be read without its index: what is measured here is the index.
        await connection.execute("SET enable_seqscan = off; SET enable_sort = off")
        for facts in task.facts.values():
            for effort in efforts_of(facts):
                await _measure_at(connection, task, facts, effort, count)
    finally:
        with suppress(psycopg.Error):  # a connection that broke is told of by what broke it
            await connection.execute("RESET enable_seqscan; RESET enable_sort")
        connection.pgherd_effort = None  # type: ignore[attr-defined]


async def _measure_at(connection: Connection, task: Task, facts: IndexFacts, effort: int, count: Count) -> None:
    await connection.execute(
        "SELECT set_config(%s, %s, false), set_config('hnsw.iterative_scan', 'relaxed_order', false),"
        " set_config('ivfflat.iterative_scan', 'relaxed_order', false),"
        " set_config('hnsw.max_scan_tuples', NULL, false)",
        ["hnsw.ef_search" if facts.method == "hnsw" else "ivfflat.probes", str(effort)],
    )
    assert facts.stored is not None
    asked, own = asked_at(facts, effort), task.subject.own
    if facts.method == "hnsw":
        via = with_index(Effort(effort), facts.stored, own, asked).via
        via = via and via._replace(ranked=min(via.ranked, effort))
    else:
        via = usual_effort(facts.stored, own, asked).via
    statement = task.statement(asked, exact=False, via=via)
    answers, times = [], []
    for question in task.questions:
        distances, ms = await ask(connection, task, question, statement)
        answers.append(distances)
        times.append(ms)
        count.add(1)
    task.answers[facts.stored, effort], task.ms[facts.stored, effort] = answers, median(times)


def _calibration(
    task: Task, stored: VectorType, tasks: Sequence[Task], reaches: tuple[Reach, ...], *, given: bool
) -> Calibration:
    """What was found of one shard's index, and of those of all shards (``tasks``) together at equal effort."""
    facts = task.facts[stored]
    points = []
    for effort in efforts_of(facts):
        asked = asked_at(facts, effort)
        alone = recalls_of([task.truth], [task.answers[stored, effort]], asked)
        answers = [t.answers.get((stored, effort)) for t in tasks]
        known = [a for a in answers if a is not None]
        among = recalls_of([t.truth for t in tasks], known, asked) if len(known) == len(tasks) else alone
        points.append(Point(effort, task.ms[stored, effort], alone, among))
    return Calibration(
        task.shard.relation.sql, task.subject.column.name, task.subject.metric.value, stored.value,
        Curve(facts.method, tuple(points), task.exact_ms, reaches=reaches), facts.definition, len(task.questions),
        task.rows,
        max(facts.changes, task.rows),  # rows are counted, and may not have come into the statistics yet
        given,
    )  # fmt: skip
