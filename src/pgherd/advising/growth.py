"""How fast tables grow and are searched: from the server's counters, twice or since they began."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .facts import Rates, VectorColumn

DAY_S = 86_400.0
LEAST_S = DAY_S
"""Counters that began later than this say nothing of a day."""
SINCE_WEAKNESS = (
    "an average since the counters began: a bulk load counts as growth, and what happened before a crash is missing."
    " Searches that pgherd advise made count, too. Keep a --json report and compare with it (--since FILE)"
)
SAMPLE_WEAKNESS = "a short look: the time of day decides; counters arrive up to a second late"
REPORT_WEAKNESS = "an average between the two reports; nothing, if the counters were reset or a crash lost them"


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server had counted of one column's table at one time."""

    at: datetime
    rows: int
    inserted: int
    deleted: int
    scans: int


def counters(columns: Sequence[VectorColumn], at: datetime) -> dict[str, Counters]:
    """Of each column by name."""
    return {c.name: Counters(at, c.rows, c.inserted, c.deleted, sum(i.scans for i in c.indexes)) for c in columns}


def since_beginning(now: Counters, began: datetime | None) -> Rates:
    """From what was counted since the server's statistics began."""
    if began is None or (now.at - began).total_seconds() < LEAST_S:
        return Rates(
            None,
            None,
            "not known",
            "the server's counters began less than a day ago: give --growth and --qps, or use --sample-s or --since",
        )
    seconds = (now.at - began).total_seconds()
    grown = max(0, now.inserted - now.deleted)
    source = f"rows inserted less rows deleted since {began:%Y-%m-%d %H:%M} ({_long(seconds)})"
    return Rates(grown / seconds * DAY_S, now.scans / seconds, source, SINCE_WEAKNESS)


def between(before: Counters, now: Counters, weakness: str) -> Rates:
    """From what was counted between two looks."""
    seconds = (now.at - before.at).total_seconds()
    if seconds <= 0:
        raise BadInput("the earlier report is not earlier than now", hint="give the --json report of another day")
    if now.inserted < before.inserted or now.scans < before.scans:
        # Reset in between: what tables hold is all that can still be compared.
        grown, searches = max(0, now.rows - before.rows), None
    else:
        grown = max(0, now.inserted - before.inserted - (now.deleted - before.deleted))
        searches = (now.scans - before.scans) / seconds
    source = f"two looks, {_long(seconds)} apart"
    return Rates(grown / seconds * DAY_S, searches, source, weakness)


def read_report(path: Path) -> dict[str, Counters]:
    """The counters in an earlier ``--json`` report. Raises BadInput for another file."""
    try:
        measured: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["measured"]
        at = datetime.fromisoformat(measured["at"])
        return {
            c["name"]: Counters(at, c["rows"], c["inserted"], c["deleted"], sum(i["scans"] for i in c["indexes"]))
            for c in measured["columns"]
        }
    except OSError as error:
        raise BadInput(
            f"{path} can't be read: {error.strerror}", hint="give the file of an earlier --json report"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "make one with: pgherd advise --dsn … --json > report.json"
        raise BadInput(f"{path} is no report of pgherd advise --dsn", hint=hint) from error


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * DAY_S:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / DAY_S:.1f} days"
