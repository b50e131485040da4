"""Everybody who answers the same questions at the same recall, in rounds that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .data import Vectors
from .measure import Series, percentile, take_turns
from .outcome import Table
from .searchers import Answers, K, Searcher, recall

MAX_EFFORT = 1000


class WrongAnswer(Exception):
    """A contender that can't be compared: it gave fewer rows than asked for, or misses the recall at any effort."""


@dataclass(slots=True)
class Contender:
    """One way to ask, the effort it needs for the recall wanted, and what came of it.

    ``before``: the efforts that it needed with the graphs before, of the same rows.
    """

    name: str
    searcher: Searcher
    effort: int
    truth: Sequence[set[int]]
    recall: float = 0.0
    before: list[int] = field(default_factory=list)
    p50_ms: Series = field(default_factory=lambda: Series("p50"))
    p95_ms: Series = field(default_factory=lambda: Series("p95"))
    cpu_ms: Series = field(default_factory=lambda: Series("cpu"))

    def turn(self, questions: Vectors) -> None:
        """Ask every question once and note the round's percentiles."""
        answers = checked(self.name, self.searcher.ask(questions, self.effort))
        self.recall = recall(answers, self.truth)
        self.p50_ms.rounds.append(percentile(answers.ms, 0.5))
        self.p95_ms.rounds.append(percentile(answers.ms, 0.95))
        self.cpu_ms.rounds.append(answers.cpu_ms)

    def as_json(self) -> dict[str, Any]:
        """All rounds."""
        return {
            "effort": [*self.before, self.effort],
            "recall": round(self.recall, 4),
            "p50_ms": self.p50_ms.as_json(),
            "p95_ms": self.p95_ms.as_json(),
            "cpu_ms": self.cpu_ms.as_json(),
        }


def checked(name: str, answers: Answers) -> Answers:
    """The answers, if each has K different rows; WrongAnswer else."""
    for ids in answers.ids:
        if len(set(ids)) != K:
            raise WrongAnswer(f"{name} gave {len(set(ids))} rows instead of {K}")
    return answers


def calibrated(name: str, searcher: Searcher, questions: Vectors, truth: Sequence[set[int]], target: float) -> int:
    """The least effort with which the searcher's recall reaches ``target``; WrongAnswer if none does."""

    def reaches(effort: int) -> bool:
        return recall(checked(name, searcher.ask(questions, effort)), truth) >= target

    low, high = K, 40
    while not reaches(high):
        if high == MAX_EFFORT:
            raise WrongAnswer(f"{name} does not reach a recall of {target} with any effort up to {MAX_EFFORT}")
        low, high = high + 1, min(2 * high, MAX_EFFORT)
    while low < high:
        tried = (low + high) // 2
        if reaches(tried):
            high = tried
        else:
            low = tried + 1
    return low


def compete(contenders: Sequence[Contender], questions: Vectors, rounds: int) -> None:
    """Let all answer in turns; connections, prepared statements and caches are warm before the first round."""
    for c in contenders:
        c.searcher.ask(questions, c.effort)
    take_turns([lambda c=c: c.turn(questions) for c in contenders], rounds)  # type: ignore[misc]


def searches_table(title: str, contenders: Sequence[Contender], note: str = "") -> Table:
    """One row a contender."""
    rows = [
        [
            c.name,
            ", ".join(map(str, [*c.before, c.effort])),
            f"{c.recall:.3f}",
            f"{c.p50_ms.median:.2f}",
            f"{c.p95_ms.median:.2f}",
            f"{c.cpu_ms.median:.2f}",
        ]
        for c in contenders
    ]
    return Table(title, ["who", "effort", "recall@10", "p50 ms", "p95 ms", "client CPU ms"], rows, note)
