"""What clients did and saw while a herd was broken: appends to lists, and reads of whole lists, by key.

As in Jepsen's list-append: a list shows not only what is there but in which order it came, so that one history tells
lost, doubled and reordered writes apart. Source: Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from
Experimental Observations", VLDB 2020.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What an operation does."""

    APPEND = "append"
    READ = "read"


class Outcome(StrEnum):
    """How it ended, as its client knows it."""

    OK = "ok"
    """acknowledged"""
    FAILED = "failed"
    """it has certainly not happened"""
    UNKNOWN = "unknown"
    """it may have happened, then or later"""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of one client. Times are seconds on one clock. ``node`` is who answered, None if nobody did.

    An append adds ``value``, which no other appends to this key, and is told its ``position`` (from 1). A read sees
    ``seen``; ``current`` says that it claims to see all that was acknowledged before it began. ``timeline`` is that of
    the server that acknowledged: it grows with every promotion.
    """

    kind: Kind
    client: int
    key: int
    began_s: float
    ended_s: float
    outcome: Outcome
    value: int | None = None
    position: int | None = None
    seen: tuple[int, ...] = ()
    current: bool = True
    node: str | None = None
    timeline: int | None = None


class History:
    """Operations as they end; any thread may add."""

    def __init__(self, ops: Iterable[Op] = ()) -> None:
        self._ops = list(ops)
        self._lock = threading.Lock()

    def add(self, op: Op) -> None:
        """Record an operation that has ended."""
        with self._lock:
            self._ops.append(op)

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        with self._lock:
            return iter(list(self._ops))

    def write(self, path: Path) -> None:
        """One JSON object a line."""
        with path.open("w", encoding="utf-8") as f:
            for op in self:
                f.write(json.dumps(asdict(op)) + "\n")

    @classmethod
    def read(cls, path: Path) -> History:
        """The inverse of :meth:`write`."""
        with path.open(encoding="utf-8") as f:
            documents = [json.loads(line) for line in f]
        return cls(
            Op(**{**d, "kind": Kind(d["kind"]), "outcome": Outcome(d["outcome"]), "seen": tuple(d["seen"])})
            for d in documents
        )
