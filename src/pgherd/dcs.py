"""The store that groups with replicas elect their primary through: etcd 3, over its JSON gateway.

Values are read and changed in transactions that say what must still hold; whoever deletes a key says whose it must be.
Source: etcd 3.5 documentation, "gRPC gateway" and "API reference"; the keys are Patroni's, of its namespace.
"""

from __future__ import annotations

import base64
import json
import select
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from . import exchange
from .errors import StoreUnavailable
from .exchange import Exchange, Identity

NAMESPACE = "/pgherd/"
TIMEOUT_S = 1.0
HEDGE_S = 0.2
"""How long a member may be silent before the next is asked as well: one that has lost its leader is, for seconds."""
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
    """A client for threads: one connection each, to the endpoint that answered last. Keeps no state but a token.

    With ``identity`` over TLS.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        user: str,
        password: str,
        *,
        identity: Identity | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._endpoints = list(endpoints)
        self._identity = identity
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

    def delete_if(
        self,
        entry: Entry,
        *,
        unchanged: Sequence[Entry] = (),
        present: Sequence[str] = (),
        put: Mapping[str, str] | None = None,
    ) -> bool:
        """Remove ``entry`` and write what ``put`` has, if all of this still holds; whether it did.

        ``entry`` and all in ``unchanged`` are what was read, value and revision; all keys in ``present`` are there.
        """
        compare: list[dict[str, Any]] = [
            *(
                {"key": _text(e.key), "target": "MOD", "result": "EQUAL", "mod_revision": str(e.revision)}
                for e in (entry, *unchanged)
            ),
            {"key": _text(entry.key), "target": "VALUE", "result": "EQUAL", "value": _text(entry.value)},
            *({"key": _text(k), "target": "VERSION", "result": "GREATER", "version": "0"} for k in present),
        ]
        change: list[dict[str, Any]] = [{"request_delete_range": {"key": _text(entry.key)}}]
        change += [{"request_put": {"key": _text(k), "value": _text(v)}} for k, v in (put or {}).items()]
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

    def replace_member(self, peer_url: str) -> None:
        """Forget the member at ``peer_url``, whose data is lost, and expect one there that knows nothing yet."""
        for member in self._call("/v3/cluster/member/list", {}).get("members", ()):
            if peer_url in member.get("peerURLs", ()):
                with suppress(_Refused):  # carried out already, if it was asked twice
                    self._call("/v3/cluster/member/remove", {"ID": member["ID"]})
        try:
            self._call("/v3/cluster/member/add", {"peerURLs": [peer_url]})
        except _Refused as error:
            if "exist" not in str(error):
                raise

    def readdress_member(self, before: str, after: str) -> None:
        """Have the member at ``before`` known to be at ``after`` from now on, and wait until a majority agrees."""
        for member in self._call("/v3/cluster/member/list", {}).get("members", ()):
            if before in member.get("peerURLs", ()):
                self._call("/v3/cluster/member/update", {"ID": member["ID"], "peerURLs": [after]})
        self.get(NAMESPACE)

    def close(self) -> None:
        """Close the calling thread's connection."""
        if getattr(self._local, "kept", None) is not None:
            self._local.kept.close()
            self._local.kept = None

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
        """What the first member answers that does. Each is asked a moment after the one before, should that be silent.

        So a request may be carried out twice: all of them may be.
        """
        kept: Exchange | None = getattr(self._local, "kept", None)
        self._local.kept = None
        left = [e for e in self._endpoints if kept is None or e != kept.address]
        asked = [kept.again(self._request(kept.address, path, body))] if kept is not None else []
        identity = self._identity
        failure: Exception | None = None
        complaint: str | None = None
        try:
            context = identity.context() if identity is not None and left else None
            while asked or left:
                if left and (not asked or asked[-1].age_s() >= HEDGE_S):
                    asked.append(Exchange(left[0], self._request(left.pop(0), path, body), context))
                for one in _ready(asked, HEDGE_S - asked[-1].age_s() if left else self._timeout_s - asked[0].age_s()):
                    try:
                        found = one.step()
                        answer = json.loads(found.body) if found else {}
                    except (OSError, HTTPException, ValueError) as error:
                        found, failure = None, error
                        if identity is not None:
                            complaint = complaint or identity.complaint(error, one.address)
                        asked.remove(one)
                        one.close()
                    if found is None:
                        continue
                    said = str(answer.get("message") or answer.get("error"))
                    if found.status < 500 and one.keeps:
                        asked.remove(one)
                        self._local.kept = one
                    if found.status == 200:
                        return dict(answer)
                    if "not enabled" in said:
                        raise _NotEnabled(said)
                    if found.status < 500:
                        raise _Refused(f"etcd refused: {said}")
                    failure = StoreUnavailable(said)  # it knows of no leader, say
                    asked.remove(one)
                    one.close()
                for one in [o for o in asked if o.age_s() >= self._timeout_s]:
                    failure = TimeoutError(f"{one.address[0]}:{one.address[1]} does not answer")
                    asked.remove(one)
                    one.close()
        except OSError as error:  # a certificate's file is not there
            failure, complaint = error, str(error)
        finally:
            for one in asked:
                one.close()
        raise StoreUnavailable(
            f"etcd does not answer: {complaint}" if complaint else "etcd does not answer, or has no majority",
            hint="pgherd up starts it again; writes go on meanwhile",
        ) from failure

    def _request(self, endpoint: Endpoint, path: str, body: dict[str, Any]) -> bytes:
        headers = {"Authorization": self._token} if self._token else {}
        return exchange.request("POST", f"{endpoint[0]}:{endpoint[1]}", path, json.dumps(body).encode(), headers)

    def is_healthy(self, endpoint: Endpoint) -> bool:
        """Whether a member is one of a majority that answers."""
        asked = exchange.request("GET", f"{endpoint[0]}:{endpoint[1]}", "/health")
        try:
            answer = exchange.ask(endpoint, asked, self._identity, self._timeout_s)
            return bool(json.loads(answer.body).get("health") == "true")
        except (OSError, HTTPException, ValueError):
            return False


def _ready(asked: Sequence[Exchange], timeout_s: float) -> list[Exchange]:
    """Those of ``asked`` that can go on, waiting for one for up to ``timeout_s``."""
    waiting = select.poll()
    for one in asked:
        waiting.register(one.socket, one.event)
    ready = {fd for fd, _ in waiting.poll(max(0.0, timeout_s) * 1000)}
    return [one for one in asked if one.socket in ready]


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
