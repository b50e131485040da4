"""Plain PostgreSQL servers, each with all names: a shard is a table at home and a foreign partition elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from ..errors import BadInput
from ..model.names import quote_literal
from ..model.tls import Tls, of_link
from ..model.topology import EngineName, Group, GroupId, Topology
from ..planning.compile import server_name
from ..planning.finish import login_steps, search_function_steps
from ..planning.join import join_steps, role_names
from ..planning.plan import Phase, Plan, Step, Traits
from ..planning.readers import join_reader_steps
from .failures import talking_to
from .servers.engine import ServersEngine


class FleetEngine(ServersEngine):
    """Several groups of plain servers, linked to each other by postgres_fdw and dblink."""

    name = EngineName.FLEET
    scripts = ("catalog", "calibration", "reader", "trail", "fleet", "logins", "move", "split", "guard")
    traits = Traits(keys_on_parent=False, enforces_placement=True)

    async def first_plan(self, groups: tuple[Group, ...]) -> Plan:
        """Schema ``pgherd``, a role for links and the links; on a known herd, links that moved and groups that join."""
        known = self.topology
        old_catalog = await self.has_old_catalog()
        if known.generation:
            groups = await self._members(groups)
        if known.generation and known.groups == groups and not old_catalog:
            return Plan(known.generation)
        everywhere = tuple(g.name for g in groups)
        if known.generation:
            gone = {g.name for g in known.groups} - set(everywhere)
            if gone:
                raise BadInput(
                    f"herd.toml does not name group {min(gone)}, which the herd has",
                    hint="put its nodes back into the file: a group with shards can't be left out",
                )
            old = {g.name: g for g in known.groups}
            result = replace(known, generation=known.generation + 1, groups=groups)
            steps: tuple[Step, ...] = (self.install_catalog(tuple(old)),) if old_catalog else ()
            old_now = tuple(g for g in groups if g.name in old)
            secured = any(g.primary.tls != old[g.name].primary.tls for g in old_now)
            moved = (g for g in old_now if secured or g != old[g.name])
            steps += tuple(step for g in moved for step in self._set_links(old_now, g, None))
            steps += (*search_function_steps(known), *login_steps(known)) if old_catalog else ()
            new = tuple(g.name for g in groups if g.name not in old)
            if new:
                steps += tuple([s async for s in self._join(result, new)])
        else:
            result = Topology(1, self.name, groups)
            steps = tuple(self._install_on(everywhere, groups, secrets.token_urlsafe(24)))
        return Plan(known.generation, (Phase((), steps, result),))

    async def _members(self, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        """The file's groups in the herd's order, with the numbers they have; new ones get numbers that nobody ever had.

        Every group that is here now has seen all the numbers given since it joined, and its own is above those before.
        """
        known = {g.name: g for g in self.topology.groups}
        given = {g.name: g for g in groups if g.name in known or g.name not in self._leaving}
        if given.keys() == known.keys():
            return tuple(replace(given[name], number=group.number) for name, group in known.items())
        first = self.topology.groups[0].name
        async with self.connection(first) as connection:
            with talking_to(first, "numbering groups"):
                done = await connection.execute(
                    "SELECT max((g ->> 'number')::int) FROM pgherd.topology,"
                    " jsonb_array_elements(document -> 'groups') g"
                )
                ((last,),) = await done.fetchall()
        old = [replace(given[name], number=group.number) for name, group in known.items() if name in given]
        new = [g for name, g in given.items() if name not in known]
        return (*old, *(replace(g, number=last + i) for i, g in enumerate(new, 1)))

    async def _join(self, target: Topology, new: tuple[GroupId, ...]) -> AsyncIterator[Step]:
        """Make servers part of a herd that has rows: what they need of the others is read from one of those."""
        old = tuple(g.name for g in target.groups if g.name not in new)
        async with self.connection(old[0]) as connection:
            done = await connection.execute("SELECT pgherd.link_secret(%s)", [server_name(old[0])])
            secret = str((await done.fetchall())[0][0])
            done = await connection.execute(
                "SELECT rolname, pgherd.role_definition(rolname) FROM pg_roles WHERE rolname = ANY (%s)",
                [role_names(target.schema)],
            )
            roles = {str(name): str(text) for name, text in await done.fetchall()}
        for step in self._install_on(new, target.groups, secret):
            yield step
        for group in target.groups:
            if group.name in new:
                for step in self._set_links(tuple(g for g in target.groups if g.name in old), group, secret):
                    yield step
        for step in join_reader_steps(target, new, await self._reader_secrets(target, old)):
            yield step
        for step in join_steps(target, new, roles, self.traits):
            yield step

    async def _reader_secrets(self, target: Topology, old: tuple[GroupId, ...]) -> dict[str, tuple[str, str]]:
        """Passwords of readers and verifiers of their scribes; a region's readers are known on its own nodes only."""
        found: dict[str, tuple[str, str]] = {}
        for reader in target.readers:
            known = [g.name for g in target.groups_of(reader.region) if g.name in old]
            if known:
                async with self.connection(known[0]) as connection:
                    done = await connection.execute("SELECT * FROM pgherd.reader_secrets(%s)", [reader.role])
                    for secret, scribe_secret in await done.fetchall():
                        found[reader.role] = (str(secret), str(scribe_secret))
        return found

    def _install_on(self, where: tuple[GroupId, ...], groups: tuple[Group, ...], password: str) -> Iterator[Step]:
        """Schema ``pgherd``, the role of links, and links to all ``groups``, on the groups ``where``."""
        yield self.install_catalog(where)
        for name in where:
            sql = f"INSERT INTO pgherd.self (group_name) VALUES ({quote_literal(name)})"
            yield Step("name_group", name, (name,), sql)
        sql = f"SELECT pgherd.make_link_role({quote_literal(password)})"
        yield Step("make_link_role", "the role of links", where, sql, secret=True)
        for group in groups:
            yield from self._set_links(tuple(g for g in groups if g.name in where), group, password)

    def _set_links(self, everywhere: tuple[Group, ...], group: Group, password: str | None) -> Iterator[Step]:
        """Links to ``group`` on the groups ``everywhere``: the same on all of them but for what they can verify."""
        ways: dict[Tls | None, list[GroupId]] = {}
        for by in everywhere:
            ways.setdefault(of_link(group.primary.tls, by.primary.tls), []).append(by.name)
        hosts = ",".join(n.host for n in group.nodes)
        ports = ",".join(str(n.port) for n in group.nodes)
        for tls, where in ways.items():
            given = (tls.sslmode.value, tls.sslrootcert) if tls else (None, None)
            first, last = (
                ", ".join("NULL" if v is None else quote_literal(v) for v in values)
                for values in ((group.name, hosts, ports), (password, *given))
            )
            sql = f"SELECT pgherd.set_link({first}, current_database(), {last})"
            yield Step("set_link", group.name, tuple(where), sql, secret=password is not None)
