"""Whether a node answers: asked again and again by a thread of its own.

A frozen server accepts connections and then says nothing, and a machine that is cut off says nothing at all. So nobody
waits for one question before the next is asked: questions overlap, and an answer to any of them is an answer.
"""

from __future__ import annotations

import math
import select
import threading
import time
from http.client import HTTPException
from typing import Protocol

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from ..local.machine import WatchedNode
from .rest import Rest

PATIENCE_S = 3.0
"""How long a question may take to be answered; then it is given up, and another is open long since."""
_OVER = -1
"""In the place of a socket: it has failed already."""


class Pulse(threading.Thread):
    """Asks one node while ``wanted``, every ``interval_s``.

    ``silent_s`` and ``probes`` say for how long, and how many questions in a row, it has not answered; a question that
    was not answered by the time of the next counts. An answer of ``rest``, Patroni's REST API, counts as well.
    """

    def __init__(self, node: WatchedNode, user: str, password: str, *, rest: Rest | None, interval_s: float) -> None:
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
        self._open: list[_Question] = []
        self._kept: _Sql | None = None

    def run(self) -> None:
        """Ask for ever."""
        failing_since = 0.0
        while True:
            if not self.wanted.is_set():
                self._give_up(math.inf)
                self.forget()
                self.wanted.wait()
            began = time.monotonic()
            self._open.append(self._sql(began))
            # Patroni is asked when the server has not answered at once.
            answers = self._await(began + (self._interval_s / 4 if self._rest and not self.probes else 0))
            if self._rest and not answers:
                self._open.append(_Rest(self._rest))
            answers = answers or self._await(began + self._interval_s)
            now = time.monotonic()
            if answers:
                self.silent_s, self.probes, self.answered = 0.0, 0, True
            else:
                failing_since = failing_since if self.probes else began
                self.silent_s, self.probes = now - failing_since, self.probes + 1
            self._give_up(now if answers else now - PATIENCE_S)
            time.sleep(max(0.0, began + self._interval_s - now))

    def forget(self) -> None:
        """Begin anew: it is another server now, or nobody asks."""
        self.silent_s, self.probes, self.answered = 0.0, 0, False

    def _sql(self, now: float) -> _Question:
        """A question over the connection that is kept, or where that has not answered, over a new one."""
        kept, self._kept = self._kept, None
        return kept if kept is not None and kept.again(now) else _Sql(self._conninfo, now)

    def _await(self, deadline: float) -> bool:
        """Wait until anything that was asked is answered; whether it was by ``deadline``."""
        while True:
            waiting = select.poll()
            ready = {_OVER}
            for question in self._open:
                if question.socket != _OVER:
                    waiting.register(question.socket, question.event)
            ready |= {fd for fd, _ in waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            if any(self._look(question) for question in [q for q in self._open if q.socket in ready]):
                return True
            if time.monotonic() >= deadline:
                return False

    def _look(self, question: _Question) -> bool:
        """See how far a question is; whether it was answered."""
        answered = question.step()
        if answered is not None:
            self._open.remove(question)
            if answered and isinstance(question, _Sql) and question.is_good:
                self._kept = question
            else:
                question.close()
        return bool(answered)

    def _give_up(self, before: float) -> None:
        """Close what was asked before a time and is open still."""
        for question in [q for q in self._open if q.asked < before]:
            self._open.remove(question)
            question.close()


class _Question(Protocol):
    """One question under way: :meth:`step` says whether it was answered, None while it may be yet."""

    asked: float

    @property
    def socket(self) -> int: ...
    @property
    def event(self) -> int: ...
    def step(self) -> bool | None: ...
    def close(self) -> None: ...


class _Sql:
    """``SELECT 1``, over a connection of its own."""

    def __init__(self, conninfo: bytes, now: float) -> None:
        self.asked = now
        self.event = select.POLLOUT
        self._connection: PGconn = pq.PGconn.connect_start(conninfo)
        self._connected = self._sent = False

    @property
    def socket(self) -> int:
        return _OVER if self._connection.status == pq.ConnStatus.BAD else self._connection.socket

    @property
    def is_good(self) -> bool:
        return bool(self._connection.status == pq.ConnStatus.OK)

    def again(self, now: float) -> bool:
        """Ask once more over the same connection; whether that is possible."""
        self.asked, self.event, self._sent = now, select.POLLOUT, False
        if self.is_good:
            return True
        self.close()
        return False

    def step(self) -> bool | None:
        connection = self._connection
        try:
            if not self._connected:
                gone = connection.status == pq.ConnStatus.BAD
                status = pq.PollingStatus.FAILED if gone else pq.PollingStatus(connection.connect_poll())
                if status == pq.PollingStatus.FAILED:
                    return b"FATAL:" in connection.error_message  # a server that refuses a login is alive
                self.event = select.POLLOUT if status == pq.PollingStatus.WRITING else select.POLLIN
                self._connected = status == pq.PollingStatus.OK
                if not self._connected:
                    return None
            if not self._sent:
                connection.send_query(b"SELECT 1")
                self.event, self._sent = select.POLLIN, True
            else:
                connection.consume_input()
            if connection.is_busy():
                return None
            while connection.get_result() is not None:
                pass
        except (OSError, psycopg.Error):
            return False
        return True

    def close(self) -> None:
        self._connection.finish()


class _Rest:
    """Patroni's liveness; whatever comes back is an answer, a complaint of a certificate as well."""

    def __init__(self, api: Rest) -> None:
        self._exchange = api.liveness()
        self.asked = self._exchange.asked

    @property
    def socket(self) -> int:
        return self._exchange.socket

    @property
    def event(self) -> int:
        return self._exchange.event

    def step(self) -> bool | None:
        try:
            answer = self._exchange.step()
        except (OSError, HTTPException):
            return self._exchange.heard
        return True if answer is not None or self._exchange.heard else None

    def close(self) -> None:
        self._exchange.close()
