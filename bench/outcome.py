"""What a suite found: goals with their measurements, tables, and why something was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .measure import Series


@dataclass(frozen=True, slots=True)
class Goal:
    """A number, and what it should be: at most ``goal``, or at least with ``at_least``.

    ``least`` and ``most`` are the same number in the rounds where it was least and most.
    """

    what: str
    measured: float
    least: float
    most: float
    goal: float
    unit: str = "x"
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    def as_json(self) -> dict[str, Any]:
        """All fields, rounded, and whether it is met."""
        numbers = {name: round(getattr(self, name), 4) for name in ("measured", "least", "most")}
        return {**asdict(self), **numbers, "met": self.met}


def ratio(what: str, mine: Series, other: Series, goal: float, *, at_least: bool = False) -> Goal:
    """A goal for the median of the ratios of each round of ``mine`` to the same round of ``other``."""
    ratios = [a / b for a, b in zip(mine.rounds, other.rounds, strict=True)]
    return Goal(what, mine.over(other), min(ratios), max(ratios), goal, at_least=at_least)


def plain(what: str, mine: Series, goal: float, unit: str, *, at_least: bool = False) -> Goal:
    """A goal for the median of a series itself."""
    return Goal(what, mine.median, min(mine.rounds), max(mine.rounds), goal, unit, at_least)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a head."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a picture: (x, y, what is told of the point)."""

    name: str
    points: Sequence[tuple[float, float, str]]


@dataclass(slots=True)
class Outcome:
    """All that one suite has to say; ``about`` is how it was measured, ``left_out`` what was not, and why."""

    suite: str
    title: str
    about: str
    goals: list[Goal] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "suite": self.suite,
            "title": self.title,
            "about": self.about,
            "goals": [g.as_json() for g in self.goals],
            "tables": [asdict(t) for t in self.tables],
            "curves": [asdict(c) for c in self.curves],
            "left_out": self.left_out,
            "numbers": self.numbers,
        }
