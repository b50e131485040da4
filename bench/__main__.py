"""``python -m bench``: bring up one server and a fleet of two, measure both in turns, and say how they compare."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pgherd

from .data import QUESTIONS, corpus
from .herds import BY_REGION, FLEET_2, apply_tables, running, settle
from .load import batches, insert, measure_load
from .machine import busy_share, described
from .report import document, goals, tables, write
from .search import TARGET_RECALL, measure_search

ROWS = 200_000
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run, print the table, and keep the results of a whole run; 1 if ``--check`` and a goal is missed."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped and removed
    result, reached = run(options.rows, options.rounds, options.ef_construction, options.recall)
    print(tables(result, reached))
    out = options.out or (RESULTS if options.rows == ROWS else None)
    if out is not None:
        write(result, reached, out)
        say(f"written to {out}")
    return int(options.check and not all(g.met for g in reached))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="how many rows (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (%(default)s)")
    parser.add_argument("--ef-construction", type=int, default=64, help="of the indexes (%(default)s)")
    parser.add_argument("--recall", type=float, default=TARGET_RECALL, help="recall@10 of all searches (%(default)s)")
    parser.add_argument("--out", type=Path, help=f"where results go ({RESULTS.name}/ for a run of {ROWS} rows)")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    options = parser.parse_args()
    if options.rows < 1000 or options.rounds < 1:
        parser.error("at least 1000 rows and 1 round")
    return options


def run(rows: int, rounds: int, ef_construction: int, target_recall: float) -> tuple[dict[str, Any], list[Any]]:
    """One whole run on servers of its own: the result document, and the goals."""
    started = time.perf_counter()
    busy = {"busy_before": busy_share(), "average_before": _load_average()}
    say("embedding")
    data = corpus(rows)
    say("starting servers")
    with running() as pair, pgherd.connect(home=pair.single) as single, pgherd.connect(home=pair.fleet) as fleet:
        apply_tables(single, fleet)
        say(f"loading {rows:,} rows, {rounds} rounds")
        load = measure_load(pair, single, fleet, data, rounds)
        for table in (FLEET_2, BY_REGION):
            insert(fleet, table, batches(data))
        say("building indexes")
        apply_tables(single, fleet, ef_construction)
        settle(pair, single, fleet)
        search, plans = measure_search(pair, single, fleet, data, rounds, target_recall, say)
        machine = described(pair)
    busy |= {"average_after": _load_average(), "busy_after": busy_share()}
    settings = {
        "rows": rows,
        "rounds": rounds,
        "questions": QUESTIONS,
        "ef_construction": ef_construction,
        "target_recall": target_recall,
        "seconds": round(time.perf_counter() - started, 1),
        "file": f"{rows}-rows.json",
    }
    about = {"machine": machine, "settings": settings, "load": busy}
    return document(search, load, plans, about), goals(search, load)


def _load_average() -> float:
    return round(os.getloadavg()[0], 2)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
