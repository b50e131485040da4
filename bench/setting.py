"""What a run is made with: how many rows, how many rounds, and where progress is told."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

ROWS = 200_000
QUICK_ROWS = 8_000
MEMORY_ROWS = 1_000_000
QUICK_MEMORY_ROWS = 40_000
TARGET_RECALL = 0.95


@dataclass(frozen=True, slots=True)
class Setting:
    """``rows`` is the size of the data that suites take (a share of); ``citus`` a pg_config, ``peers`` a python."""

    rows: int = ROWS
    rounds: int = 5
    recall: float = TARGET_RECALL
    ef_construction: int = 64
    quick: bool = False
    citus: str | None = None
    peers: str | None = None

    @property
    def memory_rows(self) -> int:
        """How many rows the memory suite loads."""
        return QUICK_MEMORY_ROWS if self.quick else max(self.rows, MEMORY_ROWS)

    def seconds(self, whole: float) -> float:
        """How long a timed stretch lasts that lasts ``whole`` seconds in a whole run."""
        return whole / 5 if self.quick else whole

    def as_json(self) -> dict[str, object]:
        """What a reader of the results wants to know."""
        return {
            "rows": self.rows,
            "rounds": self.rounds,
            "target_recall": self.recall,
            "ef_construction": self.ef_construction,
            "quick": self.quick,
        }


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
