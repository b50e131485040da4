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
from .homes import with_numbers
from .request import Request


def nearest_only(request: Request, cells: Cells, centroids: Centroids, question: Any) -> Request:
    """The request, of those shards only that it needs. ``question`` is its vector as it was given."""
    form, aim = request.form, request.form.aim
    if (
        aim is None
        or form.exact
        or not form.whole
        or form.shape.condition
        or request.after
        or request.knowledge is None
    ):
        return request
    if (aim.column, aim.metric) != (cells.vector_column, centroids.metric):
        return request
    gap = request.knowledge.reach(form.table.name, form.homes, request.k, aim)
    if gap is None:
        return request
    numbers = centroids.within(np.asarray(question, np.float32), gap)
    homes = form.near.get(numbers)
    if homes is None:
        homes = form.near[numbers] = with_numbers(form.table, form.homes, frozenset(numbers))
    return request._replace(homes=homes, within=gap)
