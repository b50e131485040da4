"""The short way of a search that was carried out before in the same form: only its question is new.

A client's own work is a large part of a small search, most of all in a process whose caches are cold. So what the long
way (scatter.py) looked up, checked and made is kept, for as long as what it rests on is the same: the topology, and
what is known of the indexes. Where anything is unusual (a group that does not answer, fewer rows than asked for, a
session with other settings) the short way gives nothing, and the long way is taken, which does it all again.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from ..engines.asking import Question
from ..engines.base import Lender
from ..engines.wire import encode_one
from ..errors import GroupUnavailable
from ..model.schema import Cells, Column, VectorType
from ..routing.nearest import Centroids
from .effort import ALL, Effort, Settings, settings_of
from .hits import Found, GroupTiming, Hits, nearest_hits, next_page
from .homes import Home
from .loans import Loans
from .nearest import gap_of, homes_of_numbers
from .request import Request, question_array
from .statement import Statement, statement_of


class _Ask(NamedTuple):
    """What one group is asked, in a session with these settings; None: with any."""

    home: Home
    statement: Statement
    settings: Settings | None


class Repeated:
    """See above; made by :func:`repeated_of`. For any number of threads: what it learns later are further entries."""

    __slots__ = (
        "_asks",
        "_cells",
        "_column",
        "_edition",
        "_gap",
        "_kind",
        "_knowledge",
        "_request",
        "_shards",
        "_short",
    )

    def __init__(self, request: Request, column: Column, cells: tuple[Cells, Centroids] | None) -> None:
        assert column.vector is not None
        form = request.form
        self._request = request._replace(homes=form.homes, within=ALL if form.whole else None)
        self._column, self._kind = column, column.vector[0]
        self._cells = None if cells is None else cells[1]
        self._knowledge = request.knowledge if form.aim is not None and not form.exact else None
        self._edition = None if self._knowledge is None else self._knowledge.edition
        self._short = False
        self._shards = sum(len(h.shards) for h in form.homes)
        self._gap = None if cells is None else gap_of(request, *cells)
        self._asks: dict[tuple[int, ...], tuple[_Ask, ...]] = {}

    def holds(self, now: float) -> bool:
        """Whether what it rests on is the same at ``now``, by the monotonic clock; of the topology its owner knows."""
        edition = self._edition
        return edition is None or (self._knowledge.edition is edition and now < edition.until)  # type: ignore[union-attr]

    def serves(self, now: float) -> bool:
        """Whether it is worth asking: it holds, and no group has come to have fewer rows than are asked for."""
        return not self._short and self.holds(now)

    async def ask(self, lender: Lender, question: object) -> Hits | None:
        """What the long way gives for ``question``; None: take it. Raises BadInput, DimensionMismatch."""
        request = self._request
        form = request.form
        array = question_array(question, self._column, form.distance)
        numbers = () if self._cells is None or self._gap is None else self._cells.within(array, self._gap)
        asks = self._asks.get(numbers) or self._made(numbers)
        if asks is None:
            return None
        values = {"pgherd_q": encode_one(array, self._kind)}
        if form.condition.parameters:
            values.update(form.condition.parameters)
        loans, questions = Loans(lender), []
        try:
            connections = [await loans.take(ask.home.name, None) for ask in asks]
            for connection, ask in zip(connections, asks):  # noqa: B905  # faster, here and below
                if ask.settings is not None and getattr(connection, "pgherd_effort", None) != ask.settings:
                    return None
            for connection, (_, (text, binary), _) in zip(connections, asks):  # noqa: B905
                questions.append(Question(connection, text, values, binary=binary))
            await lender.wait(questions)
        except GroupUnavailable:
            return None
        finally:
            await loans.end()
        found, timings, shards = [], [], 0
        for asked, (home, _, settings) in zip(questions, asks):  # noqa: B905
            rows = asked.rows
            if asked.error is not None or (settings is not None and len(rows) < request.k):
                self._short = asked.error is None
                return None
            if rows and rows[-1][0] != rows[-1][0]:  # NaN, which no index gives
                return None
            found.append(Found(rows, home.names, home.name))
            timings.append(GroupTiming(home.name, asked.ms))
            shards += len(home.shards)
        best = nearest_hits(found, form.columns, request.k, form.max_distance)
        return Hits(best, timings, (), next_page(request, best), (shards, self._shards))

    def _made(self, numbers: tuple[int, ...]) -> tuple[_Ask, ...] | None:
        """The questions to the groups that have these shards; None while not everything is known of their indexes."""
        form = self._request.form
        asks = []
        for home in homes_of_numbers(form, numbers) if numbers else form.homes:
            effort = self._effort(home)
            if effort is None:
                return None
            statement = statement_of(form.shape, home.relations, effort.exact, effort.via)
            asks.append(_Ask(home, statement, None if effort.exact else settings_of(effort)))
        self._asks[numbers] = made = tuple(asks)
        return made

    def _effort(self, home: Home) -> Effort | None:
        request, form = self._request, self._request.form
        if form.exact:
            return form.effort._replace(exact=True)
        if form.aim is None or self._knowledge is None:
            return form.effort
        every = next(h for h in form.homes if h.name == home.name)
        within = request.within if self._gap is None else self._gap
        return self._knowledge.known(home.name, every.relations, request.k, form.aim, within)


def form_of(k: int, options: Mapping[str, Any]) -> Hashable:
    """What the form of a search is kept under where its options, as they are, can't be; None: it can't be kept."""
    found: list[Any] = [k]
    for name, value in options.items():
        if isinstance(value, Mapping):
            found.append((name, tuple((n, type(v), v) for n, v in value.items())))
        else:
            found.append((name, tuple(value) if isinstance(value, list) else value))
    form = tuple(found)
    try:
        hash(form)
    except TypeError:  # a list of values in a condition
        return None
    return form


def repeated_of(request: Request, hits: Hits, column: Column, cells: tuple[Cells, Centroids] | None) -> Repeated | None:
    """The short way for more questions like this one, which gave ``hits``; None where every one needs the long way."""
    form = request.form
    usual = (
        request.words is None
        and request.reads is None
        and request.line is None
        and request.after is None
        and not form.shape.condition
        and column.vector is not None
        and column.vector[0] in (VectorType.VECTOR, VectorType.HALFVEC)
        and hits.complete
        and (form.exact or len(hits) == request.k)
    )
    return Repeated(request, column, cells) if usual else None
