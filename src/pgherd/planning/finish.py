"""What follows from a new topology as a whole, whatever led to it."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.topology import Topology
from .plan import Step
from .readers import reader_steps
from .search_function import search_functions


def search_function_steps(topology: Topology) -> Iterator[Step]:
    """The search functions of a herd whose own were made by an older version."""
    everywhere = tuple(g.name for g in topology.groups)
    for table in topology.schema.tables:
        for name, text in search_functions(topology, table):
            yield Step("search_function", f"pgherd.{name}", everywhere, text)


def finish(before: Topology, after: Topology) -> Iterator[Step]:
    """What follows from the new topology as a whole: search functions, privileges and policies of shards, readers."""
    everywhere = tuple(g.name for g in after.groups)
    old = {name: text for t in before.schema.tables for name, text in search_functions(before, t)}
    for table in after.schema.tables:
        for name, text in search_functions(after, table):
            if old.get(name) != text:
                sql = f"SELECT pgherd.drop_function('{name}');\n{text}" if name in old else text
                yield Step("search_function", f"pgherd.{name}", everywhere, sql)
    yield Step("sync_shards", "privileges and policies of shards", everywhere, "SELECT pgherd.sync_shards()")
    yield from reader_steps(after)
