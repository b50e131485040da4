"""``python -m bench [SUITE …]``: measure on servers of its own, in turns, and say how it compares with the goals."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import citus, report, stores
from .herds import running
from .machine import busy_share, described
from .setting import QUICK_ROWS, ROWS, TARGET_RECALL, Setting, say

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run suites, print their tables, keep the results of whole runs; 1 if one fails, or misses with ``--check``."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped and removed
    setting = Setting(
        rows=options.rows or (QUICK_ROWS if options.quick else ROWS),
        rounds=options.rounds or (2 if options.quick else 5),
        recall=options.recall,
        ef_construction=options.ef_construction,
        quick=options.quick,
        citus=os.environ.get(citus.VARIABLE) or None,
        peers=stores.interpreter(),
    )
    out = options.out or (RESULTS if setting.rows == ROWS and not setting.quick else None)
    wanted = report.ORDER if "all" in options.suites else [s for s in report.ORDER if s in options.suites]
    with running(one=1) as servers:
        machine = described(servers["one"])
    documents, failed = [], []
    for suite in wanted:
        try:
            documents.append(_measured(suite, setting, machine))
        except Exception:  # noqa: BLE001  # the other suites are worth having
            traceback.print_exc()
            failed.append(suite)
            continue
        print(f"# {documents[-1]['title']}\n\n{report.tables(documents[-1])}", flush=True)
        if out is not None:
            report.write(documents[-1:], out)
    print("# Goals\n\n" + report.goals_table(documents))
    if out is not None:
        say(f"written to {out}")
    for suite in failed:
        say(f"suite {suite} failed: see above")
    missed = [g["what"] for d in documents for g in d["goals"] if not g["met"]]
    return int(bool(failed) or (options.check and bool(missed)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suites", nargs="*", default=["all"], help=f"all, or some of: {', '.join(report.ORDER)}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows, 2 rounds: to see that it works")
    parser.add_argument("--rows", type=int, help=f"how many rows ({ROWS})")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement (5)")
    parser.add_argument("--ef-construction", type=int, default=64, help="of the indexes (%(default)s)")
    parser.add_argument("--recall", type=float, default=TARGET_RECALL, help="recall@10 of all searches (%(default)s)")
    parser.add_argument("--out", type=Path, help=f"where results go ({RESULTS.name}/ for a run of {ROWS} rows)")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    options = parser.parse_args()
    unknown = set(options.suites) - {*report.ORDER, "all"}
    if unknown:
        parser.error(f"there is no suite {', '.join(sorted(unknown))}")
    if (options.rows is not None and options.rows < 5000) or (options.rounds is not None and options.rounds < 1):
        parser.error("at least 5000 rows and 1 round")
    return options


def _measured(suite: str, setting: Setting, machine: dict[str, Any]) -> dict[str, Any]:
    """One suite's document."""
    say(f"suite {suite}")
    busy = {"busy_before": busy_share()}
    started = time.perf_counter()
    outcome = importlib.import_module(f".{suite}", __package__).run(setting)
    seconds = round(time.perf_counter() - started, 1)
    say(f"suite {suite} took {seconds:.0f} s")
    return {
        **outcome.as_json(),
        "day": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "settings": setting.as_json(),
        "load": busy | {"busy_after": busy_share()},
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
