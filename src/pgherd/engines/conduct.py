"""How a plan's moves are to be carried out, and what is heard of them meanwhile and afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..planning.plan import Step
from ..planning.rebalance import Move

JOBS = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step has come. Copying counts ``rows`` and ``bytes``; ``share`` is 0 to 1, None when unknown."""

    step: Step
    stage: str
    share: float | None = None
    rows: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Moved:
    """What one move took. ``bytes`` and ``rows`` are those copied, in COPY's format; times are in seconds.

    ``writers_waited_ms``: how long writers of the shard were kept waiting at the longest, from the first lock that the
    commit asked for until all servers had committed; ``attempts``: how often it asked before it got through.
    """

    move: Move
    bytes: int = 0
    rows: int = 0
    copy_s: float = 0.0
    index_s: float = 0.0
    catch_up_s: float = 0.0
    commit_s: float = 0.0
    attempts: int = 0
    writers_waited_ms: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The keys of ``moves[]`` of ``rebalance --json``."""
        return {
            "rows": self.rows,
            "copied_bytes": self.bytes,
            "copy_s": round(self.copy_s, 3),
            "index_s": round(self.index_s, 3),
            "catch_up_s": round(self.catch_up_s, 3),
            "commit_s": round(self.commit_s, 3),
            "attempts": self.attempts,
            "writers_waited_ms": round(self.writers_waited_ms, 1),
        }


@dataclass(slots=True)
class Conduct:
    """``jobs`` moves are copied and indexed at a time, at most ``max_rate`` bytes a second in all (None: no limit).

    ``on_progress`` is called while steps run; ``moved`` gets an entry for each move that has come to its end.
    """

    jobs: int = JOBS
    max_rate: int | None = None
    on_progress: Callable[[Progress], None] | None = None
    moved: list[Moved] = field(default_factory=list)

    def hear(self, progress: Progress) -> None:
        """Tell whoever listens."""
        if self.on_progress:
            self.on_progress(progress)
