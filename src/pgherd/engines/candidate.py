"""Whether a server that exists can join a herd: asked before anything is changed, of it and of all members."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..errors import BadInput, CertificateRefused, ChangeRefused, GroupUnavailable, WrongVersion
from ..herdfile import refuse_plain
from ..model.schema import ObjectKind, Schema
from ..model.tls import SYSTEM, SslMode, Tls, of_link
from .base import Connection, Engine
from .failures import talking_to, translate

TAKEN = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert")
TIMEOUT_S = 5
EXTENSIONS = ("vector", "postgres_fdw", "dblink")

_FACTS = """
SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version'), pg_is_in_recovery(),
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), current_setting('wal_level'),
    current_setting('max_prepared_transactions')::int, current_setting('max_replication_slots')::int,
    current_setting('max_wal_senders')::int, current_setting('max_logical_replication_workers')::int,
    current_setting('server_encoding'), to_regnamespace('pgherd') IS NOT NULL,
    ARRAY(SELECT e FROM unnest(%s::text[]) e WHERE e NOT IN (SELECT name FROM pg_available_extensions))
"""
_IDENTITY = "SELECT (SELECT system_identifier FROM pg_control_system())::text, current_database()"


def parameters_of(dsn: str, user: str, dbname: str) -> dict[str, str]:
    """Host, port, user, dbname and perhaps password of a DSN that is to join a herd of ``user`` and ``dbname``.

    Raises BadInput; no message quotes the DSN, which may hold a password.
    """
    try:
        given = {k: str(v) for k, v in conninfo_to_dict(dsn).items() if v is not None}
    except psycopg.ProgrammingError:
        raise BadInput(
            "--dsn is not a libpq connection string", hint="postgresql://user:password@host:port/dbname"
        ) from None
    if more := sorted(given.keys() - set(TAKEN)):
        raise BadInput(
            f"--dsn sets {more[0]}, which a herd does not keep for single servers",
            hint="leave it out; libpq's environment (PGAPPNAME …) holds for all servers of a herd",
        )
    if "host" not in given or "," in given["host"] or given["host"].startswith("/"):
        raise BadInput("--dsn must name one host, which the other servers can reach", hint="postgresql://host:port/…")
    for key, herds in (("user", user), ("dbname", dbname)):
        if given.setdefault(key, herds) != herds:
            raise BadInput(
                f"--dsn has {key} {given[key]!r}, and the herd's servers all have {herds!r}",
                hint=f"make it there, or leave {key} out",
            )
    port = given.setdefault("port", "5432")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(f"--dsn has port {port!r}", hint="a port is 1 to 65535")
    _check_tls(given)
    return given


def _check_tls(given: dict[str, str]) -> None:
    """What the DSN says of TLS must hold for the herd's servers as well, which reach this one by links."""
    mode, root = given.get("sslmode"), given.get("sslrootcert")
    if mode is not None and mode not in SslMode.__members__.values():
        raise BadInput(f"--dsn has sslmode {mode!r}", hint="one of " + ", ".join(SslMode))
    if root is not None and (mode is None or not (root == SYSTEM or root.startswith("/"))):
        raise BadInput(
            f"--dsn has sslrootcert {root!r}, and sslmode {mode}",
            hint="an absolute path that this machine and the herd's servers can read, or system; and an sslmode",
        )
    if mode in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL) and root is None:
        raise BadInput(
            f"--dsn has sslmode {mode} without sslrootcert",
            hint="name the certificates to trust: a path that this machine and the herd's servers can read, or system",
        )
    refuse_plain(given["host"], mode, "the server of --dsn")


def tls_of(given: dict[str, str], herds: Tls | None) -> Tls | None:
    """How the server of a DSN is reached; in a herd that says nothing of TLS it may say nothing, too."""
    if "sslmode" not in given and herds is None:
        return None
    return Tls(SslMode(given.get("sslmode", SslMode.PREFER)), given.get("sslrootcert"))


async def check_candidate(engine: Engine, given: dict[str, str], tls: Tls | None) -> None:
    """Refuse a server that can't join; nothing is changed anywhere.

    Raises GroupUnavailable (it does not answer, or a member and it don't reach each other), WrongVersion, ChangeRefused
    (what it lacks, or what is there already).
    """
    where = f"{given['host']}:{given['port']}"
    first = engine.topology.groups[0].name
    async with _connected(given, where) as theirs:
        async with engine.connection(first) as ours:
            await _check_server(ours, theirs, where)
            await _check_stranger(ours, engine, theirs, where)
        await _check_free(theirs, engine.topology.schema, where)
        await _check_ways(engine, theirs, given, tls, where)


@asynccontextmanager
async def _connected(given: dict[str, str], where: str) -> AsyncIterator[Connection]:
    parameters: dict[str, Any] = {**given, "connect_timeout": TIMEOUT_S, "application_name": "pgherd"}
    try:
        connection: Connection = await AsyncConnection.connect(**parameters, autocommit=True)
    except psycopg.Error as error:
        if isinstance(refused := translate(error, where), CertificateRefused):
            raise refused from None
        # The cause may quote the connection string; what the server said does not.
        raise GroupUnavailable(
            f"{where} does not answer, or refused the login of {given['user']}: {_reason(error)}",
            hint="check host, port, user, password, its listen_addresses and pg_hba.conf",
        ) from None
    async with connection:
        try:
            yield connection
        except psycopg.Error as error:
            raise translate(error, where, "looking at it") from error


def _reason(error: psycopg.Error) -> str:
    lines = [line.split("FATAL:")[-1].strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


async def _row(connection: Connection, query: str, parameters: list[Any] | None = None) -> tuple[Any, ...]:
    ((*values,),) = await (await connection.execute(query, parameters)).fetchall()
    return tuple(values)


async def _check_server(ours: Connection, theirs: Connection, where: str) -> None:
    wanted = [list(EXTENSIONS)]
    check_facts(await _row(ours, _FACTS, wanted), await _row(theirs, _FACTS, wanted), where)


def check_facts(mine: tuple[Any, ...], theirs: tuple[Any, ...], where: str) -> None:
    """Refuse a server by what it says of itself, a row of ``_FACTS``, and a member's: WrongVersion, ChangeRefused."""
    major, version, standby, superuser, wal, prepared, slots, senders, workers, encoding, _, missing = theirs
    if major != mine[0]:
        raise WrongVersion(
            f"{where} is PostgreSQL {version}, the herd's servers are {mine[1]}",
            hint=f"a server that joins needs PostgreSQL {mine[0]}",
        )
    lacks = {
        "it is a standby, which takes no writes": standby,
        "the user is no superuser there, which postgres_fdw and dblink need": not superuser,
        f"it has no extension {missing[0] if missing else ''}": missing,
        f"its wal_level is {wal}, and moving shards needs logical": wal != "logical",
        "its max_prepared_transactions is 0, and committing on several servers needs some": prepared == 0,
        "its max_replication_slots is 0, and moving shards needs some": slots == 0,
        "its max_wal_senders is 0, and moving shards needs some": senders == 0,
        "its max_logical_replication_workers is 0, and moving shards needs some": workers == 0,
        f"its database is in {encoding}, the herd's in {mine[9]}": encoding != mine[9],
    }
    for what, is_so in lacks.items():
        if is_so:
            raise ChangeRefused(
                f"{where} can't join: {what}",
                hint="change that there (most settings need a restart), then again; nothing was changed",
            )


async def _check_stranger(ours: Connection, engine: Engine, theirs: Connection, where: str) -> None:
    (has_herd,) = (await _row(theirs, "SELECT to_regnamespace('pgherd') IS NOT NULL"))[:1]
    me = await _row(theirs, _IDENTITY)
    for group in engine.topology.groups:
        async with engine.connection(group.name) as member:
            if await _row(member, _IDENTITY) == me:
                raise ChangeRefused(f"{where} is group {group.name} of this herd already", hint="pgherd status")
    if has_herd:
        raise ChangeRefused(
            f"{where} belongs to another herd: its database has a schema pgherd",
            hint="take it out there (pgherd node remove), or name an empty database",
        )


async def _check_free(theirs: Connection, schema: Schema, where: str) -> None:
    """No relation or type of the herd's names may be there: the server gets them all when it joins."""
    kinds = (ObjectKind.ENUM, ObjectKind.DOMAIN, ObjectKind.SEQUENCE, ObjectKind.VIEW, ObjectKind.MATERIALIZED_VIEW)
    names = [t.name.sql for t in schema.tables] + [i.name.sql for i in schema.indexes]
    names += [o.name for o in schema.objects if o.kind in kinds]
    done = await theirs.execute(
        "SELECT n FROM unnest(%s::text[]) n WHERE to_regclass(n) IS NOT NULL OR to_regtype(n) IS NOT NULL", [names]
    )
    taken = [row[0] for row in await done.fetchall()]
    if taken:
        raise ChangeRefused(
            f"{where} can't join: its database has a {taken[0]} of its own",
            hint="name an empty database; rows come with pgherd load, or rename what is there",
        )


async def _check_ways(engine: Engine, theirs: Connection, given: dict[str, str], tls: Tls | None, where: str) -> None:
    """Every member and the candidate must reach each other, as links do.

    Asked with a role that is not there and no password: a server that says so has been reached.
    """
    for group in engine.topology.groups:
        async with engine.connection(group.name) as member:
            with talking_to(group.name, f"looking for {where}"):
                reason = await _unreachable(
                    member, "pgherd.dblink_connect", given["host"], given["port"], of_link(tls, group.primary.tls)
                )
        if reason:
            raise GroupUnavailable(
                f"group {group.name} can't reach {where}: {reason}",
                hint="links between servers use the address of --dsn: name one that all servers reach",
            )
    with suppress(_Undone):
        async with theirs.transaction():
            await theirs.execute("CREATE SCHEMA pgherd_probe")
            await theirs.execute(
                "CREATE EXTENSION IF NOT EXISTS dblink SCHEMA pgherd_probe"
                if (await _row(theirs, "SELECT count(*) FROM pg_extension WHERE extname = 'dblink'"))[0] == 0
                else "SELECT 1"
            )
            (schema,) = await _row(
                theirs,
                "SELECT quote_ident(extnamespace::regnamespace::text) FROM pg_extension WHERE extname = 'dblink'",
            )
            for group in engine.topology.groups:
                node = group.primary
                way = of_link(node.tls, tls)
                reason = await _unreachable(theirs, f"{schema}.dblink_connect", node.host, str(node.port), way)
                if reason:
                    raise GroupUnavailable(
                        f"{where} can't reach group {group.name} at {node.host}:{node.port}: {reason}",
                        hint="the addresses in herd.toml must be ones that all servers reach",
                    )
            raise _Undone


class _Undone(Exception):
    """Ends a transaction that was only to look."""


async def _unreachable(connection: Connection, connect: str, host: str, port: str, tls: Tls | None) -> str | None:
    """Why a server can't reach another; None if the other one answered, if only to say that it knows no such role."""
    login: dict[str, Any] = {
        "dbname": "postgres",
        "user": "pgherd_probe",
        "password": "none",
        "connect_timeout": TIMEOUT_S,
    }
    target = make_conninfo("", host=host, port=port, **login, **(tls.parameters() if tls else {}))
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT {connect}('pgherd_probe', %s)", [target])
    except psycopg.Error as error:
        if connection.closed:
            raise
        said = (error.diag.message_detail or error.diag.message_primary or "no answer").strip()
        return None if "password authentication failed" in said or '"pgherd_probe" does not exist' in said else said
    return None
