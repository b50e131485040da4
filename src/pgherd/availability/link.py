"""A connection that is never waited for longer than its caller wants: a drill's clients sit at broken lines.

A server that is frozen, or cut off, keeps its connections open and says nothing; a driver's own calls would wait.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq

_OK = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_GOING = ("08", "57P", "XX", "58")
"""SQLSTATE classes of servers that go down or can't go on: what they were told may have happened."""


class Refused(Exception):
    """The server said no, and nothing has happened."""


class Gone(Exception):
    """No answer, or none that settles it: what was asked may have happened."""


class Link:
    """One session, in autocommit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._warned = False
        self.node = f"{connection.info.host}:{connection.info.port}"
        """who is at the other end"""
        connection.add_notice_handler(self._notice)

    def ask(self, statement: str, values: Sequence[Any], timeout_s: float) -> list[tuple[str | None, ...]]:
        """Rows in text form. Raises Refused, Gone; after Gone the link is closed.

        A commit whose wait for its standby was cancelled is reported as a success with a warning: that is Gone.
        """
        deadline = time.monotonic() + timeout_s
        self._warned = False
        try:
            result = self._result(statement, values, deadline)
        except psycopg.OperationalError as error:
            self.close()
            raise Gone(str(error)) from error
        if result.status not in _OK:
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"XX000").decode()
            text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
            if state.startswith(_GOING) or self._connection.pgconn.status != pq.ConnStatus.OK:
                self.close()
                raise Gone(text)
            raise Refused(text)
        if self._warned:
            self.close()
            raise Gone("acknowledged with a warning")
        return [tuple(_text(result, r, c) for c in range(result.nfields)) for r in range(result.ntuples)]

    def _result(self, statement: str, values: Sequence[Any], deadline: float) -> pq.abc.PGresult:
        pgconn = self._connection.pgconn
        given = [None if v is None else str(v).encode() for v in values]
        pgconn.send_query_params(statement.encode(), given)
        while pgconn.flush():
            self._wait(deadline, writing=True)
        last: pq.abc.PGresult | None = None
        while True:
            while pgconn.is_busy():
                self._wait(deadline)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            last = result
        if last is None:
            raise psycopg.OperationalError("the server closed the connection")
        return last

    def _wait(self, deadline: float, *, writing: bool = False) -> None:
        left = deadline - time.monotonic()
        socket = self._connection.pgconn.socket
        if left <= 0 or not any(select.select([socket], [socket] if writing else [], [], left)):
            raise psycopg.OperationalError("no answer in time")

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self._warned = self._warned or diagnostic.severity_nonlocalized == "WARNING"

    def close(self) -> None:
        """End the session without a word to the server, which may not be listening."""
        self._connection.close()


def _text(result: pq.abc.PGresult, row: int, column: int) -> str | None:
    value = result.get_value(row, column)
    return None if value is None else value.decode()
