"""Patroni's REST API, of whoever's Patroni: over TLS with certificates on both sides, or plain.

Patroni ends a connection after each answer. Source: Patroni 4.1 documentation, "Patroni REST API".
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from .. import exchange
from ..exchange import Answer, Exchange, Identity

TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Rest:
    """The API at ``host``:``port``, plain where ``identity`` is None. ``login`` is ``user:password``, or None."""

    host: str
    port: int
    identity: Identity | None
    login: str | None = None

    def liveness(self) -> Exchange:
        """A question whose beginning of an answer is one: whoever greets, or complains of a certificate, is alive."""
        context = None if self.identity is None else exchange.anybody()
        return Exchange((self.host, self.port), self._request("GET", "/liveness"), context)

    def state(self) -> dict[str, Any]:
        """What it says of its node; empty if it doesn't answer."""
        try:
            return dict(json.loads(self.ask("GET", "/patroni", timeout_s=TIMEOUT_S).body))
        except (OSError, HTTPException, ValueError):
            return {}

    def ask(self, method: str, path: str, body: object = None, *, timeout_s: float) -> Answer:
        """The answer; waits for it. Raises OSError, HTTPException, UnsafeSetting."""
        text = b"" if body is None else json.dumps(body).encode()
        return exchange.ask((self.host, self.port), self._request(method, path, text), self.identity, timeout_s)

    def _request(self, method: str, path: str, body: bytes = b"") -> bytes:
        login = base64.b64encode(self.login.encode()).decode() if self.login else None
        headers = {"Authorization": f"Basic {login}"} if login else {}
        return exchange.request(method, f"{self.host}:{self.port}", path, body, headers)
