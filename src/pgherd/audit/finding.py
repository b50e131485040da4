"""What an audit says: findings, what was looked at, and what could not be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World


class Severity(StrEnum):
    """How bad a finding is."""

    VIOLATION = "violation"
    """rows or values are outside their regions, or are being sent there, or nobody can say where"""
    RISK = "risk"
    """they could get out this way"""
    NOTE = "note"
    """worth knowing"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that holds, receives or could receive pinned rows; it holds no value of a row.

    ``node`` and ``region`` are where it was seen; ``source`` is the node that the rows come from and ``target`` where
    they are or go: a node's name, or words for a place that the herd does not know.
    """

    kind: str
    severity: Severity
    table: str | None
    node: str
    region: str
    detail: str
    hint: str = ""
    source: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """Something that was looked at, and how many there were; on ``node``, or on none in particular.

    With ``source`` and ``target`` it is a way that rows go by right.
    """

    what: str
    node: str | None = None
    region: str | None = None
    detail: str = ""
    count: int | None = None
    source: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class NotLooked:
    """Something that could not be looked at, and why; ``whole``: a server or database of which nothing was seen."""

    what: str
    node: str | None
    region: str | None
    why: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one probe found."""

    findings: tuple[Finding, ...] = ()
    looked: tuple[Looked, ...] = ()
    not_looked: tuple[NotLooked, ...] = ()


Probe = Callable[["World"], Outcome]


def outcome(items: Iterable[Finding | Looked | NotLooked]) -> Outcome:
    """An outcome of what a probe yields."""
    found = list(items)
    return Outcome(
        tuple(i for i in found if isinstance(i, Finding)),
        tuple(i for i in found if isinstance(i, Looked)),
        tuple(i for i in found if isinstance(i, NotLooked)),
    )
