"""The certificate that somebody shows, whoever signed it: looked at without a login, to say what is wrong with it.

Source: PostgreSQL 18 manual, 54.2.10 "SSL Session Encryption".
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

TIMEOUT_S = 2.0
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def presented(
    host: str, port: int, *, postgres: bool = True, own: str | None = None, timeout_s: float = TIMEOUT_S
) -> x509.Certificate | None:
    """What the server at that address shows now; None if it does not answer, or has no TLS.

    ``postgres``: whether it is PostgreSQL, which is told first that TLS follows. ``own``: the file of a key and
    certificate, for servers that want one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent but the greeting
    try:
        if own is not None:
            context.load_cert_chain(own)
        with _connected(host, port, context, postgres, timeout_s) as secure:
            data = secure.getpeercert(binary_form=True)
            with suppress(OSError):  # or it is an error in the server's log
                secure.unwrap()
    except (OSError, ValueError):
        return None
    if not data:
        return None
    from cryptography.x509 import load_der_x509_certificate  # slow to import, and needed by those who fail only

    return load_der_x509_certificate(data)


def _connected(host: str, port: int, context: ssl.SSLContext, postgres: bool, timeout_s: float) -> ssl.SSLSocket:
    """Over TLS, which PostgreSQL is asked for first. Raises OSError."""
    if postgres:
        with socket.create_connection((host, port), timeout_s) as plain:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise ConnectionRefusedError("no TLS")
            return context.wrap_socket(plain)
    secure = context.wrap_socket(socket.socket())
    try:
        secure.settimeout(timeout_s)
        secure.connect((host, port))
    except BaseException:
        secure.close()
        raise
    return secure
