"""Counting rows in a home that do not belong there, where PostgreSQL no longer sees to it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from ..model.names import Name
from ..model.schema import HashBound, leaves
from .finding import NotLooked
from .looking import Reader, said
from .pinned import Pinned
from .probes.homes import attached, relation
from .world import Strays, World


async def count_strays(world: World, reader: Reader) -> Iterator[NotLooked]:
    """Put into ``world.strays`` how many rows of a shard's table its bounds do not allow."""
    missed = []
    for seen in world.primaries():
        for p in world.at(str(seen.group.name)):
            found = relation(world, seen, p.shard.relation)
            if found is None or found["kind"] != "r" or attached(found, p):
                continue
            try:
                async with reader.session(seen.node) as session:
                    row = await (await session.execute(_query(p))).fetchone()
                    world.strays.append(Strays(p, int(row["rows"]) if row else 0))
            except psycopg.Error as error:
                missed.append(NotLooked(f"rows of {p.shard.name}", seen.name, seen.region, said(error)))
    return iter(missed)


def _query(p: Pinned) -> sql.Composed:
    above: list[Name] = [p.table.name]
    above += next(
        ([a.name for a in path] for path, leaf in leaves(p.table.partitions) if leaf.name == p.shard.relation), []
    )
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for parent, level in zip(above, p.shard.path, strict=True):
        columns = sql.SQL(", ").join(map(sql.Identifier, level.by.columns))
        bound = level.bound
        if isinstance(bound, HashBound):
            text = "satisfies_hash_partition({}::regclass, {}, {}, {})"
            numbers = sql.Literal(bound.modulus), sql.Literal(bound.remainder)
            conditions.append(sql.SQL(text).format(sql.Literal(parent.sql), *numbers, columns))
        elif not bound.default:
            listed = [sql.Literal(v) for v in bound.values if v is not None]
            inside = sql.SQL("{} IN ({})").format(columns, sql.SQL(", ").join(listed)) if listed else sql.SQL("false")
            null = sql.SQL(" OR {} IS NULL").format(columns) if None in bound.values else sql.SQL("")
            conditions.append(sql.SQL("(({}){})").format(inside, null))
    return sql.SQL("SELECT count(*) AS rows FROM {} WHERE ({}) IS NOT TRUE").format(
        sql.Identifier(*p.shard.relation), sql.SQL(" AND ").join(conditions)
    )
