"""Ask all groups at once and gather. Guards invariant 5: min(k, matching) rows in order, or an error naming a group.

One coroutine for both clients: over an :class:`Immediate` none of its awaits suspends, and no event loop is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from ..engines.asking import AnyConnection, Question, wait_for, wait_for_async
from ..engines.base import Engine
from ..engines.failures import talking_to, translate
from ..engines.immediate import Immediate
from ..errors import GroupUnavailable
from ..model.names import Name
from ..model.schema import TableKind
from ..model.topology import Shard
from ..routing.route import Router
from .effort import Effort
from .hits import GroupTiming, Hit, Hits, merge, next_page
from .hybrid import fuse, hits_of, hybrid_statement_of
from .request import Request, parameters_of
from .statement import Statement, statement_of


@dataclass(slots=True)
class _Part:
    """What one group is asked and has answered."""

    home: str
    shards: list[Shard]
    connection: AnyConnection | None = None
    question: Question | None = None
    hits: list[Hit] = field(default_factory=list)
    matching: list[Hit] = field(default_factory=list)
    ms: float = 0.0
    missing: bool = False
    exact: bool = False

    @property
    def relations(self) -> tuple[Name, ...]:
        return tuple(s.relation for s in self.shards)


async def scatter(source: Engine | Immediate, router: Router, request: Request, *, partial: bool = False) -> Hits:
    """Carry a search out.

    Raises GroupUnavailable naming the group when one that could hold a hit doesn't answer, unless ``partial``.
    """
    parts = _parts(router, request)
    async with AsyncExitStack() as connections:
        for part in parts:
            try:
                connection = await connections.enter_async_context(source.connection(part.home))
                await _prepare(connection, part, request)
                part.connection = connection
            except GroupUnavailable:
                _miss(part, partial)
        await _ask(source, request, parts, partial=partial)
        short = [p for p in parts if not p.exact and len(p.hits) < request.k]
        if short:
            # An index scan gives up after hnsw.max_scan_tuples, and misses rows no edge leads to; what it did not
            # find may still match. Few rows match then, so looking at all of them is cheap.
            for part in short:
                part.exact = True
            await _ask(source, request, short, partial=partial)
    if request.words is not None:
        best = fuse([(p.hits, p.matching) for p in parts], request.k, request.words.k)
    else:
        best = merge([p.hits for p in parts], request.k, request.max_distance)
    timings = [GroupTiming(p.home, p.ms) for p in parts]
    return Hits(best, timings, [p.home for p in parts if p.missing], next_page(request, best))


def _parts(router: Router, request: Request) -> list[_Part]:
    """The groups that can hold a hit, always in the same order, so that searches never wait for each other's."""
    by_home: dict[str, list[Shard]] = {}
    for shard in request.condition.shards(router):
        by_home.setdefault(shard.home, []).append(shard)
    if request.table.kind is TableKind.REFERENCE:
        return [_Part(home, shards) for home, shards in list(by_home.items())[:1]]
    return [_Part(home, by_home[home]) for home in sorted(by_home)]


def _miss(part: _Part, partial: bool) -> None:
    """Inside an except block: go on without a group, or don't."""
    if not partial:
        raise
    part.missing, part.hits, part.matching = True, [], []


async def _ask(source: Engine | Immediate, request: Request, parts: Sequence[_Part], *, partial: bool) -> None:
    asked = [p for p in parts if not p.missing]
    values = parameters_of(request)
    for part in asked:
        assert part.connection is not None
        statement = _statement(request, part.relations, part.exact)
        part.question = Question(part.connection, statement.text, values, binary=statement.binary)
    questions = [p.question for p in asked if p.question is not None]
    if isinstance(source, Immediate):
        wait_for(questions)
    else:
        await wait_for_async(questions)
    for part in asked:
        try:
            _take(request, part)
        except GroupUnavailable:
            _miss(part, partial)


def _statement(request: Request, relations: tuple[Name, ...], exact: bool) -> Statement:
    if request.words is not None:
        return hybrid_statement_of(request.shape, request.words.document, relations, exact)
    return statement_of(request.shape, relations, exact)


def _take(request: Request, part: _Part) -> None:
    question = part.question
    assert question is not None
    part.ms += question.ms
    if question.error is not None:
        raise translate(question.error, part.home, f"searching {request.table.name}") from question.error
    width = 2 + len(request.columns)
    columns, home, shards = request.columns, part.home, part.shards
    if request.words is not None:
        part.hits, part.matching = hits_of(question.rows, columns, [s.name for s in shards], home)
        return
    part.hits = [
        Hit(row[0], dict(zip(columns, row[2:width], strict=True)), shards[row[1]].name, home, row[width:])
        for row in question.rows
        if row[0] == row[0]  # not NaN: a vector of zeros is at no cosine distance from anything
    ]
    # An index orders by what it stores (normalised, rounded), and so not always by the very distance.
    part.hits.sort(key=attrgetter("distance"))


async def _prepare(connection: Any, part: _Part, request: Request) -> None:
    """Choose the effort for a part, and bring its session's settings to it."""
    effort = request.effort
    if request.exact:
        effort = effort._replace(exact=True)
    elif request.aim is not None and request.knowledge is not None:
        effort = await request.knowledge.effort(connection, part.home, part.relations, request.k, request.aim)
    part.exact = effort.exact
    await _set_effort(connection, part.home, effort._replace(exact=False))


async def _set_effort(connection: Any, home: str, effort: Effort) -> None:
    """Bring the session's search settings to what this request needs; most requests need what the last one did."""
    if getattr(connection, "pgherd_effort", None) == effort:
        return
    # A setting of NULL goes back to the server's own.
    query = (
        "SELECT set_config('hnsw.ef_search', %s, false), set_config('ivfflat.probes', %s, false),"
        " set_config('hnsw.iterative_scan', 'strict_order', false),"
        " set_config('ivfflat.iterative_scan', 'relaxed_order', false)"
    )
    with talking_to(home, "setting up a search"):
        done = connection.execute(query, [str(effort.ef_search), None if effort.probes is None else str(effort.probes)])
        if not hasattr(done, "fetchone"):
            await done
    connection.pgherd_effort = effort
