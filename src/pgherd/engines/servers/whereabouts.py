"""Which node of a group is its primary now, found out by connecting to it. Nothing stored says so.

The node that was primary last is tried first; if it does not answer at once, all are asked at the same time, each again
and again, and the first that is not in recovery is taken. A server says with its greeting whether it is
(``in_hot_standby``, PostgreSQL 14), so this costs no question. A frozen server accepts connections and then says
nothing: nobody waits for it alone.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
from psycopg import AsyncConnection

from ...local import passfile
from ...model.tls import HERD_CA
from ...model.topology import Group, Node
from ..base import Connection
from ..failures import is_untrusted

CONNECT_TIMEOUT_S = 5
HEAD_START_S = 0.25
"""How long the primary that was known last is waited for before the others are asked as well."""
FIND_TIMEOUT_S = 5.0
"""How long a group may be without a primary before a call is told that it is unavailable."""
_AGAIN_S = 0.1
"""How soon a node that refused, or said that it is a standby, is asked again; no node waits for another's answer."""
_ALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}
"""A server whose machine is gone is noticed after six seconds, not after the operating system's two hours."""
SyncConnection = psycopg.Connection[Any]


class Whereabouts:
    """Where groups answer. ``base`` holds the libpq parameters that all share (user, dbname, passfile …)."""

    def __init__(self, base: dict[str, Any], groups: tuple[Group, ...]) -> None:
        self._base = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "pgherd", **_ALIVE, **base}
        self._groups: dict[str, Group] = {g.name: g for g in groups}
        self._last: dict[str, Node] = {}

    @property
    def groups(self) -> dict[str, Group]:
        """The groups by name."""
        return dict(self._groups)

    def set_groups(self, groups: tuple[Group, ...]) -> None:
        """Follow a changed topology."""
        self._groups = {g.name: g for g in groups}

    def conninfo(self, group: str) -> dict[str, Any]:
        """The libpq parameters of the node that was the group's primary when it was last asked."""
        return self.conninfo_of(self._candidates(group)[0])

    def conninfo_of(self, node: Node) -> dict[str, Any]:
        """The libpq parameters that reach one node."""
        found = {**self._base, **self._tls(node), "host": node.host, "port": node.port}
        if "passfile" in found:
            # Given outright, or a PGPASSWORD in the environment would be used instead of the file.
            path, user = Path(found["passfile"]), found.get("user", "")
            found["password"] = passfile.lookup(path, node.host, node.port, found.get("dbname", ""), user)
        return found

    def _tls(self, node: Node) -> dict[str, str | None]:
        """How the topology says that a node is reached; what the DSN of whoever opened the herd says comes first.

        Who has the herd's CA (``sslrootcert`` in the base) verifies with it; the path in the topology is the servers'.
        """
        tls = node.tls
        if tls is None or "sslmode" in self._base:
            return {}
        if tls.sslrootcert == HERD_CA:
            return {"sslmode": tls.sslmode.value} if "sslrootcert" in self._base else {}
        return {"sslrootcert": None, **tls.parameters()}

    def _candidates(self, group: str) -> list[Node]:
        """The group's nodes, the likeliest primary first."""
        known = self._group(group)
        first = self._last.get(group)
        if first not in known.nodes or first is None:
            first = known.primary
        return [first, *(n for n in known.nodes if n != first)]

    def _node(self, group: str, name: str) -> Node:
        found = next((n for n in self._group(group).nodes if n.name == name), None)
        if found is None:
            raise psycopg.OperationalError(f"node {name} has left group {group}")
        return found

    def _group(self, name: str) -> Group:
        """Whoever goes by an older topology may ask for a group that has left: it can't be reached."""
        found = self._groups.get(name)
        if found is None:
            raise psycopg.OperationalError(f"group {name} has left the herd")
        return found

    async def connect(self, group: str, node: str | None = None, **options: Any) -> Connection:
        """A new connection to the group's primary, or to ``node`` whatever it is.

        psycopg.OperationalError when there is none within the time.
        """
        nodes = [self._node(group, node)] if node else self._candidates(group)
        if len(nodes) == 1:
            return await AsyncConnection.connect(**{**self.conninfo_of(nodes[0]), **options})
        others, failures = asyncio.Event(), [_no_primary(group)]

        async def ask(node: Node) -> tuple[Node, Connection]:
            if node is not nodes[0]:
                with suppress(TimeoutError):
                    await asyncio.wait_for(others.wait(), HEAD_START_S)
            while True:
                try:
                    connection = await AsyncConnection.connect(**{**self.conninfo_of(node), **options})
                except psycopg.OperationalError as error:
                    failures.append(error)
                else:
                    if not in_recovery(connection):
                        return node, connection
                    await connection.close()
                others.set()
                await asyncio.sleep(_AGAIN_S)

        asked = [asyncio.ensure_future(ask(n)) for n in nodes]
        taken: Connection | None = None
        try:
            done, _ = await asyncio.wait(asked, timeout=FIND_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise _telling(failures)
            self._last[group], taken = done.pop().result()
            return taken
        finally:
            for task in asked:
                task.cancel()
            for result in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(result, tuple) and result[1] is not taken:
                    await result[1].close()

    def connect_now(self, group: str, node: str | None = None, **options: Any) -> SyncConnection:
        """As :meth:`connect`, waiting in the caller's thread."""
        nodes = [self._node(group, node)] if node else self._candidates(group)
        if len(nodes) == 1:
            return psycopg.Connection.connect(**{**self.conninfo_of(nodes[0]), **options})
        others, over, failures = threading.Event(), threading.Event(), [_no_primary(group)]
        first, found = threading.Lock(), SimpleQueue[tuple[Node, SyncConnection] | BaseException]()

        def ask(node: Node) -> None:
            if node is not nodes[0]:
                others.wait(HEAD_START_S)
            while not over.is_set():
                try:
                    connection = psycopg.Connection.connect(**{**self.conninfo_of(node), **options})
                except psycopg.OperationalError as error:
                    failures.append(error)
                except BaseException as error:  # noqa: BLE001 - raised below, by the thread that asked
                    found.put(error)
                    return
                else:
                    if not in_recovery(connection) and first.acquire(blocking=False):
                        found.put((node, connection))
                        return
                    connection.close()
                others.set()
                over.wait(_AGAIN_S)

        for n in nodes:
            threading.Thread(target=ask, args=(n,), name="pgherd-connect", daemon=True).start()
        try:
            answer = found.get(timeout=FIND_TIMEOUT_S)
        except Empty:
            if first.acquire(blocking=False):  # from now on whoever comes is too late
                raise _telling(failures) from None
            answer = found.get()
        finally:
            over.set()
            others.set()
        if isinstance(answer, BaseException):
            raise answer
        self._last[group], connection = answer
        return connection


def in_recovery(connection: psycopg.BaseConnection[Any]) -> bool:
    """Whether the server at the other end is a standby, as it said last."""
    return connection.pgconn.parameter_status(b"in_hot_standby") == b"on"


def _telling(failures: list[psycopg.OperationalError]) -> psycopg.OperationalError:
    """The failure that says most: who is not trusted is what somebody has to know, else what was heard last."""
    return next((f for f in failures if is_untrusted(f)), failures[-1])


def _no_primary(group: str) -> psycopg.OperationalError:
    return psycopg.OperationalError(f"no node of group {group} is a primary")
