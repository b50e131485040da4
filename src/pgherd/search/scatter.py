"""Ask all groups at once and gather. Guards invariant 5: min(k, matching) rows in order, or an error naming a group.

One coroutine for both clients: over an ``Immediate`` lender none of its awaits suspends, and no event loop is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..engines.asking import Question
from ..engines.base import Lender
from ..engines.failures import talking_to, translate
from ..errors import GroupUnavailable
from ..model.names import Name
from ..model.topology import Shard
from .effort import ALL, Effort, settings_of
from .hedging import Asked, answers, connect, nodes_for
from .hits import Found, GroupTiming, Hit, Hits, Row, nearest_hits, next_page
from .hybrid import NEAR, fuse, hits_of, hybrid_statement_of
from .loans import Loans
from .narrowing import Matching, estimate_statement, estimated_rows, under_condition
from .request import Request, parameters_of, seen_of
from .statement import Statement, noted_statement, own_type, statement_of

_UNKNOWN = Effort(0)


@dataclass(slots=True)
class _Part(Asked):
    """What one group is asked and has answered."""

    shards: tuple[Shard, ...]
    relations: tuple[Name, ...]
    names: tuple[str, ...]
    rows: Sequence[Row] = ()
    """what it gave, see ``statement_of``; of a hybrid search, see ``hits_of``"""
    near: int = 0
    """how many it gave for their distance"""
    ms: float = 0.0
    missing: bool = False
    effort: Effort = _UNKNOWN


async def scatter(lender: Lender, request: Request, *, partial: bool = False) -> Hits:
    """Carry a search out.

    Raises GroupUnavailable naming the group when one that could hold a hit doesn't answer, unless ``partial``.
    """
    parts = [_Part(*home) for home in request.homes]
    loans = Loans(lender)
    try:
        for part in parts:
            try:
                part.nodes = nodes_for(request.reads, part.home)
                await connect(loans, part)
                part.effort = await _effort(part.connection, part, request)
            except GroupUnavailable:
                _miss(part, partial)
        await _narrow(lender, request, parts, partial=partial)
        for part in parts:
            try:
                await _set_effort(part)
            except GroupUnavailable:
                _miss(part, partial)
        await _ask(loans, request, parts, partial=partial)
        short = [p for p in parts if not p.missing and not p.effort.exact and p.near < request.k]
        if short:
            # An index scan gives up after hnsw.max_scan_tuples, and misses rows no edge leads to; what it did not
            # find may still match. Few rows match then, so looking at all of them is cheap.
            for part in short:
                part.effort = part.effort._replace(exact=True)
                _learn(request, part, Matching(0, 1))
            await _ask(loans, request, short, partial=partial)
    finally:
        await loans.end()
    if request.homes is not request.form.homes and sum([p.near for p in parts]) < request.k:
        every = request._replace(homes=request.form.homes, within=ALL)  # fewer rows there than were asked for
        return await scatter(lender, every, partial=partial)
    best = _best(request, parts)
    timings = [GroupTiming(p.home, p.ms, p.node) for p in parts]
    shards = sum(len(p.shards) for p in parts), sum(len(h.shards) for h in request.form.homes)
    return Hits(best, timings, [p.home for p in parts if p.missing], next_page(request, best), shards)


def _near(request: Request, part: _Part) -> int:
    """How many rows a part gave for their distance."""
    if request.words is None:
        rows = part.rows  # a NaN, which no index gives, is the greatest of all: without one at the end there is none
        return len(rows) if not rows or rows[-1][0] == rows[-1][0] else sum(int(row[0] == row[0]) for row in rows)
    return len(_lists(request, part)[NEAR])


def _best(request: Request, parts: Sequence[_Part]) -> list[Hit]:
    columns = request.form.columns
    if request.words is not None:
        return fuse([_lists(request, p) for p in parts], request.k, request.words.k)
    found = [Found(p.rows, p.names, p.home) for p in parts]
    return nearest_hits(found, columns, request.k, request.form.max_distance)


def _lists(request: Request, part: _Part) -> tuple[list[Hit], list[Hit]]:
    return hits_of(part.rows, request.form.columns, part.names, part.home)


def _miss(part: _Part, partial: bool) -> None:
    """Inside an except block: go on without a group, or don't."""
    if not partial:
        raise
    part.missing, part.rows, part.near = True, (), 0


async def _ask(loans: Loans, request: Request, parts: Sequence[_Part], *, partial: bool) -> None:
    asked = [p for p in parts if not p.missing]
    values = parameters_of(request)

    def ask(part: _Part) -> Question:
        assert part.connection is not None
        statement = _statement(request, part.relations, part.effort)
        seen = seen_of(request, part.home, part.shards)
        return Question(part.connection, statement.text, {**values, **seen}, binary=statement.binary)

    await answers(loans, asked, request.reads, _set_effort, ask)
    for part in asked:
        try:
            _take(request, part)
        except GroupUnavailable:
            _miss(part, partial)


def _statement(request: Request, relations: tuple[Name, ...], effort: Effort) -> Statement:
    form, line = request.form, request.line
    if request.words is not None:
        made = hybrid_statement_of(form.shape, request.words.document, relations, effort.exact, effort.via)
    else:
        made = statement_of(form.shape, relations, effort.exact, effort.via)
    return made if line is None else noted_statement(made, form.table.name, line.tool, line.question is not None)


async def _narrow(lender: Lender, request: Request, parts: Sequence[_Part], *, partial: bool) -> None:
    """Let groups read every row where an index scan would look for rows that match for too long."""
    shape, values, known = request.form.shape, request.form.condition.parameters, request.narrowing
    if not shape.condition or known is None:
        return
    asked = [p for p in parts if not p.missing and not p.effort.exact]
    for condition in ("", shape.condition):
        unknown = [p for p in asked if not p.missing and _expected(request, p, condition) is None]
        for part in unknown:
            assert part.connection is not None
            text = estimate_statement(shape.alias, part.relations, condition)
            part.question = Question(part.connection, text, values if condition else {}, binary=False)
        if unknown:
            await lender.wait([p.question for p in unknown if p.question is not None])
        for part in unknown:
            try:
                _keep_estimate(request, part, condition)
            except GroupUnavailable:
                _miss(part, partial)
    for part in asked:
        expected = _expected(request, part, shape.condition)
        if expected is not None:
            part.effort = under_condition(part.effort, expected, request.k, own_type(shape))


def _expected(request: Request, part: _Part, condition: str) -> Matching | None:
    assert request.narrowing is not None
    if condition:
        return request.narrowing.expected(part.home, part.relations, condition, request.form.condition.parameters)
    rows = request.narrowing.rows(part.home, part.relations)
    return None if rows is None else Matching(rows, rows)


def _keep_estimate(request: Request, part: _Part, condition: str) -> None:
    question, known = part.question, request.narrowing
    assert question is not None
    assert known is not None
    part.ms += question.ms
    if question.error is not None:
        raise translate(question.error, part.home, f"searching {request.form.table.name}") from question.error
    found = estimated_rows(question.rows)
    if condition:
        _learn(request, part, Matching(found, known.rows(part.home, part.relations) or found))
    else:
        known.learn_rows(part.home, part.relations, found)


def _learn(request: Request, part: _Part, found: Matching) -> None:
    if request.narrowing is not None and request.form.shape.condition:
        values = request.form.condition.parameters
        request.narrowing.learn(part.home, part.relations, request.form.shape.condition, values, found)


def _take(request: Request, part: _Part) -> None:
    question = part.question
    assert question is not None
    part.ms += question.ms
    if question.error is not None:
        raise translate(question.error, part.home, f"searching {request.form.table.name}") from question.error
    part.rows = question.rows
    part.near = _near(request, part)


async def _effort(connection: Any, part: _Part, request: Request) -> Effort:
    """The effort that a part needs."""
    form = request.form
    if form.exact:
        return form.effort._replace(exact=True)
    if form.aim is None or request.knowledge is None:
        return form.effort
    relations = part.relations
    if request.homes is not form.homes:  # the same settings, whichever of a group's shards are asked
        relations = next(home.relations for home in form.homes if home.name == part.home)
    return await request.knowledge.effort(connection, part.home, relations, request.k, form.aim, request.within)


async def _set_effort(part: _Part) -> None:
    """Bring the session's search settings to what this request needs; most requests need what the last one did."""
    connection: Any = part.connection
    effort = part.effort
    settings = settings_of(effort)
    if part.missing or effort.exact or getattr(connection, "pgherd_effort", None) == settings:
        return
    # A setting of NULL goes back to the server's own. A scan that goes on drops what it finds too late for strict
    # order; the rows are put in order here anyway.
    query = (
        "SELECT set_config('hnsw.ef_search', %s, false), set_config('ivfflat.probes', %s, false),"
        " set_config('hnsw.max_scan_tuples', %s, false),"
        " set_config('hnsw.iterative_scan', 'relaxed_order', false),"
        " set_config('ivfflat.iterative_scan', 'relaxed_order', false)"
    )
    with talking_to(part.home, "setting up a search"):
        done = connection.execute(query, [None if s is None else str(s) for s in settings])
        if not hasattr(done, "fetchone"):
            await done
    connection.pgherd_effort = settings
