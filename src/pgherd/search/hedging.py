"""Ask the nodes of replicated groups: the fastest first, another one too when that is slow, the primary last of all.

A slow server then costs a search little more than the wait for it; the answer that comes first is taken. The one that
is still under way is left behind: its connection is used again once that has come. What a standby refuses (a table that
has not arrived there yet, a conflict with recovery) the next node is asked.
Source: Dean and Barroso, The Tail at Scale, 2013.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple, TypeVar

from ..engines.asking import AnyConnection, Enough, Question
from ..engines.reading import Read, Reading
from ..engines.standbys import Standbys
from ..errors import GroupUnavailable
from .loans import Loans


class Reads(NamedTuple):
    """Where a search may be answered, and what is known of the nodes that could."""

    reading: Reading
    standbys: Standbys


@dataclass(slots=True)
class Try:
    """One node that was asked; ``node`` None for whichever is primary."""

    node: str | None
    connection: AnyConnection
    question: Question
    began_s: float = field(default_factory=perf_counter)

    @property
    def is_answered(self) -> bool:
        """Whether it has answered, and not with an error."""
        return self.question.answered and self.question.error is None


@dataclass(slots=True)
class Asked:
    """One group: the ``nodes`` that may still be asked, in order, and those that were."""

    home: str
    nodes: list[str | None] = field(default_factory=lambda: [None], kw_only=True)
    node: str | None = field(default=None, kw_only=True)
    connection: AnyConnection | None = field(default=None, kw_only=True)
    question: Question | None = field(default=None, kw_only=True)
    tries: list[Try] = field(default_factory=list, kw_only=True)

    @property
    def is_over(self) -> bool:
        """Whether nothing better can come of it: there is an answer, or nobody is left to wait for."""
        return any(t.is_answered for t in self.tries) or all(t.question.answered for t in self.tries)


P = TypeVar("P", bound=Asked)
Prepare = Callable[[P], Awaitable[None]]
Ask = Callable[[P], Question]


def nodes_for(reads: Reads | None, home: str) -> list[str | None]:
    """The nodes that may answer for a group, in the order to ask them.

    GroupUnavailable when it may be none. Reads of the ``nearest`` end with the primary, whichever it is.
    """
    if reads is None or reads.reading.read is Read.PRIMARY:
        return [None]
    nodes: list[str | None] = list(reads.standbys.nodes(home, reads.reading))
    if reads.reading.read is Read.NEAREST:
        return [*nodes, None]
    if not nodes:
        limit = reads.reading.max_staleness_s
        fresh = "" if limit is None else f" and is known to be at most {limit:g} s behind"
        raise GroupUnavailable(
            f"group {home} has no standby that answers{fresh}",
            hint="pgherd status shows how far standbys are behind; read='nearest' takes the primary then",
        )
    return nodes


async def connect(loans: Loans, part: Asked) -> None:
    """Connect a part to the first of its nodes that can be reached; GroupUnavailable when there is none."""
    while True:
        node = part.nodes.pop(0)
        try:
            part.connection = await loans.take(part.home, node)
        except GroupUnavailable:
            if not part.nodes:
                raise
            continue
        part.node = node
        return


async def answers(
    loans: Loans,
    parts: Sequence[P],
    reads: Reads | None,
    prepare: Prepare[P],
    ask: Ask[P],
) -> None:
    """Ask every part on its connection, and wait: ``question`` and ``connection`` are then those that answered.

    ``prepare`` brings a connection to the part's settings, ``ask`` asks on it.
    """
    if reads is None:
        for part in parts:
            part.question = ask(part)
        await loans.lender.wait([p.question for p in parts if p.question is not None])
        return
    for part in parts:
        part.tries = [_try(part, ask)]
    if any(p.nodes for p in parts):
        await _hedge(loans, parts, reads, prepare, ask)
    await _wait(loans, parts)
    for part in parts:
        best = next((t for t in part.tries if t.is_answered), part.tries[-1])
        part.node, part.connection, part.question = best.node, best.connection, best.question
        _note(reads.standbys, part)


async def _hedge(
    loans: Loans,
    parts: Sequence[P],
    reads: Reads,
    prepare: Prepare[P],
    ask: Ask[P],
) -> None:
    while True:
        patience_s = max(reads.standbys.hedge_after_s(p.home) for p in parts)
        await _wait(loans, parts, patience_s)
        behind = [p for p in parts if p.nodes and not any(t.is_answered for t in p.tries)]
        if not behind:
            return
        for part in behind:
            try:
                await connect(loans, part)
                await prepare(part)
            except GroupUnavailable:
                continue
            part.tries.append(_try(part, ask))


def _try(part: P, ask: Ask[P]) -> Try:
    assert part.connection is not None
    return Try(part.node, part.connection, ask(part))


async def _wait(loans: Loans, parts: Sequence[Asked], timeout_s: float | None = None) -> None:
    questions = [t.question for p in parts for t in p.tries]
    enough: Enough | None = None
    if len(questions) > len(parts):
        enough = lambda: all(p.is_over for p in parts)  # noqa: E731
    await loans.lender.wait(questions, enough, timeout_s)


def _note(standbys: Standbys, part: Asked) -> None:
    """Remember how long each node took, or has not answered for: the next search asks the fastest first."""
    now = perf_counter()
    for t in part.tries:
        if t.node is not None and (t.is_answered or not t.question.answered):
            standbys.note(t.node, t.question.ms if t.question.answered else (now - t.began_s) * 1000)
