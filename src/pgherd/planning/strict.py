"""Strict tablespaces: which groups may lead to a shard's rows, and what the others have in its place. Pure.

Elsewhere a shard is a foreign partition. In a group that may not lead to a strict shard's rows it is a barrier: a
foreign partition on a server that names no host and lets nobody in, so that a query that needs those rows is refused
instead of answered without them, while one that needs others is not (PostgreSQL prunes barriers like any partition).
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import ChangeRefused
from ..model.names import Name, derived_name, quote_literal
from ..model.placement import Tablespace
from ..model.schema import TableKind
from ..model.topology import Group, GroupId, Topology

REFUSED = " is strict: its rows are read at home only"
"""What a barrier's name ends in; PostgreSQL's error quotes it: user mapping not found for user …, server …"""


def barrier_name(space: str) -> str:
    """The foreign server of barriers to a tablespace."""
    return derived_name(space, REFUSED)


def make_barrier(space: str) -> str:
    """SQL that makes the foreign server of barriers, if it is not there."""
    return f"SELECT pgherd.make_barrier({quote_literal(barrier_name(space))})"


def leads_to(group: Group, space: Tablespace | None) -> bool:
    """Whether a group may lead to the rows of a tablespace: all of its nodes may, since any can become primary."""
    return space is None or all(space.readable_at(n.label) for n in group.nodes)


def barred(topology: Topology, space: str | None, among: tuple[GroupId, ...]) -> tuple[GroupId, ...]:
    """Those of the groups ``among`` that may not lead to the rows of a tablespace."""
    policy = topology.schema.tablespace(space) if space else None
    if policy is None or not policy.strict:
        return ()
    return tuple(g for g in among if not leads_to(topology.group(g), policy))


def audiences(topology: Topology) -> Iterator[tuple[tuple[GroupId, ...], frozenset[str]]]:
    """Groups that may lead to the same rows, and the tablespaces whose rows they may not lead to."""
    policies = [s for s in topology.schema.tablespaces if s.strict]
    found: dict[frozenset[str], list[GroupId]] = {}
    for group in topology.groups:
        found.setdefault(frozenset(s.name for s in policies if not leads_to(group, s)), []).append(group.name)
    return ((tuple(groups), spaces) for spaces, groups in found.items())


def changed_links(before: Topology, after: Topology) -> Iterator[tuple[Name, tuple[GroupId, ...], tuple[GroupId, ...]]]:
    """(shard, groups that may no longer lead to it, groups that now may), where tablespaces have changed.

    Raises ChangeRefused for a table that is whole in such a tablespace: views and rights hang on its foreign tables.
    """
    changed = {s.name for s in after.schema.tablespaces if s != before.schema.tablespace(s.name)}
    everywhere = tuple(g.name for g in after.groups)
    for table in before.schema.tables if changed else ():
        if table.kind is TableKind.REFERENCE:
            continue
        for shard in before.shards(table):
            if shard.tablespace not in changed:
                continue
            others = tuple(g for g in everywhere if g != shard.home)
            was, now = (set(barred(t, shard.tablespace, others)) for t in (before, after))
            if was == now:
                continue
            if table.kind is TableKind.LOCAL:
                raise ChangeRefused(
                    f"tablespace {shard.tablespace!r} changes who may read, and table {table.name} is whole in it",
                    hint="make a new table in a new tablespace and copy the rows, or keep the policy",
                )
            yield shard.relation, tuple(g for g in others if g in now - was), tuple(g for g in others if g in was - now)
