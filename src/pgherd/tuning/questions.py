"""Questions to measure an index with, made out of the table's own rows.

Rows themselves would flatter an index: each is in the graph, with edges to its own neighbours. Questions of users lie
near the rows, but between them: short texts touch several subjects. So a question is a row and part of another, from
5 % to 40 % of it. The 40 % were chosen on ICD-10-CM texts, where a mixture of shortened descriptions and of words of
two descriptions then finds about what was asked for; words of two alone find less (0.92 when asked for 0.95).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import SparseVector
from psycopg import sql

from ..engines.base import Connection
from ..engines.wire import encode
from ..model.names import Name
from ..model.schema import Column, VectorType
from ..model.vectors import Metric

LEAST_SHARE, MOST_SHARE = 0.05, 0.4


async def sample_rows(connection: Connection, relation: Name, column: str, rows: int, wanted: int) -> list[Any]:
    """About ``wanted`` vectors out of a shard of ``rows`` rows, from anywhere in it: loads leave like beside like.

    The same ones each time, unless rows have moved, so that measuring twice differs by little.
    """
    percent = min(100.0, 100.0 * 3 * wanted / max(rows, 1))
    query = sql.SQL(
        "SELECT {column} FROM {relation} TABLESAMPLE BERNOULLI ({percent}) REPEATABLE (1) WHERE {column} IS NOT NULL"
        " ORDER BY hashtext(ctid::text) LIMIT {wanted}"
    ).format(
        column=sql.Identifier(column),
        relation=sql.Identifier(*relation),
        percent=sql.Literal(percent),
        wanted=sql.Literal(wanted),
    )
    return [row[0] for row in await (await connection.execute(query)).fetchall()]


def questions_of(rows: Sequence[Any], column: Column, metric: Metric, n: int, seed: int = 0) -> list[Any]:
    """``n`` questions ready to be sent, made of ``rows`` as the driver gave them; fewer only if rows are no use."""
    assert column.vector is not None
    kind = column.vector[0]
    return [_sendable(m, kind) for m in mixtures_of(rows, column, metric, n, seed)]


def mixtures_of(
    rows: Sequence[Any], column: Column, metric: Metric, n: int, seed: int = 0
) -> list[NDArray[np.float32] | NDArray[np.bool_]]:
    """The same questions as arrays of the column's dimensions, as a table's ``search`` takes them."""
    assert column.vector is not None
    kind = column.vector[0]
    rng = np.random.default_rng(seed)
    arrays = [_array(row, kind) for row in rows]
    arrays = [a for a in arrays if a.any() or metric is not Metric.COSINE]
    if not arrays:
        return []
    order = [int(i) for i in rng.permutation(len(arrays))]
    shares = rng.permutation(np.linspace(LEAST_SHARE, MOST_SHARE, n))
    mixed = []
    for i, share in enumerate(shares):
        one, other = arrays[order[i % len(order)]], arrays[order[(i + n) % len(order)]]
        if len(one) != len(other):  # a column without a fixed dimension
            other = one
        mixed.append(_mix(one, other, float(share), kind, rng))
    return [m for m in mixed if m.any() or metric is not Metric.COSINE]


def _array(row: Any, kind: VectorType) -> NDArray[Any]:
    if kind is VectorType.BIT:
        return np.array([c == "1" for c in (row if isinstance(row, str) else row.to_text())], bool)
    if isinstance(row, np.ndarray):
        return row.astype(np.float32)
    return np.asarray(row.to_numpy(), np.float32)


def _mix(
    one: NDArray[Any], other: NDArray[Any], share: float, kind: VectorType, rng: np.random.Generator
) -> NDArray[Any]:
    if kind is VectorType.BIT:
        return np.where(rng.random(len(one)) < share, other, one)
    # Lengths made equal first, or a long vector would hide a short one.
    length = float(np.linalg.norm(other))
    scaled = other * (float(np.linalg.norm(one)) / length) if length else other
    return ((1 - share) * one + share * scaled).astype(np.float32)


def _sendable(vector: NDArray[Any], kind: VectorType) -> Any:
    if kind is VectorType.BIT:
        return "".join("1" if bit else "0" for bit in vector)
    if kind is VectorType.SPARSEVEC:
        return SparseVector(vector).to_text()
    return encode(vector[None, :], kind)[0]
