"""Which shard takes a row, and which shards may hold the rows that a search asks for.

The answers are those of PostgreSQL's own tuple routing (execPartition.c) and partition pruning (partprune.c), with
one difference: pruning here leaves a shard out only when that is certain, and leaves it to the server to judge a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, BadRow
from ..model.topology import Shard
from .columns import Column, take
from .hashing import hash_key, hash_rows
from .tree import HashNode, ListNode, Node, partition_tree
from .values import shown

__all__ = ["Router"]

Rows = NDArray[np.intp]


class Router:
    """Routes the rows of one table, and prunes its shards.

    ``topology_shards`` are those of one table, as ``Topology.shards`` gives them; ``columns`` maps each of its columns
    (the partition columns are enough) to its SQL type.

    Raises:
        BadInput: no shards, or a partition column has a type whose equality or hash depends on the server.
        UnknownName: a partition column is not among ``columns``.
    """

    def __init__(self, topology_shards: Sequence[Shard], columns: Mapping[str, str]) -> None:
        if not topology_shards:
            raise BadInput(
                "a table without shards takes no rows", hint="apply the schema first: pgherd apply schema.sql"
            )
        self._shards = tuple(topology_shards)
        self._table = self._shards[0].table
        self._types = dict(columns)
        self._root = partition_tree(self._shards, self._types)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards of the table."""
        return self._shards

    def route(self, row: Mapping[str, Any]) -> Shard:
        """The shard that takes ``row``. None is NULL; a column that is left out is missing.

        Raises:
            BadRow: a partition column is missing, its value doesn't fit its type, or no partition takes the value.
        """
        node = self._root
        while not isinstance(node, Shard):
            key = [self._value(row, c) for c in node.columns]
            node = self._list_child(node, key[0]) if isinstance(node, ListNode) else self._hash_child(node, key)
        return node

    def route_many(self, columns: Mapping[str, Column]) -> list[tuple[Shard, Rows]]:
        """The shards that take n rows, given by column, and for each the ascending (k,) intp indexes of its rows.

        Shards that take no row are left out. None (and numpy's NaT) is NULL.

        Raises:
            BadRow: as for ``route``, naming the first row found to be wrong; no row has been routed then.
            BadInput: the columns differ in length.
        """
        needed = () if isinstance(self._root, Shard) else self._root.columns
        lengths = {len(self._value(columns, c)) for c in needed} | {len(c) for c in columns.values()}
        if len(lengths) > 1:
            raise BadInput("columns of different lengths are not rows", hint="give each column one value per row")
        found: dict[str, Rows] = {}
        self._spread(self._root, columns, np.arange(max(lengths, default=0), dtype=np.intp), found)
        return [(s, found[s.name]) for s in self._shards if s.name in found and len(found[s.name])]

    def prune(self, constraints: Mapping[str, Sequence[Any]]) -> list[Shard]:
        """The shards that may hold rows in which each column of ``constraints`` is one of its values.

        None among the values means that the column IS NULL (SQL's ``= NULL`` matches nothing: leave it out); no values
        at all match nothing. Columns that no level partitions by are ignored. A value that routing can't read leaves
        nothing out: judging it is up to the server.

        Raises:
            BadInput: a text stands where a sequence of values belongs.
        """
        if any(isinstance(values, str | bytes) for values in constraints.values()):
            raise BadInput("a constraint is a sequence of values, not one text", hint="put the value into a list")
        if any(not len(values) for values in constraints.values()):
            return []
        kept = {s.name for s in self._matching(self._root, constraints)}
        return [s for s in self._shards if s.name in kept]

    def implies(self, constraints: Mapping[str, Sequence[Any]]) -> bool:
        """Whether all rows of the shards that ``prune`` leaves meet the constraints, by where they are alone."""
        return set(constraints) <= self._implied(self._root, constraints)

    def _implied(self, node: Node, constraints: Mapping[str, Sequence[Any]]) -> set[str]:
        """The constrained columns that are settled for every matching shard below ``node``."""
        if isinstance(node, Shard):
            return set()
        settled: list[set[str]] = []
        for child in node.matching(constraints):
            below = self._implied(child, constraints)
            if isinstance(node, ListNode) and node.columns[0] in constraints:
                column = node.columns[0]
                below |= {column} if node.implied(child, constraints[column]) else set()
            settled.append(below)
        return set.intersection(*settled) if settled else set()

    def _value(self, row: Mapping[str, Any], column: str) -> Any:
        try:
            return row[column]
        except KeyError:
            raise BadRow(
                f"table {self._table}: partition column {column} is missing",
                hint=f"give {column} in every row (None for NULL): defaults are not known before the row has a home",
            ) from None

    def _list_child(self, node: ListNode, value: Any) -> Node:
        try:
            child = node.child(value)
        except BadRow as e:
            raise self._in_column(node.columns, e) from e
        if child is None:
            raise self._no_partition(node, value)
        return child

    def _hash_child(self, node: HashNode, key: Sequence[Any]) -> Node:
        try:
            hashed = hash_key(node.types, key)
        except BadRow as e:
            raise self._in_column(node.columns, e) from e
        child = node.child(hashed)
        if child is None:
            raise self._no_remainder(node, hashed)
        return child

    def _spread(self, node: Node, columns: Mapping[str, Column], rows: Rows, found: dict[str, Rows]) -> None:
        if isinstance(node, Shard):
            found[node.name] = rows
            return
        every = [self._value(columns, c) for c in node.columns]
        key = every if len(rows) == len(every[0]) else [take(c, rows) for c in every]
        part = self._list_parts(node, key[0], rows) if isinstance(node, ListNode) else self._hash_parts(node, key, rows)
        for i, child in enumerate(node.children):
            taken = rows[part == i]
            if len(taken):
                self._spread(child, columns, taken, found)

    def _list_parts(self, node: ListNode, values: Column, rows: Rows) -> NDArray[np.intp]:
        part = np.empty(len(rows), np.intp)
        known: dict[tuple[type, Any], int] = {}
        for i, value in enumerate(values):
            try:
                index = known.get((type(value), value))
            except TypeError:  # not hashable (a bytearray): nothing to remember it by
                index = None
            if index is None:
                index = self._list_index(node, value, int(rows[i]))
                if isinstance(value, str | int):
                    known[type(value), value] = index
            part[i] = index
        return part

    def _list_index(self, node: ListNode, value: Any, row: int) -> int:
        try:
            index = node.index(value)
        except BadRow as e:
            raise self._in_column(node.columns, e, row) from e
        if index is None:
            raise self._no_partition(node, value, row)
        return index

    def _hash_parts(self, node: HashNode, key: Sequence[Column], rows: Rows) -> NDArray[np.intp]:
        try:
            hashes = hash_rows(node.types, key)
        except BadRow:
            self._blame(node, key, rows)
            raise
        part = node.parts(hashes)
        if (part < 0).any():
            at = int(np.argmax(part < 0))
            raise self._no_remainder(node, int(hashes[at]), int(rows[at]))
        return part

    def _blame(self, node: HashNode, key: Sequence[Column], rows: Rows) -> None:
        """Find the first value that can't be hashed, to name its column and row."""
        for i, row in enumerate(rows.tolist()):
            for column, type_text, values in zip(node.columns, node.types, key, strict=True):
                try:
                    hash_key([type_text], [values[i]])
                except BadRow as e:
                    raise self._in_column((column,), e, row) from e

    def _matching(self, node: Node, constraints: Mapping[str, Sequence[Any]]) -> Iterable[Shard]:
        if isinstance(node, Shard):
            yield node
            return
        for child in node.matching(constraints):
            yield from self._matching(child, constraints)

    def _where(self, columns: Sequence[str], row: int | None) -> str:
        named = f"column{'s' if len(columns) > 1 else ''} {', '.join(columns)}"
        return f"table {self._table}, {named}" + ("" if row is None else f", row {row}")

    def _in_column(self, columns: Sequence[str], cause: BadRow, row: int | None = None) -> BadRow:
        return BadRow(f"{self._where(columns, row)}: {cause.message}", hint=cause.hint)

    def _no_partition(self, node: ListNode, value: Any, row: int | None = None) -> BadRow:
        what = "NULL" if value is None else shown(value)
        return BadRow(
            f"{self._where(node.columns, row)}: no partition takes {what}; there are partitions for {node.listed}",
            hint=f"correct the value, or add a partition FOR VALUES IN ({what}) or a DEFAULT partition to the schema",
        )

    def _no_remainder(self, node: HashNode, hashed: int, row: int | None = None) -> BadRow:
        modulus = node.modulus
        return BadRow(
            f"{self._where(node.columns, row)}: no partition takes remainder {hashed % modulus} of modulus {modulus}",
            hint=f"add a partition FOR VALUES WITH (MODULUS {modulus}, REMAINDER {hashed % modulus}) to the schema",
        )
