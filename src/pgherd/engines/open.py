"""Opening a herd: from its home, or from the DSN of any one of its servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from .. import herdfile
from ..errors import BadInput, GroupUnavailable
from ..model.placement import Label
from ..model.topology import EngineName, Group, GroupId, Node, NodeId, Topology
from .failures import translate
from .fleet import FleetEngine
from .region import RegionEngine
from .servers.engine import ServersEngine
from .servers.store import read_topology
from .servers.whereabouts import CONNECT_TIMEOUT_S
from .single import SingleEngine

_ENGINES: dict[EngineName, type[ServersEngine]] = {EngineName.SINGLE: SingleEngine, EngineName.FLEET: FleetEngine}


async def open_home(home: Path) -> ServersEngine:
    """The herd that ``<home>/herd.toml`` describes; made a herd now if its servers are empty.

    Raises NoSuchHerd, WrongVersion, GroupUnavailable.
    """
    file = herdfile.read(home)
    file.refuse_plain()
    base = file.parameters(file.user)
    if file.passfile:
        base["passfile"] = str(home.absolute() / file.passfile)
    groups = file.groups()
    engine = _ENGINES[file.engine](base, groups)
    return await _started(engine, groups, frozenset(n.group for n in file.nodes if n.leaving))


async def open_region(home: Path, region: str, user: str, password: str) -> RegionEngine:
    """The herd of ``home`` as the reader of ``region``, whose role and password these are.

    Raises NoSuchHerd, UnknownName, GroupUnavailable.
    """
    file = herdfile.read(home)
    file.refuse_plain()
    groups = tuple(g for g in file.groups() if g.primary.label.region == region)
    engine = RegionEngine({**file.parameters(user), "password": password}, groups, region)
    try:
        await engine.refresh()
    except BaseException:
        await engine.close()
        raise
    return engine


async def open_dsn(dsn: str) -> ServersEngine:
    """The herd that one of the DSN's hosts belongs to; a server that belongs to none becomes a herd of one.

    Raises BadInput for a malformed DSN, GroupUnavailable when no host answers.
    """
    try:
        parameters = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        # What libpq says of it quotes parts of it, which may be a password.
        hint = "postgresql://user@host:port/dbname; in it, percent-encode what is special"
        raise BadInput("the DSN is not a libpq connection string", hint=hint) from error
    hosts = parameters.get("hostaddr") or parameters.get("host") or os.environ.get("PGHOST", "")
    for host in str(hosts).split(","):
        herdfile.refuse_plain(host, _text(parameters.get("sslmode")), "the server of the DSN")
    known, node = await _ask_one(dsn)
    base = {k: v for k, v in parameters.items() if k not in ("host", "port", "hostaddr", "target_session_attrs")}
    groups = known.groups if known else (Group(GroupId("main"), 1, (node,)),)
    for member in (n for g in groups for n in g.nodes):
        mode = base.get("sslmode") or (member.tls.sslmode.value if member.tls else None)
        herdfile.refuse_plain(member.host, _text(mode), f"node {member.name}")
    engine = _ENGINES[known.engine if known else EngineName.SINGLE](base, groups)
    return await _started(engine, groups)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


async def _ask_one(dsn: str) -> tuple[Topology | None, Node]:
    try:
        async with await AsyncConnection.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            info = connection.info
            node = Node(NodeId("main"), info.host, info.port, Label.parse("main"))
            return await read_topology(connection), node
    except psycopg.Error as error:
        if error.sqlstate is None and not isinstance(refused := translate(error, "named by the DSN"), GroupUnavailable):
            raise refused from error
        if error.sqlstate is None:
            hint = "check host, port, user and password of the DSN"
            raise GroupUnavailable("no server of the DSN answers, or it refused the login", hint=hint) from error
        raise translate(error, "named by the DSN", "connecting") from error


async def _started(
    engine: ServersEngine, groups: tuple[Group, ...], leaving: frozenset[str] = frozenset()
) -> ServersEngine:
    try:
        await engine.start(groups, leaving)
    except BaseException:
        await engine.close()
        raise
    return engine
