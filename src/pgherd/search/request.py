"""What is asked: a search, checked against its table, before any server is talked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engines.wire import encode_one
from ..errors import BadInput, DimensionMismatch
from ..model.schema import Column, Index, Table, VectorType
from ..model.topology import Shard
from ..model.vectors import Metric, check_metric, default_metric, served_by
from ..routing.route import Router
from ..rows.trail import Line
from ..rows.where import Condition, condition_of
from .effort import ALL, Aim, Effort, Knowledge, usual_effort, with_index
from .hedging import Reads
from .homes import Home, homes_of
from .narrowing import Narrowing
from .statement import Shape, typed
from .words import Words

MAX_K = 10_000
DEFAULT_RECALL = 0.95
"""What a search aims at that asks for nothing, over indexes that were tuned."""


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page of hits ended: its last distance and the keys of all hits at exactly that distance.

    ``places``: the shard and group of each, which alone are told of it; of keys without one, all are.
    """

    distance: float
    keys: tuple[tuple[Any, ...], ...]
    places: tuple[tuple[str, str], ...] = ()


class Form(NamedTuple):
    """All of a request but its question, checked. ``whole``: its ``homes`` hold all shards of the table; ``near`` is
    for search/nearest.py to remember some of them by.

    ``exact``: every row is read. Without an ``aim``, ``effort`` is what the caller said; with one, it is for indexes of
    which nothing is known.
    """

    table: Table
    shape: Shape
    condition: Condition
    homes: tuple[Home, ...]
    whole: bool
    columns: tuple[str, ...]
    distance: Metric
    exact: bool
    max_distance: float | None
    effort: Effort
    aim: Aim | None
    near: dict[tuple[int, ...], tuple[Home, ...]]


class Request(NamedTuple):
    """A search that can be carried out. ``vector`` is the question as it is sent, ``k`` how many rows a list gives.

    ``homes`` are asked: all of the form's, or of them the shards ``within`` a gap (see search/nearest.py). With
    ``words`` it is a hybrid one. ``reads``: where it may be answered; None: by the primaries. ``line``: what it
    leaves in the audit trail.
    """

    form: Form
    vector: Any
    k: int
    after: Page | None
    knowledge: Knowledge | None
    narrowing: Narrowing | None
    reads: Reads | None
    homes: tuple[Home, ...]
    within: float | None
    words: Words | None = None
    line: Line | None = None


Forms = dict[tuple[Any, ...], Form]
"""The forms of a table's requests at one generation: an application asks in the same few ways again and again."""
MAX_FORMS = 1024


def request_of(
    table: Table,
    indexes: tuple[Index, ...],
    router: Router,
    vector: Any,
    *,
    k: int,
    column: Column,
    where: Mapping[str, Any] | str | None = None,
    params: Mapping[str, Any] | None = None,
    min_similarity: float | None = None,
    after: Page | None = None,
    exact: bool = False,
    columns: Sequence[str] | None = None,
    metric: str | None = None,
    ef_search: int | None = None,
    recall: float | None = None,
    knowledge: Knowledge | None = None,
    narrowing: Narrowing | None = None,
    reads: Reads | None = None,
    forms: Forms | None = None,
) -> Request:
    """Check a search against ``table``; ``forms`` keeps what was found. Raises BadInput, DimensionMismatch."""
    wanted = columns if columns is None else tuple(columns)
    options = (k, wanted, min_similarity, after is not None, exact, metric, ef_search, recall)
    asked = tuple((n, type(v), v) for n, v in where.items()) if isinstance(where, Mapping) else where
    key = (column.name, asked, *map(type, options), *options)
    try:
        form = None if forms is None or params else forms.get(key)
    except TypeError:  # not hashable, as a list of values is not: nothing to remember it by
        form, forms = None, None
    if form is None:
        form = _form(table, indexes, column, router, condition_of(where, params, table), *options)
        if forms is not None and not params:
            if len(forms) >= MAX_FORMS:
                forms.clear()
            forms[key] = form
    sent, within = bindable(vector, column, form.distance), ALL if form.whole else None
    return Request(form, sent, k, after, knowledge, narrowing, reads, form.homes, within)


def _form(
    table: Table,
    indexes: tuple[Index, ...],
    column: Column,
    router: Router,
    condition: Condition,
    k: int,
    columns: tuple[str, ...] | None,
    min_similarity: float | None,
    paging: bool,
    exact: bool,
    metric: str | None,
    ef_search: int | None,
    recall: float | None,
) -> Form:
    if not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise BadInput(f"k is {k!r}", hint=f"ask for 1 to {MAX_K} rows; page with after= for more")
    if ef_search is not None and not 1 <= ef_search <= 1000:
        raise BadInput(f"ef_search is {ef_search}", hint="pgvector takes 1 to 1000")
    _check_recall(recall, ef_search)
    try:
        distance = Metric(metric) if metric else default_metric(column, indexes)
    except ValueError as error:
        raise BadInput(f"{metric!r} is not a distance", hint="one of: " + ", ".join(Metric)) from error
    check_metric(distance, column)
    if paging and not table.primary_key:
        raise BadInput(f"paging needs a primary key, and {table.name} has none", hint="ask for a larger k")
    wanted = _wanted(columns, table)
    shape = Shape(
        table.name.name,
        column.name,
        column.type,
        not column.not_null,
        distance.operator,
        "" if condition.settled(router) else condition.text,
        typed(table, wanted),
        typed(table, table.primary_key),
        k,
        paging,
    )
    assert column.vector is not None
    own, dim = column.vector
    kinds = _kinds(indexes, column, distance)
    effort = usual_effort(kinds[0] if kinds else own, own, k)
    if ef_search is not None:
        effort = with_index(effort._replace(ef_search=ef_search), kinds[0] if kinds else own, own, k)
    shards = condition.shards(router)
    aim = Aim(column.name, distance, recall or DEFAULT_RECALL, recall is not None, own, kinds, effort)
    return Form(
        table,
        shape,
        condition,
        homes_of(table, shards),
        len(shards) == len(router.shards),
        wanted,
        distance,
        exact or recall == 1 or not kinds,
        None if min_similarity is None else distance.max_distance(min_similarity, dim),
        effort,
        aim if ef_search is None else None,
        {},
    )


def _check_recall(recall: float | None, ef_search: int | None) -> None:
    if recall is None:
        return
    if not isinstance(recall, (int, float)) or not 0 < recall <= 1:
        raise BadInput(f"recall is {recall!r}", hint="above 0, up to 1; 0.95 finds 95 % of the nearest rows")
    if ef_search is not None:
        raise BadInput("both recall and ef_search are given", hint="leave ef_search out: it is chosen for the recall")


def _kinds(indexes: tuple[Index, ...], column: Column, metric: Metric) -> tuple[VectorType, ...]:
    """The types of the entries of the indexes that a search may use, the most exact first; without one every row is
    read anyway. An index of some rows only counts where it holds the column itself: the server sees whether it fits.
    """
    assert column.vector is not None
    own = column.vector[0]
    served = ((i, served_by(i, column)) for i in indexes)
    found = {s.stored for i, s in served if s and s.metric is metric and (i.where is None or s.stored is own)}
    return tuple(t for t in VectorType if t in found)


def vector_column(table: Table, name: str | None) -> Column:
    """The vector column named, or the table's only one. Raises BadInput."""
    columns = table.vector_columns
    if name is None and len(columns) == 1:
        return columns[0]
    known = ", ".join(c.name for c in columns) or "none"
    found = next((c for c in columns if c.name == name), None)
    if found is None:
        what = f"has no vector column {name!r}" if name else f"has {len(columns)} vector columns"
        raise BadInput(f"table {table.name} {what}", hint=f"vector columns: {known}")
    return found


def _wanted(columns: Sequence[str] | None, table: Table) -> tuple[str, ...]:
    if columns is None:
        return tuple(c.name for c in table.columns if not c.vector)
    for name in columns:
        if table.column(name) is None:
            known = ", ".join(c.name for c in table.columns)
            raise BadInput(f"table {table.name} has no column {name!r}", hint=f"columns: {known}")
    return tuple(columns)


def bindable(vector: Any, column: Column, metric: Metric) -> Any:
    """A question as it is sent. Raises BadInput, DimensionMismatch."""
    assert column.vector is not None
    kind = column.vector[0]
    if kind in (VectorType.SPARSEVEC, VectorType.BIT):
        if kind is VectorType.BIT and isinstance(vector, (list, np.ndarray)):
            vector = "".join("1" if x else "0" for x in vector)
        return vector if isinstance(vector, str) or not hasattr(vector, "to_text") else vector.to_text()
    return encode_one(question_array(vector, column, metric), kind)


def question_array(vector: Any, column: Column, metric: Metric) -> NDArray[np.float32]:
    """A question to a ``vector`` or ``halfvec`` column as a (dim,) array. Raises BadInput, DimensionMismatch."""
    assert column.vector is not None
    dim = column.vector[1]
    try:
        array = np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise BadInput("the question is not a vector", hint="give a list of numbers, or a text") from error
    if array.ndim != 1:
        raise BadInput("the question is not one vector", hint="give a list of numbers, or a text")
    square = float(np.vdot(array, array))  # one pass, that warns of nothing, says nearly always: all is well
    if not isfinite(square) and not np.isfinite(array).all():
        raise BadInput("the question is not one vector of finite numbers", hint="check the embedding model's output")
    if dim is not None and len(array) != dim:
        raise DimensionMismatch(
            f"the question has {len(array)} dimensions, column {column.name!r} {dim}",
            hint="embed the question with the model that filled the column",
        )
    if metric is Metric.COSINE and square == 0 and not np.count_nonzero(array):
        raise BadInput("the question is all zeros, which has no cosine distance to anything", hint="use another metric")
    return array


def parameters_of(request: Request) -> dict[str, Any]:
    """The values of the statement's parameters."""
    values = {**request.form.condition.parameters, "pgherd_q": request.vector}
    if request.words is not None:
        values["pgherd_words"] = request.words.text
    if request.line is not None and request.line.question is not None:
        values["pgherd_question"] = request.line.question
    return values


def seen_of(request: Request, home: str, shards: Sequence[Shard]) -> dict[str, Any]:
    """More parameters, for one group: where the page before ended, and the keys of its hits from there.

    Keys are values of rows: no other group is sent them, which may be in another region. A shard that has been split
    since is known by its group.
    """
    page = request.after
    if page is None:
        return {}
    here, known = {s.name for s in shards}, {s.name for h in request.form.homes for s in h.shards}
    keys = page.keys
    if page.places:
        told = zip(page.keys, page.places, strict=True)
        keys = tuple(key for key, (shard, group) in told if shard in here or (shard not in known and group == home))
    columns = [list(c) for c in zip(*keys, strict=True)] or [[] for _ in request.form.shape.key]
    return {"pgherd_after": page.distance, **{f"pgherd_seen_{i}": column for i, column in enumerate(columns)}}
