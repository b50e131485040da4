"""Planner statistics: ANALYZE of a link, or of a table with links, copies values of far rows into this server."""

from __future__ import annotations

from collections.abc import Iterator

from ...model.names import Name
from ..finding import Finding, Outcome, Severity, outcome
from ..pinned import Pinned
from ..world import Row, Seen, World, tables_of
from .links import behind


def probe(world: World) -> Outcome:
    """Most common values, histograms and extended statistics of links and of tables that have links."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding]:
    for seen in world.primaries():
        for dbname, facts in seen.databases.items():
            for row in facts["statistics"]:
                outside = tuple(p for p in _sources(world, seen, dbname, row) if not p.allows(seen.node.label))
                if outside:
                    yield Finding(
                        "statistics",
                        Severity.VIOLATION,
                        tables_of(outside),
                        seen.name,
                        seen.region,
                        f"{row['what']} of {row['schema']}.{row['name']} in database {dbname} hold values of"
                        f" {', '.join(row['columns'])} (ANALYZE was run here)",
                        "pg_clear_attribute_stats (PostgreSQL 18), or DELETE FROM pg_statistic WHERE starelid = …",
                        world.home_node(outside[0]),
                        seen.name,
                    )


def _sources(world: World, seen: Seen, dbname: str, row: Row) -> tuple[Pinned, ...]:
    """The shards whose values statistics of a relation may hold: of a link, or of all partitions of a table."""
    if found := behind(world, seen, dbname, row["schema"], row["name"]):
        return found
    if dbname != world.dbname:
        return ()
    return tuple(p for p in world.pinned if Name(row["schema"], row["name"]) in p.names)
