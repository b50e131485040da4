"""Whether a node answers: a listener that says nothing, one that answers late, none at all, and clocks that jump."""

from __future__ import annotations

import ast
import itertools
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pgherd.availability
from availability.replicated import wait_until
from pgherd.availability.decide import GONE_PROBES
from pgherd.availability.pulse import Pulse
from pgherd.availability.rest import Rest
from pgherd.exchange import Identity
from pgherd.local import certificates
from pgherd.local.machine import WatchedNode

INTERVAL_S = 0.05
WALL_CLOCKS = {"time.time", "datetime.now", "datetime.utcnow", "time.localtime"}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Accepts connections, as a frozen server's kernel does; nobody behind it says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def pulse_of(sql: int, rest: int, identity: Identity | None = None) -> Pulse:
    node, api = WatchedNode("n", "g", "m", "127.0.0.1", sql, rest), Rest("127.0.0.1", rest, identity)
    pulse = Pulse(node, "nobody", "", rest=api, interval_s=INTERVAL_S)
    pulse.wanted.set()
    pulse.start()
    return pulse


def port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def test_silence_is_counted_while_questions_stay_open(listener: socket.socket) -> None:
    pulse = pulse_of(port(listener), port(listener))
    wait_until(lambda: pulse.probes >= GONE_PROBES)
    assert pulse.silent_s >= (GONE_PROBES - 1) * INTERVAL_S
    assert not pulse.answered
    pulse.wanted.clear()


def test_who_refuses_connections_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = port(gone)
    pulse = pulse_of(nobody, nobody)
    wait_until(lambda: pulse.probes >= GONE_PROBES)
    assert not pulse.answered
    pulse.wanted.clear()


def test_a_late_answer_is_an_answer(listener: socket.socket) -> None:
    """A busy Patroni that takes longer than the time from one question to the next is no dead one."""
    with socket.create_server(("127.0.0.1", 0)) as rest:
        pulse = pulse_of(port(listener), port(rest))
        wait_until(lambda: pulse.probes >= GONE_PROBES)
        first, _ = rest.accept()  # asked long since
        with first:
            first.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            wait_until(lambda: pulse.answered)
        pulse.wanted.clear()


@pytest.mark.parametrize("wants", [ssl.CERT_NONE, ssl.CERT_REQUIRED])
def test_an_expired_certificate_is_an_answer(listener: socket.socket, tmp_path: Path, wants: ssl.VerifyMode) -> None:
    """Whether it answers is all that is asked: nobody may be fenced for a certificate."""
    path = tmp_path / "expired.pem"
    issued = certificates.issue(certificates.new_ca(), "127.0.0.1", datetime(2026, 1, 2, tzinfo=UTC))
    path.write_text(issued.pem())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    context.verify_mode = wants
    with socket.create_server(("127.0.0.1", 0)) as rest:
        pulse = pulse_of(port(listener), port(rest), Identity(None, None))
        with suppress(OSError), rest.accept()[0] as caller, context.wrap_socket(caller, server_side=True):
            pass
        wait_until(lambda: pulse.answered)
        pulse.wanted.clear()


def test_a_clock_that_jumps_ages_nobody(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    jumps = itertools.count(0, 3600)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    pulse = pulse_of(port(listener), port(listener))
    wait_until(lambda: pulse.probes >= GONE_PROBES)
    assert pulse.silent_s <= time.monotonic() - began
    pulse.wanted.clear()


def test_nothing_that_watches_or_measures_asks_a_clock_that_can_be_set() -> None:
    """But for the time written down for people, in keys.py."""
    asked = {
        path.name
        for path in Path(pgherd.availability.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WALL_CLOCKS
    }
    assert asked == {"keys.py"}
