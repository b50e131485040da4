"""One question over HTTP, in steps: answers in pieces; who hangs up; who says nothing; who keeps the line."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from pgherd import exchange
from pgherd.errors import UnsafeSetting
from pgherd.exchange import Answer, Exchange, Identity
from pgherd.local import certificates

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ASKED = exchange.request("POST", "here", "/x", b"{}", {"Authorization": "me"})


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """A listener that treats one caller as ``serve`` does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            caller, _ = server.accept()
            with caller:
                serve(caller)

        thread = threading.Thread(target=run)
        thread.start()
        host, port = server.getsockname()
        yield host, port
        thread.join()


def saying(*parts: bytes) -> Callable[[socket.socket], None]:
    def serve(caller: socket.socket) -> None:
        assert caller.recv(1 << 16) == ASKED
        for part in parts:
            caller.sendall(part)
            time.sleep(0.01)

    return serve


def drive(one: Exchange) -> Answer:
    """Ask until it is answered."""
    while True:
        waiting = select.poll()
        waiting.register(one.socket, one.event)
        assert waiting.poll(10_000), "nothing has come for ten seconds"
        if (found := one.step()) is not None:
            return found


@pytest.mark.parametrize(
    ("parts", "body", "keeps"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nab", b"cde"), b"abcde", True),
        ((CHUNKED, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r", b"\n\r\n"), b"abcde", True),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde",), b"abcde", False),
        ((b"HTTP/1.0 200 OK\r\n\r\nab", b"cde"), b"abcde", False),
    ],
)
def test_an_answer_in_pieces(parts: tuple[bytes, ...], body: bytes, keeps: bool) -> None:
    with serving(saying(*parts)) as address:
        one = Exchange(address, ASKED, None)
        try:
            assert drive(one) == Answer(200, body)
            assert (one.heard, one.keeps) == (True, keeps)
        finally:
            one.close()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_half_an_answer_is_none(said: bytes) -> None:
    with serving(saying(said)) as address, pytest.raises((OSError, HTTPException)):
        exchange.ask(address, ASKED, None, 10)


def test_a_line_that_is_kept_is_used_again() -> None:
    def serve(caller: socket.socket) -> None:
        for number in (b"1", b"2"):
            assert caller.recv(1 << 16) == ASKED
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + number)

    with serving(serve) as address:
        one = Exchange(address, ASKED, None)
        try:
            assert drive(one).body == b"1"
            assert drive(one.again(ASKED)).body == b"2"
        finally:
            one.close()


def test_who_says_nothing_keeps_nobody_waiting() -> None:
    """Also where TLS would be greeted first: a kernel accepts for a process that is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = Exchange(silent.getsockname(), ASKED, exchange.anybody())
        try:
            for _ in range(3):
                assert one.step() is None
            assert one.event == select.POLLIN
            assert not one.heard
        finally:
            one.close()
        with pytest.raises(TimeoutError):
            exchange.ask(silent.getsockname(), ASKED, Identity(None, None), 0.05)


def test_an_identity_is_read_again_when_its_file_has_changed(tmp_path: Path) -> None:
    ca, path, trust = certificates.new_ca(), tmp_path / "own.pem", tmp_path / "ca.crt"
    trust.write_text(certificates.pem_of([ca.certificate]))
    who = Identity(str(path), str(trust))
    with pytest.raises(FileNotFoundError):
        who.context()
    path.touch(mode=0o600)
    path.write_text(certificates.issue(ca, "127.0.0.1").pem())
    first = who.context()
    assert who.context() is first
    path.write_text(certificates.issue(ca, "127.0.0.1").pem() + "\n")
    assert who.context() is not first
    path.chmod(0o644)
    with pytest.raises(UnsafeSetting, match=r"own\.pem has mode 0644"):
        who.context()
