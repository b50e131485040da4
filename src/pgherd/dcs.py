"""The store that groups with replicas elect their primary through: etcd 3, over its JSON gateway.

Values are read and changed in transactions that say what must still hold; whoever deletes a key says whose it must be.
Source: etcd 3.5 documentation, "gRPC gateway" and "API reference"; the keys are Patroni's, of its namespace.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

from .errors import StoreUnavailable

NAMESPACE = "/pgherd/"
TIMEOUT_S = 1.0
Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value; ``revision`` is the one it was last changed at, ``created`` the one it was made at."""

    key: str
    value: str
    revision: int
    created: int
    lease: int = 0


class Store:
    """A client for threads: one connection each, to the first endpoint that answers. Keeps no state but a token."""

    def __init__(
        self, endpoints: Sequence[Endpoint], user: str, password: str, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._endpoints = list(endpoints)
        self._login = {"name": user, "password": password}
        self._timeout_s = timeout_s
        self._token: str | None = None
        self._local = threading.local()

    def get(self, key: str) -> Entry | None:
        """The entry under ``key``, as a majority knows it."""
        found = self._call("/v3/kv/range", {"key": _text(key)}).get("kvs", ())
        return _entry(found[0]) if found else None

    def under(self, prefix: str) -> list[Entry]:
        """All entries whose keys begin with ``prefix``."""
        found = self._call("/v3/kv/range", {"key": _text(prefix), "range_end": _text(_after(prefix))})
        return [_entry(e) for e in found.get("kvs", ())]

    def put(self, key: str, value: str, *, lease: int = 0) -> None:
        """Write an entry."""
        self._call("/v3/kv/put", {"key": _text(key), "value": _text(value), "lease": str(lease)})

    def delete(self, key: str) -> None:
        """Remove an entry, whatever it says."""
        self._call("/v3/kv/deleterange", {"key": _text(key)})

    def delete_if(self, entry: Entry, present: Sequence[str] = ()) -> bool:
        """Remove ``entry`` if it is still what was read, value and revision, and all keys in ``present`` are there."""
        compare: list[dict[str, Any]] = [
            {"key": _text(entry.key), "target": "VALUE", "result": "EQUAL", "value": _text(entry.value)},
            {"key": _text(entry.key), "target": "MOD", "result": "EQUAL", "mod_revision": str(entry.revision)},
            *({"key": _text(k), "target": "VERSION", "result": "GREATER", "version": "0"} for k in present),
        ]
        change = [{"request_delete_range": {"key": _text(entry.key)}}]
        return bool(self._call("/v3/kv/txn", {"compare": compare, "success": change}).get("succeeded"))

    def grant(self, ttl_s: int) -> int:
        """A lease: what is put with it is gone ``ttl_s`` after the last :meth:`keep`."""
        return int(self._call("/v3/lease/grant", {"TTL": str(ttl_s)})["ID"])

    def keep(self, lease: int) -> bool:
        """Renew a lease; whether it is still there."""
        answer = self._call("/v3/lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def secure(self) -> None:
        """Let nobody in without the password; done once in the life of a store, a no-op from then on."""
        try:
            self._authenticate()
        except _NotEnabled:
            for path, body in (
                ("user/add", self._login),
                ("user/grant", {"user": self._login["name"], "role": "root"}),
                ("enable", {}),
            ):
                try:
                    self._post(f"/v3/auth/{path}", body)
                except _Refused as error:
                    if "already" not in str(error):
                        raise
            self._authenticate()

    def close(self) -> None:
        """Close the calling thread's connection."""
        if getattr(self._local, "connection", None) is not None:
            self._local.connection.close()
            self._local.connection = None

    def _authenticate(self) -> None:
        self._token = None
        self._token = str(self._post("/v3/auth/authenticate", self._login)["token"])

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self._token is None:
            self._authenticate()
        try:
            return self._post(path, body)
        except _Refused as error:
            if "token" not in str(error) and "revision" not in str(error):
                raise
        self._authenticate()
        return self._post(path, body)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        failure: Exception | None = None
        for _ in self._endpoints:
            connection = self._connection()
            try:
                connection.request(
                    "POST", path, json.dumps(body), {"Authorization": self._token} if self._token else {}
                )
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, HTTPException, ValueError) as error:
                failure = error
                self._next()
                continue
            if response.status == 200:
                return answer  # type: ignore[no-any-return]
            said = str(answer.get("message") or answer.get("error"))
            if "not enabled" in said:
                raise _NotEnabled(said)
            if response.status < 500:
                raise _Refused(f"etcd refused: {said}")
            failure = StoreUnavailable(said)
            self._next()
        raise StoreUnavailable(
            "etcd does not answer, or has no majority", hint="pgherd up starts it again; writes go on meanwhile"
        ) from failure

    def _connection(self) -> HTTPConnection:
        found: HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host, port = self._endpoints[getattr(self._local, "index", 0) % len(self._endpoints)]
            found = self._local.connection = HTTPConnection(host, port, timeout=self._timeout_s)
        return found

    def _next(self) -> None:
        """Turn to the next endpoint, with a connection of its own."""
        self._connection().close()
        self._local.connection = None
        self._local.index = getattr(self._local, "index", 0) + 1


class _Refused(StoreUnavailable):
    pass


class _NotEnabled(_Refused):
    pass


def _text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _entry(found: dict[str, str]) -> Entry:
    key, value = (base64.b64decode(found.get(k, "")).decode() for k in ("key", "value"))
    return Entry(key, value, int(found["mod_revision"]), int(found["create_revision"]), int(found.get("lease", 0)))


def _after(prefix: str) -> str:
    """The first key that does not begin with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
