"""What follows from a new topology as a whole, whatever led to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..model.schema import Table, TableKind
from ..model.topology import GroupId, Topology
from .plan import Step
from .readers import reader_steps
from .search_function import search_functions
from .strict import audiences


def search_function_steps(topology: Topology) -> Iterator[Step]:
    """The search functions of a herd whose own were made by an older version."""
    yield from _steps(topology, {})


def finish(before: Topology, after: Topology) -> Iterator[Step]:
    """What follows from the new topology as a whole: search functions, privileges and policies of shards, readers."""
    everywhere = tuple(g.name for g in after.groups)
    yield from _steps(after, dict(_functions(before)))
    yield Step("sync_shards", "privileges and policies of shards", everywhere, "SELECT pgherd.sync_shards()")
    yield from login_steps(after, before)
    yield from reader_steps(after)


def login_steps(*topologies: Topology) -> Iterator[Step]:
    """Links of roles that policies hold back, where any of the topologies has row-level security and links.

    The first is the one that is to be.
    """
    everywhere = tuple(g.name for g in topologies[0].groups)
    if any(table_is_secured(t) for topology in topologies for t in topology.schema.tables) and len(everywhere) > 1:
        yield Step("sync_logins", "links of roles that policies hold back", everywhere, "SELECT pgherd.sync_logins()")


def table_is_secured(table: Table) -> bool:
    """Whether policies hold on rows that links lead to."""
    return table.kind is TableKind.DISTRIBUTED and table.row_security


def _steps(topology: Topology, old: Mapping[tuple[str, GroupId], str]) -> Iterator[Step]:
    """Those functions whose text is not the old one, each where it is to be."""
    made: dict[tuple[str, str], list[GroupId]] = {}
    for (name, group), text in _functions(topology):
        was = old.get((name, group))
        if was != text:
            sql = text if was is None else f"SELECT pgherd.drop_function('{name}');\n{text}"
            made.setdefault((name, sql), []).append(group)
    for (name, sql), groups in made.items():
        yield Step("search_function", f"pgherd.{name}", tuple(groups), sql)


def _functions(topology: Topology) -> Iterator[tuple[tuple[str, GroupId], str]]:
    """((name, group), text) of every search function: groups that may lead to different rows search different ones."""
    seen = list(audiences(topology))
    for table in topology.schema.tables:
        for groups, closed in seen:
            for name, text in search_functions(topology, table, closed):
                for group in groups:
                    yield (name, group), text
