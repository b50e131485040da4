"""Plain PostgreSQL servers, each with all names: a shard is a table at home and a foreign partition elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

from ..model.names import quote_literal
from ..model.topology import EngineName, Group, GroupId, Topology
from ..planning.plan import Phase, Plan, Step, Traits
from .servers.engine import ServersEngine
from .servers.scripts import script


class FleetEngine(ServersEngine):
    """Several groups of plain servers, linked to each other by postgres_fdw and dblink."""

    name = EngineName.FLEET
    traits = Traits(keys_on_parent=False, enforces_placement=True)

    def first_plan(self, groups: tuple[Group, ...]) -> Plan:
        """Schema ``pgherd``, a role for links and the links themselves; on a known herd, links that moved."""
        known = self.topology
        if known.generation and known.groups == groups:
            return Plan(known.generation)
        everywhere = tuple(g.name for g in groups)
        if known.generation:
            moved = [g for g in groups if g not in known.groups]
            result = replace(known, generation=known.generation + 1, groups=groups)
            steps = tuple(self._set_link(everywhere, g, None) for g in moved)
        else:
            result = Topology(1, self.name, groups)
            steps = tuple(self._install(everywhere, groups))
        return Plan(known.generation, (Phase((), steps, result),))

    def _install(self, everywhere: tuple[GroupId, ...], groups: tuple[Group, ...]) -> Iterator[Step]:
        yield Step("install_catalog", "schema pgherd", everywhere, script("catalog") + script("fleet"))
        for group in groups:
            sql = f"INSERT INTO pgherd.self (group_name) VALUES ({quote_literal(group.name)})"
            yield Step("name_group", group.name, (group.name,), sql)
        password = secrets.token_urlsafe(24)
        sql = f"SELECT pgherd.make_link_role({quote_literal(password)})"
        yield Step("make_link_role", "the role of links", everywhere, sql, secret=True)
        for group in groups:
            yield self._set_link(everywhere, group, password)

    def _set_link(self, everywhere: tuple[GroupId, ...], group: Group, password: str | None) -> Step:
        node = group.primary
        secret = quote_literal(password) if password else "NULL"
        arguments = ", ".join(quote_literal(str(v)) for v in (group.name, node.host, node.port))
        sql = f"SELECT pgherd.set_link({arguments}, current_database(), {secret})"
        return Step("set_link", group.name, everywhere, sql, secret=password is not None)
