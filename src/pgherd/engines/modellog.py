"""Notes every call of a remote model in the region it is made in, before it is made: ``pgherd.model_log``."""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import Any

import psycopg

from ..embedding.regional import Call
from ..errors import UnknownName
from .base import Engine
from .failures import talking_to

_NOTE = "SELECT pgherd.log_model(%s, %s, %s, %s, %s, %s, %s)"


class ModelLog:
    """One connection a group, opened when it is first needed; usable from several threads.

    ``login``: user and password, where the herd's connections are of a role that may not write.
    """

    def __init__(self, engine: Engine, login: dict[str, Any] | None = None) -> None:
        self._engine, self._login = engine, login
        self._lock = Lock()
        self._open: dict[str, psycopg.Connection[Any]] = {}

    def note(self, call: Call) -> None:
        """Note a call in a group of its region; in the first group, where the endpoint has none.

        Raises GroupUnavailable, ServerRefused: then the call must not be made.
        """
        values = (call.region, call.endpoint, call.model, call.table, call.purpose, call.texts, call.bytes)
        group = self._group(call.region)
        with self._lock, talking_to(group, "noting a call of a model"):
            try:
                self._connection(group).execute(_NOTE, values)
            except psycopg.OperationalError:  # it was idle for long, or its server is another now
                self._open.pop(group).close()
                self._connection(group).execute(_NOTE, values)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._open.values():
            with suppress(psycopg.Error):
                connection.close()
        self._open.clear()

    def _group(self, region: str | None) -> str:
        groups = self._engine.topology.groups
        if region is not None:
            with suppress(UnknownName):
                groups = self._engine.topology.groups_of(region)
        return groups[0].name

    def _connection(self, group: str) -> psycopg.Connection[Any]:
        if group not in self._open:
            if self._login is None:
                self._open[group] = self._engine.connect_now(group)
            else:
                self._open[group] = psycopg.connect(**{**self._engine.conninfo(group), **self._login}, autocommit=True)
        return self._open[group]
