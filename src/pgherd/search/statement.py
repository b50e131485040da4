"""The statement one group gets: each of its shards ordered by distance and limited, then the best of all."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from ..model.schema import VectorType
from ..model.topology import Shard
from .request import Request, seen_condition

_Q = sql.Placeholder("pgherd_q")


def group_statement(request: Request, shards: Sequence[Shard], *, exact: bool) -> sql.Composed:
    """SELECT distance, number of the shard, columns wanted, key. ``exact`` keeps the vector index out of it.

    The ORDER BY is the bare operator, which is the only form that pgvector's indexes serve (pgvector README, Querying).
    """
    parts = [_shard_select(request, shard, number, exact) for number, shard in enumerate(shards)]
    limit = sql.Literal(request.k)
    if len(parts) == 1:
        return parts[0]
    union = sql.SQL(" UNION ALL ").join(sql.SQL("({})").format(p) for p in parts)
    return sql.SQL("SELECT * FROM ({}) gathered ORDER BY 1 LIMIT {}").format(union, limit)


def _shard_select(request: Request, shard: Shard, number: int, exact: bool) -> sql.Composed:
    distance = sql.SQL("({} {} {})").format(
        sql.Identifier(request.column.name), sql.SQL(request.metric.operator.replace("%", "%%")), _query(request)
    )
    conditions = [] if request.condition.trivial else [request.condition.sql]
    if request.after is not None:
        conditions.append(sql.SQL("{} >= {}").format(distance, sql.Placeholder("pgherd_after")))
        if request.after.keys:
            conditions.append(seen_condition(request))
    if not request.column.not_null:
        # Rows without a vector are on no index; any other scan has to leave them out itself.
        conditions.append(sql.SQL("{} IS NOT NULL").format(sql.Identifier(request.column.name)))
    where = sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.SQL("")
    columns = [sql.Identifier(c) for c in (*request.columns, *request.table.primary_key)]
    return sql.SQL("SELECT {}, {}::int2{} FROM {}{} ORDER BY {} LIMIT {}").format(
        distance,
        sql.Literal(number),
        sql.SQL("").join(sql.SQL(", {}").format(c) for c in columns),
        sql.Identifier(*shard.relation),
        where,
        sql.SQL("{} + 0").format(distance) if exact else distance,
        sql.Literal(request.k),
    )


def _query(request: Request) -> sql.Composable:
    """The question as a value of the column's own type: a bit string of another length is an error, not a distance."""
    kind = request.column.vector
    if kind and kind[0] in (VectorType.SPARSEVEC, VectorType.BIT):
        return sql.SQL("{}::{}").format(_Q, sql.SQL(request.column.type))
    return _Q
