"""A table's partitions as a tree of decisions: a list or hash node at each level, shards at the leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, BadRow, UnknownName
from ..model.schema import HashBound, ListBound, PartitionBy, Strategy
from ..model.topology import Shard
from .hashing import check_hashable, hash_key
from .jenkins import Hashes
from .types import canonical_type
from .values import Datum, datum, is_null

_MOST_KEYS = 1000
"""Pruning hashes no more keys than this; with more, a level keeps all its partitions."""
_MOST_SHOWN = 20


class ListNode:
    """A level of PARTITION BY LIST. ``children[i]`` takes the values of the i-th bound."""

    def __init__(self, column: str, type_text: str, bounds: Sequence[ListBound], children: Sequence[Node]) -> None:
        self.columns = (column,)
        self.children = tuple(children)
        self._kind = canonical_type(type_text)
        self._default = next((i for i, b in enumerate(bounds) if b.default), None)
        self._null = next((i for i, b in enumerate(bounds) if None in b.values), self._default)
        texts = {text: i for i, b in enumerate(bounds) for text in b.values if text is not None}
        self._values: dict[Datum, int] = {self._bound_datum(column, text): i for text, i in texts.items()}
        self.listed = self._listing(texts)
        self._bounds = [
            None if b.default else frozenset(None if t is None else self._bound_datum(column, t) for t in b.values)
            for b in bounds
        ]

    def _bound_datum(self, column: str, text: str) -> Datum:
        try:
            return datum(self._kind, text)
        except BadRow as e:
            raise BadInput(f"partition bound of column {column}: {e.message}", hint=e.hint) from e

    def _listing(self, texts: Mapping[str, int]) -> str:
        shown = ", ".join(map(repr, islice(texts, _MOST_SHOWN)))
        more = f" and {len(texts) - _MOST_SHOWN} more" if len(texts) > _MOST_SHOWN else ""
        return (shown + more) or "NULL only"

    def index(self, value: Any) -> int | None:
        """Which child takes ``value``; None if none does. Raises BadRow if it is not of the column's type."""
        if is_null(value):
            return self._null
        return self._values.get(datum(self._kind, value), self._default)

    def child(self, value: Any) -> Node | None:
        """The child that takes ``value``."""
        index = self.index(value)
        return None if index is None else self.children[index]

    def matching(self, constraints: Mapping[str, Sequence[Any]]) -> Sequence[Node]:
        """The children that may hold rows for which the constraints are true."""
        if self.columns[0] not in constraints:
            return self.children
        kept = set()
        for value in constraints[self.columns[0]]:
            index = self._compared(value)
            if index == _UNSURE:
                return self.children
            kept.add(index)
        return [child for i, child in enumerate(self.children) if i in kept]

    def implied(self, child: Node, values: Sequence[Any]) -> bool:
        """Whether every row of ``child`` has one of ``values`` here, so that nobody needs to look; False if unsure."""
        bound = self._bounds[self.children.index(child)]
        if bound is None or not self._kind.known or self._kind.name == "real":
            return False
        try:
            given = {None if is_null(v) else datum(self._kind.bare, v) for v in values}
        except BadInput:
            return False
        return bound <= given

    def _compared(self, value: Any) -> int | None:
        """As ``index``, for a value in a comparison, neither cut nor rounded; _UNSURE if that can't be said."""
        if is_null(value):
            return self._null
        try:
            found = self._values.get(datum(self._kind.bare, value), self._default)
        except BadInput:
            return _UNSURE
        # an unknown type may have values that are equal though their text differs (inet, a domain over numeric), and
        # a real is compared with a double, or not, as the statement has it
        unsure = not self._kind.known or self._kind.name == "real"
        return _UNSURE if unsure and found == self._default else found


_UNSURE = -1


class HashNode:
    """A level of PARTITION BY HASH. ``children[i]`` takes the keys of the i-th bound."""

    def __init__(
        self, columns: Sequence[str], types: Sequence[str], bounds: Sequence[HashBound], children: Sequence[Node]
    ) -> None:
        for type_text in types:
            check_hashable(type_text)
        self.columns = tuple(columns)
        self.types = tuple(types)
        self.children = tuple(children)
        self.modulus = max(b.modulus for b in bounds)
        # PostgreSQL has every modulus be a factor of the next larger one, so the largest tells all of them apart
        self._table = np.full(self.modulus, -1, np.intp)
        for i, bound in enumerate(bounds):
            self._table[bound.remainder :: bound.modulus] = i

    def child(self, hashed: int) -> Node | None:
        """The child that takes keys of that hash; None if none does."""
        index = int(self._table[hashed % self.modulus])
        return None if index < 0 else self.children[index]

    def parts(self, hashes: Hashes) -> NDArray[np.intp]:
        """Which child takes each key, given by its hash; -1 where none does. (n,) intp."""
        return self._table[(hashes % np.uint64(self.modulus)).astype(np.intp)]

    def matching(self, constraints: Mapping[str, Sequence[Any]]) -> Sequence[Node]:
        """The children that may hold rows for which the constraints are true: all, unless every column has one."""
        if any(c not in constraints for c in self.columns) or "real" in {canonical_type(t).name for t in self.types}:
            return self.children
        compared = [str(canonical_type(t).bare) for t in self.types]
        kept = set()
        for n, key in enumerate(product(*(constraints[c] for c in self.columns))):
            try:
                hashed = hash_key(compared, key)
            except BadInput:
                return self.children
            if n >= _MOST_KEYS:
                return self.children
            kept.add(int(self._table[hashed % self.modulus]))
        return [child for i, child in enumerate(self.children) if i in kept]


Node = ListNode | HashNode | Shard


def partition_tree(shards: Sequence[Shard], types: Mapping[str, str], depth: int = 0) -> Node:
    """The tree above ``shards``, which share the first ``depth`` levels of their paths."""
    if len(shards) == 1 and len(shards[0].path) == depth:
        return shards[0]
    by = _common_by(shards, depth)
    groups: dict[Any, list[Shard]] = {}
    for shard in shards:
        groups.setdefault(shard.path[depth].bound, []).append(shard)
    children = [partition_tree(group, types, depth + 1) for group in groups.values()]
    kinds = [_type_of(c, types, shards[0]) for c in by.columns]
    bounds = list(groups)
    if by.strategy is Strategy.LIST:
        return ListNode(by.columns[0], kinds[0], [b for b in bounds if isinstance(b, ListBound)], children)
    return HashNode(by.columns, kinds, [b for b in bounds if isinstance(b, HashBound)], children)


def _common_by(shards: Sequence[Shard], depth: int) -> PartitionBy:
    levels = {shard.path[depth].by if len(shard.path) > depth else None for shard in shards}
    by = levels.pop()
    if by is None or levels:
        raise BadInput(
            f"the partitions of table {shards[0].table} don't form a tree",
            hint="give the shards of one table, each once",
        )
    return by


def _type_of(column: str, types: Mapping[str, str], shard: Shard) -> str:
    try:
        return types[column]
    except KeyError:
        raise UnknownName(
            f"table {shard.table} is partitioned by {column}, which is not among its columns",
            hint="give the type of every partition column",
        ) from None
