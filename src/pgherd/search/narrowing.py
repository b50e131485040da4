"""Whether a condition lets so few rows through that reading them all is better than an index scan in search of some.

PostgreSQL's own statistics say how many rows match: its planner is asked once for a condition with its values, and what
it said is kept for a minute. Statistics know nothing of where in the space those rows lie. So an index scan gets no
more rows to look at than take as long as reading every row; one that finds too few by then is remembered, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, NamedTuple

from ..model.names import Name, quote_ident
from ..rows.quoting import escaped

MAX_AGE_S = 60.0
MAX_KNOWN = 10_000


class Matching(NamedTuple):
    """How many rows of so many the planner expects to match."""

    matching: float
    rows: float


def is_narrow(expected: Matching, k: int, max_scan: int) -> bool:
    """Whether an index scan would look at more rows than it may before it has found ``k`` that match."""
    return k * expected.rows > max_scan * max(expected.matching, 1.0)


class Narrowing:
    """What is known of conditions by group. For any number of threads: entries are replaced whole."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[float, Any]] = {}

    def expected(self, home: str, relations: tuple[Name, ...], text: str, values: Mapping[str, Any]) -> Matching | None:
        """How many rows are expected to match; None if that has to be asked."""
        found: Matching | None = self._get(_key(home, relations, text, values))
        return found

    def learn(
        self, home: str, relations: tuple[Name, ...], text: str, values: Mapping[str, Any], found: Matching
    ) -> None:
        """Keep what a group said."""
        self._put(_key(home, relations, text, values), found)

    def rows(self, home: str, relations: tuple[Name, ...]) -> float | None:
        """How many rows there are with or without a condition."""
        found: float | None = self._get((home, relations))
        return found

    def learn_rows(self, home: str, relations: tuple[Name, ...], rows: float) -> None:
        """Keep how many there are."""
        self._put((home, relations), rows)

    def _get(self, key: Any) -> Any:
        found = self._known.get(key)
        return found[1] if found and monotonic() - found[0] < MAX_AGE_S else None

    def _put(self, key: Any, value: Any) -> None:
        if len(self._known) >= MAX_KNOWN:
            self._known = {}
        self._known[key] = (monotonic(), value)


def _key(home: str, relations: tuple[Name, ...], text: str, values: Mapping[str, Any]) -> Any:
    return home, relations, text, tuple((name, repr(value)) for name, value in values.items())


@lru_cache(maxsize=2048)
def estimate_statement(alias: str, relations: tuple[Name, ...], condition: str) -> bytes:
    """What asks a group's planner how many rows match; parameters are the condition's."""
    where = f" WHERE {condition}" if condition else ""
    name = escaped(quote_ident(alias))
    parts = [f"SELECT FROM {escaped(relation.sql)} AS {name}{where}" for relation in relations]
    return ("EXPLAIN (FORMAT JSON) " + " UNION ALL ".join(parts)).encode()


def estimated_rows(answer: Sequence[tuple[Any, ...]]) -> float:
    """The planner's number of rows, out of what EXPLAIN says."""
    document = answer[0][0]
    if isinstance(document, (str, bytes)):
        document = json.loads(document)
    return float(document[0]["Plan"]["Plan Rows"])
