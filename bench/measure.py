"""Rounds that take turns (A B A B …), medians, and ratios of what was measured in the same round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(slots=True)
class Series:
    """What one contender gave, a number a round."""

    name: str
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle of all rounds."""
        return median(self.rounds)

    def over(self, other: Series) -> float:
        """The middle of the rounds' ratios: each round of this to the same round of the other."""
        return median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Median and rounds."""
        return {"median": round(self.median, 4), "rounds": [round(r, 4) for r in self.rounds]}


def take_turns(contenders: Sequence[Callable[[], None]], rounds: int) -> None:
    """Let every contender have its turn in each round; every other round goes backwards, so that none always leads."""
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            contender()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
