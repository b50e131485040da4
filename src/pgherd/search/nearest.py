"""Which shards a question needs, of a table that is shared out by cells: those that are likely to hold what is near it.

How likely was measured with the indexes (``index tune``): what share of the nearest rows the shards hold within which
gap. So the least is asked that gives the recall wanted. Nothing is known of rows that a condition picks, of the page
after another, of rows by their text: such searches ask every shard.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..model.schema import Cells
from ..routing.nearest import Centroids
from .homes import Home, with_numbers
from .request import Form, Request


def nearest_only(request: Request, cells: Cells, centroids: Centroids, question: Any) -> Request:
    """The request, of those shards only that it needs. ``question`` is its vector as it was given."""
    gap = gap_of(request, cells, centroids)
    if gap is None:
        return request
    homes = homes_of_numbers(request.form, centroids.within(np.asarray(question, np.float32), gap))
    return request._replace(homes=homes, within=gap)


def gap_of(request: Request, cells: Cells, centroids: Centroids) -> float | None:
    """The gap within which shards are enough for such a request; None: ask all of them."""
    form, aim = request.form, request.form.aim
    if (
        aim is None
        or form.exact
        or not form.whole
        or form.shape.condition
        or request.after
        or request.knowledge is None
    ):
        return None
    if (aim.column, aim.metric) != (cells.vector_column, centroids.metric):
        return None
    return request.knowledge.reach(form.table.name, form.homes, request.k, aim)


def homes_of_numbers(form: Form, numbers: tuple[int, ...]) -> tuple[Home, ...]:
    """The homes of a form with those shards only that have these numbers."""
    homes = form.near.get(numbers)
    if homes is None:
        homes = form.near[numbers] = with_numbers(form.table, form.homes, frozenset(numbers))
    return homes
