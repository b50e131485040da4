"""Whether a node answers: asked again and again by a thread of its own, over a connection that is kept.

A frozen server accepts connections and then says nothing, so every step has a limit of its own.
"""

from __future__ import annotations

import select
import threading
import time
from http.client import HTTPConnection, HTTPException

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from ..local.machine import WatchedNode

PROBE_TIMEOUT_S = 1.0
_FAILED = (pq.PollingStatus.FAILED, pq.PollingStatus.OK)


class Pulse(threading.Thread):
    """Asks one node while ``wanted``. ``silent_s`` and ``probes`` say how long, and how often, it has not answered.

    With ``rest``, an answer of Patroni's REST API counts as well.
    """

    def __init__(self, node: WatchedNode, user: str, password: str, *, rest: bool, interval_s: float) -> None:
        super().__init__(name=f"pulse-{node.name}", daemon=True)
        self.node = node
        self.wanted = threading.Event()
        self.silent_s = 0.0
        self.probes = 0
        self.answered = False
        self._conninfo = make_conninfo(
            host=node.host,
            port=node.port,
            dbname="postgres",
            user=user,
            password=password,
            sslmode="prefer",  # whether it answers is all that is asked: an expired certificate must not get it fenced
            sslrootcert="/nonexistent",  # nor one of this machine's user
            application_name="pgherd_watcher",
        ).encode()
        self._rest = rest
        self._interval_s = interval_s
        self._connection: PGconn | None = None
        self._failing_since = 0.0

    def run(self) -> None:
        """Ask for ever."""
        while True:
            if not self.wanted.is_set():
                self.forget()
                self.wanted.wait()
            began = time.monotonic()
            answers = self._sql() or (self._rest and self._http())
            now = time.monotonic()
            if answers:
                self.silent_s, self.probes, self.answered = 0.0, 0, True
            else:
                self._failing_since = self._failing_since if self.probes else began
                self.silent_s, self.probes = now - self._failing_since, self.probes + 1
            time.sleep(max(0.0, (self._interval_s if answers else self._interval_s / 2) - (now - began)))

    def forget(self) -> None:
        """Begin anew: it is another server now, or nobody asks."""
        self.silent_s, self.probes, self.answered = 0.0, 0, False

    def _sql(self) -> bool:
        deadline = time.monotonic() + PROBE_TIMEOUT_S
        connection = self._connection
        if connection is None or connection.status != pq.ConnStatus.OK:
            connection = self._connection = pq.PGconn.connect_start(self._conninfo)
            if not self._connected(connection, deadline):
                # A server that refuses a login is alive.
                refused = b"FATAL:" in connection.error_message
                connection.finish()
                self._connection = None
                return refused
        try:
            connection.send_query(b"SELECT 1")
            while connection.is_busy():
                if not _wait(connection.socket, select.POLLIN, deadline):
                    raise OSError("no answer")
                connection.consume_input()
            while connection.get_result() is not None:
                pass
        except (OSError, psycopg.Error):
            connection.finish()
            self._connection = None
            return False
        return True

    @staticmethod
    def _connected(connection: PGconn, deadline: float) -> bool:
        while connection.status != pq.ConnStatus.BAD:
            status = connection.connect_poll()
            if status in _FAILED:
                return status == pq.PollingStatus.OK
            event = select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT
            if not _wait(connection.socket, event, deadline):
                return False
        return False

    def _http(self) -> bool:
        connection = HTTPConnection(self.node.host, self.node.rest_port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/liveness")
            connection.getresponse()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
        return True


def _wait(socket: int, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(socket, event)
    return bool(poll.poll(max(0, (deadline - time.monotonic()) * 1000)))
