"""Taking a group that holds nothing out of a herd, in one commit.

Afterwards nobody can take it for a member: it has no topology, none of the herd's tables and no links, and the others
have no link to it. What it decided of commits over several groups stays until all of those are settled
(engines/servers/engine.py); so does nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..errors import ChangeRefused
from ..model.names import quote_ident, quote_literal
from ..model.schema import ObjectKind, TableKind
from ..model.topology import GroupId, Topology
from .compile import linked_sequence, server_name
from .finish import finish
from .move import READERS_S
from .placement import serves
from .plan import BRIEFLY, Phase, Plan, Step
from .strict import barrier_name

_DROPPED = {
    ObjectKind.VIEW: "VIEW",
    ObjectKind.MATERIALIZED_VIEW: "MATERIALIZED VIEW",
    ObjectKind.FUNCTION: "ROUTINE",
    ObjectKind.DOMAIN: "DOMAIN",
    ObjectKind.SEQUENCE: "SEQUENCE",
    ObjectKind.ENUM: "TYPE",
}
"""What goes with the tables. Roles, schemas and extensions belong to the server as much as to the herd: they stay."""


def check_empty(topology: Topology, group: GroupId) -> None:
    """Refuse to take out a group that holds something, or the last one; ChangeRefused names what is there."""
    name = topology.group(group).name
    if len(topology.groups) == 1:
        raise ChangeRefused(f"{name} is the herd's only group", hint="pgherd destroy removes the whole herd")
    local = next((t.name for t in topology.schema.tables if topology.homes.get(t.name.sql) == name), None)
    if local is not None:
        raise ChangeRefused(
            f"table {local} is whole in group {name}, and local tables can't be moved",
            hint="distribute it, or make it a reference table",
        )
    held = [relation for relation, home in topology.homes.items() if home == name]
    if held:
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        raise ChangeRefused(
            f"shard {held[0]}{more} is in group {name}",
            hint=f"pgherd node drain {name}, or leave out --no-drain",
        )


def plan_leave(topology: Topology, group: GroupId) -> Plan:
    """The plan that takes an empty group out. Raises UnknownName, ChangeRefused."""
    check_empty(topology, group)
    rest = tuple(g for g in topology.groups if g.name != group)
    target = replace(topology, generation=topology.generation + 1, groups=rest)
    wait = Step("await_readers", group, (group,), f"SELECT pgherd.await_readers(NULL, {READERS_S})")
    steps = (*_forget(topology, group), _unlink(tuple(g.name for g in rest), group))
    notes = tuple(
        f"no group that is left serves tablespace {space.name!r}; no table uses it now"
        for space in topology.schema.tablespaces
        if serves(topology.group(group), space) and not any(serves(g, space) for g in rest)
    )
    return Plan(topology.generation, (Phase((wait,), (*steps, *finish(topology, target)), target),), notes)


def _forget(topology: Topology, group: GroupId) -> Iterator[Step]:
    """At the group that leaves: all of the herd's tables (their rows are elsewhere), and the links."""
    statements = []
    for table in reversed(topology.schema.tables):
        kind = "FOREIGN TABLE" if table.kind is TableKind.LOCAL else "TABLE"
        statements.append(f"DROP {kind} IF EXISTS {table.name.sql} CASCADE")
        if table.kind is TableKind.LOCAL:
            sequences = (linked_sequence(table, c.name) for c in table.columns if c.identity)
            statements += [f"DROP SEQUENCE IF EXISTS {s.sql}" for s in sequences]
    objects = [o for o in reversed(topology.schema.objects) if o.kind in _DROPPED]
    statements += [f"DROP {_DROPPED[o.kind]} IF EXISTS {o.name} CASCADE" for o in objects]
    statements += [f"DROP SERVER IF EXISTS {quote_ident(server_name(g.name))} CASCADE" for g in topology.groups]
    barriers = (barrier_name(s.name) for s in topology.schema.tablespaces)
    statements += [f"DROP SERVER IF EXISTS {quote_ident(b)} CASCADE" for b in barriers]
    statements.append("SELECT pgherd.drop_search_functions()")
    statements.append("TRUNCATE pgherd.topology, pgherd.self, pgherd.load, pgherd.calibration, pgherd.trail_kept")
    yield Step("leave", group, (group,), ";\n".join(statements), blocks=BRIEFLY)


def _unlink(others: tuple[GroupId, ...], group: GroupId) -> Step:
    return Step("drop_link", group, others, f"SELECT pgherd.drop_link({quote_literal(group)})", blocks=BRIEFLY)
