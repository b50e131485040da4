"""A machine of a local herd in a network namespace of its own, and the one way in and out, which can be cut.

``python -m pgherd.availability.crossing`` makes the namespace and carries every connection between the two sides, byte
for byte, until it is told to cut: then nothing passes in either direction, and nobody is told, as when a cable is
pulled. It reads one JSON document, then the words ``cut`` and ``join``, from stdin, answers each with a line, and ends
with stdin. Needs root on Linux. Source: Linux manual, network_namespaces(7), setns(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import DrillFailed

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CHUNK = 1 << 16
_CONNECT_TIMEOUT_S = 5.0

Address = tuple[str, int]


def is_possible() -> bool:
    """Whether this process may make namespaces."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _libc().unshare(_CLONE_NEWNET) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Crossing:
    """The namespace, from the outside. ``inside``: what listens in it; ``outside``: what it needs to reach."""

    def __init__(self, inside: Sequence[Address], outside: Sequence[Address]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        self._tell(json.dumps({"inside": list(inside), "outside": list(outside)}))

    @property
    def namespace(self) -> Path:
        """The namespace, to be entered."""
        return Path(f"/proc/{self._process.pid}/ns/net")

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self._tell("cut")

    def join(self) -> None:
        """Let everything pass again."""
        self._tell("join")

    def close(self) -> None:
        """End it; the namespace goes when nobody is in it any more."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def enter(self) -> None:
        """Put the calling thread, and what it starts, into the namespace; for good."""
        fd = os.open(self.namespace, os.O_RDONLY)
        try:
            _enter(fd)
        finally:
            os.close(fd)

    def run_inside(self, work: Callable[[], Any]) -> None:
        """Do ``work`` inside, on a thread of its own; what it raises is raised here."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self.enter()
                work()
            except BaseException as error:  # noqa: BLE001 - raised below, by the thread that asked
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if answer != "ok\n":
            raise DrillFailed(f"the network namespace can't be kept: {answer.strip() or 'it ended'}", hint="pgherd up")


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _enter(fd: int) -> None:
    if _libc().setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class _Carrier:
    """Inside the process that keeps the namespace."""

    def __init__(self) -> None:
        self.here = os.open("/proc/self/ns/net", os.O_RDONLY)
        if _libc().unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        self.there = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.open = threading.Event()
        self.open.set()
        _loopback_up()

    def carry(self, inside: Sequence[Address], outside: Sequence[Address]) -> None:
        """Listen on both sides for the other, and begin to carry."""
        listening = [(self._listen(self.there, a), self.here) for a in outside]
        listening += [(self._listen(self.here, a), self.there) for a in inside]
        for server, side in listening:
            threading.Thread(target=self._accept, args=(server, side), daemon=True).start()

    def _listen(self, side: int, address: Address) -> socket.socket:
        _enter(side)
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(128)
        return server

    def _accept(self, server: socket.socket, to: int) -> None:
        address = server.getsockname()
        while True:
            self.open.wait()
            near, _ = server.accept()
            threading.Thread(target=self._connect, args=(near, to, address), daemon=True).start()

    def _connect(self, near: socket.socket, to: int, address: Address) -> None:
        self.open.wait()
        _enter(to)
        try:
            far = socket.create_connection(address, _CONNECT_TIMEOUT_S)
        except OSError:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # refused there, reset here
            near.close()
            return
        far.settimeout(None)
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._relay(near, far)

    def _relay(self, a: socket.socket, b: socket.socket) -> None:
        other = {a: b, b: a}
        ends = {a, b}
        try:
            while ends:
                ready, _, _ = select.select(list(ends), [], [])
                self.open.wait()  # what has arrived stays here until the way is open
                for one in ready:
                    data = one.recv(_CHUNK)
                    if data:
                        other[one].sendall(data)
                    else:
                        ends.discard(one)
                        with suppress(OSError):
                            other[one].shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            for one in (a, b):
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(s, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def main() -> None:
    """Keep the namespace until stdin ends."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it in an orderly way
    try:
        carrier = _Carrier()
        told = json.loads(sys.stdin.readline())
        carrier.carry([tuple(a) for a in told["inside"]], [tuple(a) for a in told["outside"]])
        _enter(carrier.there)
        print("ok", flush=True)
        for line in sys.stdin:
            carrier.open.clear() if line.strip() == "cut" else carrier.open.set()
            print("ok", flush=True)
    except (OSError, ValueError, KeyError) as error:
        print(error, flush=True)


if __name__ == "__main__":
    main()
