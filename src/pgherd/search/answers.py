"""What comes back of a question that models answer: one answer for each region that rows were found in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .hits import GroupTiming, Hit


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model of ``region`` says, from ``hits`` alone; numbers in brackets in ``text`` count them from 1."""

    region: str
    text: str
    model: str
    endpoint: str
    hits: tuple[Hit, ...]

    def as_json(self) -> dict[str, Any]:
        """Its stable keys."""
        return {
            "region": self.region,
            "text": self.text,
            "model": self.model,
            "endpoint": self.endpoint,
            "hits": [h.as_json() for h in self.hits],
        }


class Answers(list[Answer]):
    """Answers, that of the nearest row first; none if no row was found. ``missing`` as in :class:`Hits`."""

    def __init__(self, answers: Iterable[Answer], groups: Sequence[GroupTiming], missing: Sequence[str]) -> None:
        super().__init__(answers)
        self.groups = tuple(groups)
        self.missing = tuple(missing)

    @property
    def complete(self) -> bool:
        """Whether every group that could hold a row has answered."""
        return not self.missing

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``pgherd ask --json``."""
        return {
            "answers": [a.as_json() for a in self],
            "groups": [{"name": g.name, "ms": round(g.ms, 3), "node": g.node} for g in self.groups],
            "complete": self.complete,
            "missing": list(self.missing),
        }
