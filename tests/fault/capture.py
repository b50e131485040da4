"""All TCP that passes the loopback interface, put together again stream by stream. Needs root on Linux."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections import defaultdict

_ETH_P_ALL, _PACKET_OUTGOING = 3, 4
_SOL_PACKET, _PACKET_STATISTICS, _SO_RCVBUFFORCE = 263, 6, 33
_LARGEST = 1 << 18
Stream = tuple[int, int]
"""Ports: from, to."""


def is_possible() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


class Capture(threading.Thread):
    """Listens from its start to :meth:`end`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 512 << 20)
        self._socket.bind(("lo", 0))
        self._packets: list[bytes] = []
        self._last = os.urandom(16)
        self.dropped = 0
        self.start()

    def run(self) -> None:
        while True:
            data, address = self._socket.recvfrom(_LARGEST)
            if self._last in data:
                break
            if address[2] != _PACKET_OUTGOING:  # on loopback each packet comes by twice
                self._packets.append(data)

    def end(self) -> dict[Stream, bytes]:
        """What was sent from each port to each other one; ``dropped`` says how many packets were missed."""
        # What was sent before the last datagram has come by when that does.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            while self.is_alive():
                last.sendto(self._last, ("127.0.0.1", 9))
                self.join(1)
        _, self.dropped = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._socket.close()
        return streams(self._packets)


def streams(packets: list[bytes]) -> dict[Stream, bytes]:
    """The payloads of each connection in their order, what was sent again left out."""
    parts: dict[Stream, list[bytes]] = defaultdict(list)
    following: dict[Stream, int] = {}
    for packet in packets:
        if packet[12:14] != b"\x08\x00" or packet[23] != socket.IPPROTO_TCP:
            continue
        head = 14 + (packet[14] & 15) * 4
        length = struct.unpack_from("!H", packet, 16)[0] or len(packet) - 14
        source, target, sequence = struct.unpack_from("!HHI", packet, head)
        data = packet[head + (packet[head + 12] >> 4) * 4 : 14 + length]
        key = (source, target)
        if packet[head + 13] & 2 or key not in following:  # SYN: a new connection of these ports
            following[key] = (sequence + 1 if packet[head + 13] & 2 else sequence) & 0xFFFFFFFF
            parts[key].append(b"\n")
        ahead = (sequence - following[key]) & 0xFFFFFFFF
        if data and ahead < 1 << 31:
            parts[key].append(data)
            following[key] = (sequence + len(data)) & 0xFFFFFFFF
    return {key: b"".join(found) for key, found in parts.items()}
