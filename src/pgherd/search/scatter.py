"""Ask all groups at once and gather. Guards invariant 5: min(k, matching) rows in order, or an error naming a group."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from time import perf_counter

from ..engines.base import Connection, Engine
from ..engines.failures import talking_to
from ..engines.immediate import Immediate, ImmediateConnection
from ..errors import GroupUnavailable
from ..model.schema import TableKind
from ..model.topology import Shard
from ..routing.route import Router
from ..rows.together import together
from .hits import GroupTiming, Hit, Hits, merge, next_page
from .request import Request, parameters_of
from .statement import statement_of

Homes = list[tuple[str, list[Shard]]]
AnyConnection = Connection | ImmediateConnection
Answer = tuple[list[Hit] | None, GroupTiming]


async def scatter(engine: Engine, router: Router, request: Request, *, partial: bool = False) -> Hits:
    """Carry a search out.

    Raises GroupUnavailable naming the group when one that could hold a hit doesn't answer, unless ``partial``.
    """
    homes = _homes(router, request)
    answers = await together(_ask(engine, request, home, shards, partial) for home, shards in homes)
    return _gathered(request, homes, answers)


def scatter_now(immediate: Immediate, router: Router, request: Request, *, partial: bool = False) -> Hits:
    """The same for a caller who waits in this thread."""
    homes = _homes(router, request)
    answers = immediate.run_all([_ask(immediate, request, home, shards, partial) for home, shards in homes])
    return _gathered(request, homes, answers)


def _homes(router: Router, request: Request) -> Homes:
    """The groups that can hold a hit, each with its shards."""
    by_home: dict[str, list[Shard]] = {}
    for shard in request.condition.shards(router):
        by_home.setdefault(shard.home, []).append(shard)
    if request.table.kind is TableKind.REFERENCE and by_home:
        by_home = dict([next(iter(by_home.items()))])
    return list(by_home.items())


def _gathered(request: Request, homes: Homes, answers: Sequence[Answer]) -> Hits:
    found = [hits for hits, _ in answers if hits is not None]
    missing = [home for (home, _), (hits, _) in zip(homes, answers, strict=True) if hits is None]
    timings = [timing for _, timing in answers]
    best = merge(found, request.k, request.max_distance)
    return Hits(best, timings, missing, next_page(request, best))


async def _ask(
    engine: Engine | Immediate, request: Request, home: str, shards: Sequence[Shard], partial: bool
) -> Answer:
    started = perf_counter()
    hits: list[Hit] | None
    try:
        async with engine.connection(home) as connection:
            with talking_to(home, f"searching {request.table.name}"):
                await _set_effort(connection, request)
                hits = await _run(connection, request, home, shards, exact=request.exact)
                if len(hits) < request.k and not request.exact:
                    # An index scan gives up after hnsw.max_scan_tuples, and misses rows no edge leads to; what it
                    # did not find may still match. Few rows match then, so looking at all of them is cheap.
                    hits = await _run(connection, request, home, shards, exact=True)
    except GroupUnavailable:
        if not partial:
            raise
        hits = None
    return hits, GroupTiming(home, (perf_counter() - started) * 1000)


async def _run(
    connection: AnyConnection, request: Request, home: str, shards: Sequence[Shard], *, exact: bool
) -> list[Hit]:
    statement = statement_of(request.shape, tuple(s.relation for s in shards), exact)
    cursor = await connection.execute(statement.text, parameters_of(request), binary=statement.binary)
    rows = await cursor.fetchall()
    width = 2 + len(request.columns)
    hits = [
        Hit(row[0], dict(zip(request.columns, row[2:width], strict=True)), shards[row[1]].name, home, row[width:])
        for row in rows
        if row[0] == row[0]  # not NaN: a vector of zeros is at no cosine distance from anything
    ]
    # An index orders by what it stores (normalised, rounded), and so not always by the very distance.
    hits.sort(key=attrgetter("distance"))
    return hits


async def _set_effort(connection: AnyConnection, request: Request) -> None:
    """Bring the session's search settings to what this request needs; most requests need what the last one did."""
    if getattr(connection, "pgherd_ef_search", None) != request.ef_search:
        await connection.execute(
            "SELECT set_config('hnsw.ef_search', %s, false), set_config('hnsw.iterative_scan', 'strict_order', false),"
            " set_config('ivfflat.iterative_scan', 'relaxed_order', false)",
            [str(request.ef_search)],
        )
        connection.pgherd_ef_search = request.ef_search  # type: ignore[union-attr]
