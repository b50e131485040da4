"""Reading facts: every node at once, every database of it, in sessions that can only read.

What a role may not see is told with the server's words, never left out. Values of rows are not read here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ..engines.servers.whereabouts import Whereabouts
from ..model.topology import Group, Node
from .world import Facts, Row, Seen

SERVER = (
    "settings", "file_settings", "role_settings", "databases", "archive", "replication", "slots", "receiver",
    "subscriptions", "roles", "directories", "temporary", "prepared", "workers", "login_rules", "stray_files",
)  # fmt: skip
DATABASE = (
    "relations", "foreign_servers", "foreign_tables", "publications", "statistics", "functions", "extensions", "grants",
    "derived", "columns", "orphans",
)  # fmt: skip
HERD = ("moving", "readers", "access_log", "model_log", "files", "guard")
STATEMENT_TIMEOUT_S = 30
PATIENCE_S = 300.0
"""How long the facts of one server or database may take; a frozen server never answers."""
AT_ONCE = 12
"""Sessions at a time."""
KEPT = 32
"""Sessions that are kept for their next use."""
Session = AsyncConnection[Row]


@cache
def script(name: str) -> str:
    """The text of ``audit/sql/<name>.sql``."""
    return files("pgherd.audit").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@cache
def title(name: str) -> str:
    """What a script looks at: its first line."""
    if name == "symlinks":
        return "symbolic links in the data directory"
    return script(name).partition("\n")[0].removeprefix("-- ")


class Reader:
    """Opens sessions on the herd's nodes, not too many at a time, and keeps some until it is closed."""

    def __init__(self, whereabouts: Whereabouts, dbname: str) -> None:
        self._whereabouts = whereabouts
        self.dbname = dbname
        self._free = asyncio.Semaphore(AT_ONCE)
        self._kept: dict[tuple[str, str], Session] = {}

    async def close(self) -> None:
        """End the sessions that were kept."""
        for session in self._kept.values():
            await session.close()
        self._kept.clear()

    @asynccontextmanager
    async def session(self, node: Node, dbname: str | None = None) -> AsyncIterator[Session]:
        """A read-only session on one database of a node."""
        key = node.name, dbname or self.dbname
        async with self._free:
            session = self._kept.pop(key, None)
            if session is None or session.closed:
                session = await self._connect(node, dbname)
            try:
                yield session
            finally:
                if session.closed or key in self._kept or len(self._kept) >= KEPT:
                    await session.close()
                else:
                    self._kept[key] = session

    async def _connect(self, node: Node, dbname: str | None) -> Session:
        parameters: dict[str, Any] = {**self._whereabouts.conninfo_of(node), "dbname": dbname or self.dbname}
        parameters |= {"application_name": "pgherd audit", "target_session_attrs": "any"}
        session = await AsyncConnection.connect(
            **parameters, autocommit=True, prepare_threshold=None, row_factory=dict_row
        )
        try:
            for name, value in (
                ("default_transaction_read_only", "on"),
                ("statement_timeout", f"{STATEMENT_TIMEOUT_S}s"),
                ("lock_timeout", "2s"),
                ("search_path", "pg_catalog"),
                ("row_security", "off"),  # an error where policies would hide rows, instead of silence
            ):
                await session.execute("SELECT set_config(%s, %s, false)", [name, value])
        except BaseException:
            await session.close()
            raise
        return session

    async def see(self, group: Group, node: Node) -> Seen:
        """A node with the facts of its server, and of its databases if it is a primary."""
        seen = Seen(group, node)
        try:
            async with self.session(node) as session, asyncio.timeout(PATIENCE_S):
                row = await (await session.execute("SELECT pg_is_in_recovery() AS standby")).fetchone()
                seen.standby = bool(row and row["standby"])
                await _read(session, SERVER, seen.facts)
        except (psycopg.Error, TimeoutError) as error:
            seen.why_down = said(error)
            return seen
        if not seen.standby:
            await self.read_databases(seen)
        return seen

    async def read_databases(self, seen: Seen) -> None:
        """The facts of every database of a node that takes connections."""
        names = [r["name"] for r in seen.facts["databases"] if r["open"]]
        read = await asyncio.gather(*(self._database(seen.node, name) for name in names))
        seen.databases = dict(zip(names, read, strict=True))

    async def _database(self, node: Node, name: str) -> Facts:
        facts = Facts()
        try:
            async with self.session(node, name) as session, asyncio.timeout(PATIENCE_S):
                await _read(session, DATABASE, facts)
                if name == self.dbname:
                    await _read(session, HERD, facts)
        except (psycopg.Error, TimeoutError) as error:
            facts.failed["all"] = said(error)
        return facts


async def _read(session: Session, names: Iterable[str], facts: Facts) -> None:
    for name in names:
        try:
            cursor = await session.execute(script(name).encode())
            facts.rows[name] = await cursor.fetchall()
        except psycopg.Error as error:
            if session.closed:
                raise
            if error.sqlstate in ("42P01", "42883", "3F000") and name in HERD:  # a herd of an engine without
                facts.rows[name] = []
            else:
                facts.failed[name] = said(error)


def said(error: psycopg.Error | TimeoutError) -> str:
    """Why a server did not answer; without DETAIL, which quotes rows, and what libpq says of the connection."""
    if isinstance(error, TimeoutError):
        return f"it did not answer within {PATIENCE_S:.0f} s"
    if error.diag.message_primary:
        return error.diag.message_primary
    if error.sqlstate is None:
        text = str(error).strip().splitlines()
        fatal = next((line.partition("FATAL:")[2].strip() for line in text if "FATAL:" in line), None)
        return fatal or "it does not answer"
    return type(error).__name__


def read_symlinks(facts: Facts, data: Path) -> None:
    """Links in a data directory on this machine that lead out of it; not PostgreSQL's own tablespaces."""
    found: list[Row] = []
    try:
        paths = [p for p in (*data.iterdir(), *(data / "base").iterdir()) if p.is_symlink()]
        out = [p for p in paths if not p.resolve().is_relative_to(data.resolve())]
        found = [{"link": str(p.relative_to(data)), "target": str(p.resolve())} for p in out]
    except OSError as error:
        facts.failed["symlinks"] = error.strerror or str(error)
    facts.rows["symlinks"] = found


def addresses_of(hosts: Iterable[str]) -> dict[str, frozenset[str]]:
    """The addresses behind host names; none for a name that is not known here."""
    found = {}
    for host in set(hosts):
        try:
            found[host] = frozenset(str(info[4][0]) for info in socket.getaddrinfo(host, None))
        except OSError:
            found[host] = frozenset()
    return found
