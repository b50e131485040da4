"""The reader of a region: made in the herd, its passwords kept in a file of this home."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..client import AsyncHerd
from ..engines.base import Connection
from ..engines.failures import talking_to
from ..errors import UnknownName, UnsafeSetting
from ..herdfile import write_atomically
from ..local.passfile import entry, lookup, new_password
from ..model.names import MAX_IDENTIFIER_BYTES
from ..model.topology import Reader
from ..planning.readers import plan_reader
from ..secretfile import read_secret


@dataclass(frozen=True, slots=True)
class Login:
    """The passwords of a region's two roles; in a libpq password file."""

    reader: str
    scribe: str


def role_names(region: str, dbname: str) -> tuple[str, str]:
    """Names of the reader and its scribe. Herds may share servers and so roles; hence the database's name in them."""
    return _name("pgherd_reader", region, dbname), _name("pgherd_scribe", region, dbname)


def _name(kind: str, region: str, dbname: str) -> str:
    name = f"{kind}_{region}_{dbname}"
    if len(name.encode()) <= MAX_IDENTIFIER_BYTES:
        return name
    return f"{kind}_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def login_file(home: Path, region: str) -> Path:
    """Where the passwords of a region's roles are."""
    return home / f"reader-{quote(region, safe='')}.pgpass"


def read_login(home: Path, region: str, dbname: str) -> Login:
    """The region's passwords. Raises UnknownName without the file, UnsafeSetting when others can read it."""
    path = login_file(home, region)
    if not path.exists():
        raise UnknownName(
            f"region {region} has no reader that this home knows the password of",
            hint=f"make one: pgherd reader ensure --region {region} --tables A,B (or --all-tables)",
        )
    read_secret(path, "the reader's password file")
    found = [lookup(path, "*", 0, dbname, role) for role in role_names(region, dbname)]
    if found[0] is None or found[1] is None:
        raise UnsafeSetting(
            f"{path} does not hold the reader's passwords", hint="remove it, and run pgherd reader ensure"
        )
    return Login(found[0], found[1])


async def ensure_reader(herd: AsyncHerd, home: Path, dbname: str, region: str, tables: Sequence[str] | None) -> Reader:
    """Make the region's reader, or change what it may read: these ``tables``, or all (None).

    The passwords in this home are used, and drawn where there are none. Raises UnknownName, and UnsafeSetting when
    the role could do more than read those tables.
    """
    topology = await herd.engine.refresh()
    where = topology.groups_of(region)
    names = None if tables is None else tuple(topology.table(t).name for t in tables)
    reader = Reader(region, *role_names(region, dbname), names)
    path = login_file(home, region)
    if not path.exists():
        lines = (entry("*", "*", dbname, role, new_password()) for role in (reader.role, reader.scribe))
        write_atomically(path, "".join(lines), mode=0o600)
    login = read_login(home, region, dbname)
    await herd.execute(plan_reader(topology, reader, login.reader, login.scribe))
    for group in where:
        async with herd.engine.connection(group.name) as connection:
            await refuse_findings(connection, group.name, reader)
    return reader


async def refuse_findings(connection: Connection, group: str, reader: Reader) -> None:
    """Raise UnsafeSetting if the role could do more than it was given, mostly by what PUBLIC was granted."""
    with talking_to(group, "checking the reader's rights"):
        done = await connection.execute("SELECT kind, object FROM pgherd.reader_findings(%s) LIMIT 20", [reader.role])
        found = [f"{kind} {what}" for kind, what in await done.fetchall()]
    if found:
        raise UnsafeSetting(
            f"on group {group} the reader of {reader.region} {', '.join(found)}",
            hint=f"revoke it, mostly from PUBLIC: every role may do what PUBLIC may, {reader.role} too",
        )
