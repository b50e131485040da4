"""One question over HTTP, in steps that never wait: what etcd and Patroni's REST API are asked through.

TLS on both sides, where the other side has it: an :class:`Identity` says who asks, and whom to trust. Its files are
read again when they have changed, so a renewed certificate is shown by the next connection.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import NamedTuple, cast

from .secretfile import refuse_open

Address = tuple[str, int]
_CHUNK = 1 << 16
_GONE = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are on a TLS connection: ``certificate`` is the file of our key and certificate (None: of no name).

    ``trust`` is the file of the CAs to trust, None for those of the operating system.
    """

    certificate: str | None
    trust: str | None

    def context(self) -> ssl.SSLContext:
        """For connections that are made now. Raises UnsafeSetting for a key that others can read, OSError."""
        if self.certificate is not None:
            refuse_open(Path(self.certificate), "the key")
        return _context(self, tuple(_stamp(path) for path in (self.certificate, self.trust)))

    def complaint(self, error: BaseException | None, address: Address) -> str | None:
        """What is wrong with a certificate, if that made a connection to ``address`` fail."""
        if not isinstance(error, ssl.SSLError):
            return None
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the certificate at {address[0]}:{address[1]} is not trusted: {error.verify_message}"
        if self.certificate is not None and (ended := _ended(Path(self.certificate))) is not None:
            return f"the certificate in {self.certificate} has expired, on {ended:%Y-%m-%d %H:%M} UTC"
        shown = f"the certificate in {self.certificate}" if self.certificate is not None else "us without a certificate"
        return f"{address[0]}:{address[1]} refuses {shown}: {error.reason}"


@lru_cache(maxsize=1)
def anybody() -> ssl.SSLContext:
    """For connections that only see whether somebody answers: nobody is trusted, and nothing is to be sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@lru_cache(maxsize=16)
def _context(identity: Identity, _: tuple[object, ...]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=identity.trust)
        if identity.certificate is not None:
            context.load_cert_chain(identity.certificate)
    except ssl.SSLError as error:
        files = " or ".join(filter(None, (identity.certificate, identity.trust)))
        raise OSError(f"{files} can't be used: {error}") from error
    return context


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    found = Path(path).stat() if path is not None else None
    return found and (found.st_ino, found.st_mtime_ns, found.st_size)


def _ended(path: Path) -> datetime | None:
    """When the certificate there has expired, if it has."""
    from cryptography.x509 import load_pem_x509_certificates  # slow to import, and needed by those who fail only

    try:
        ended = load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError):
        return None
    return ended if ended < datetime.now(UTC) else None


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


class Exchange:
    """A connection to ``address``, a request and its answer: :meth:`step` when :attr:`socket` is ready for `event`.

    With ``context`` over TLS, to a server whose certificate is for ``name``, or the address's host.
    """

    def __init__(self, address: Address, request: bytes, context: ssl.SSLContext | None, name: str = "") -> None:
        self.address = address
        self.heard = False
        """whether the other side has said anything"""
        self.keeps = False
        """whether the connection may be used again; known with the answer"""
        self._socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self._socket.setblocking(False)
        if context is not None:
            self._socket = context.wrap_socket(
                self._socket, server_hostname=name or address[0], do_handshake_on_connect=False
            )
        self._socket.connect_ex(address)
        self._connected = self._greeted = False
        self.again(request)

    def again(self, request: bytes) -> Exchange:
        """Another request over the same connection."""
        self.asked = time.monotonic()
        self.event = select.POLLOUT
        self._left, self._said = request, b""
        return self

    @property
    def socket(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def age_s(self) -> float:
        """How long ago it was asked."""
        return time.monotonic() - self.asked

    def step(self) -> Answer | None:
        """The answer, None until it is there. Raises OSError, of which ssl.SSLError is one, and HTTPException."""
        try:
            if not self._connected:
                self._connect()
            if isinstance(self._socket, ssl.SSLSocket) and not self._greeted:
                self._greet(self._socket)
            while self._left:
                self._left = self._left[self._socket.send(self._left) :]
            while True:
                self.event = select.POLLIN
                data = self._socket.recv(_CHUNK)
                self.heard |= bool(data)
                self._said += data
                if (found := self._answer(ended=not data)) is not None:
                    return found
        except ssl.SSLWantReadError:
            self.event = select.POLLIN
        except ssl.SSLWantWriteError:
            self.event = select.POLLOUT
        except BlockingIOError:
            self.event = select.POLLOUT if self._left else select.POLLIN
        return None

    def _connect(self) -> None:
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, f"{self.address[0]}:{self.address[1]} can't be reached")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connected = True

    def _greet(self, secure: ssl.SSLSocket) -> None:
        try:
            secure.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, *_GONE):
            raise
        except ssl.SSLError:
            self.heard = True  # it was refused, or we don't trust who spoke
            raise
        self._greeted = self.heard = True

    def _answer(self, *, ended: bool) -> Answer | None:
        """What has come so far, if that is all of it."""
        if b"\r\n\r\n" not in self._said:
            if ended:
                raise RemoteDisconnected(f"{self.address[0]}:{self.address[1]} hung up")
            return None
        response = HTTPResponse(cast(socket.socket, _Said(self._said)))
        response.begin()
        if response.length is None and not response.chunked and not ended:
            return None  # it lasts until the other side hangs up
        try:
            body = response.read()
        except IncompleteRead:
            if ended:
                raise
            return None
        self.keeps = not response.will_close and not ended
        return Answer(response.status, body)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class _Said:
    """What HTTPResponse reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def request(method: str, host: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A request's text."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(address: Address, asked: bytes, identity: Identity | None, timeout_s: float) -> Answer:
    """The answer of who listens at ``address``, a name or number; waits for it. Raises OSError, HTTPException."""
    failure: OSError | HTTPException | None = None
    deadline = time.monotonic() + timeout_s
    context = identity.context() if identity is not None else None
    for _, _, _, _, found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        one = Exchange((str(found[0]), int(found[1])), asked, context, address[0])
        try:
            while time.monotonic() < deadline:
                waiting = select.poll()
                waiting.register(one.socket, one.event)
                waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)
                if (answer := one.step()) is not None:
                    return answer
        except (OSError, HTTPException) as error:
            failure = error
        finally:
            one.close()
    raise failure or TimeoutError(f"{address[0]}:{address[1]} does not answer")
