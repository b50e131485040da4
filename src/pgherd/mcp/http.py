"""Streamable HTTP behind a bearer token; beyond this machine only with TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer

from ..errors import BadInput, UnsafeSetting
from ..llm.token import is_token
from ..secretfile import read_secret

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def check_address(host: str, certificate: Path | None, key: Path | None) -> None:
    """Refuse an address that others reach without TLS. Raises UnsafeSetting, BadInput."""
    if (certificate is None) != (key is None):
        raise BadInput("TLS needs both a certificate and its key", hint="--tls-cert FILE --tls-key FILE")
    if key is not None:
        read_secret(key, "the TLS key")
    if certificate is None and not is_loopback(host):
        raise UnsafeSetting(
            f"{host} can be reached from other machines, and without TLS the token and the rows would travel in clear",
            hint="listen on 127.0.0.1, or give --tls-cert and --tls-key",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name does not count, whatever it resolves to now."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def serve(
    server: MCPServer, host: str, port: int, token: str, certificate: Path | None = None, key: Path | None = None
) -> None:
    """Serve until interrupted. Every request must show the token; nothing about requests is logged."""
    app = server.streamable_http_app(host=host, stateless_http=True, json_response=True)
    config = uvicorn.Config(
        with_token(app, token),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
    )
    await uvicorn.Server(config).serve()


def with_token(app: _App, token: str) -> _App:
    """The application, for requests with ``Authorization: Bearer TOKEN``; 401 for all others."""

    async def guarded(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and is_token(_bearer(scope), token)):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"a token is needed: Authorization: Bearer TOKEN\n"})

    return guarded


def _bearer(scope: _Message) -> str:
    shown = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = shown[0].decode("latin-1").partition(" ") if len(shown) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""
