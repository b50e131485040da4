"""``python -m bench.moves``: how fast a shard moves, against a bare pipe of two psql between the same two servers.

One shard of random vectors with a primary key goes from server to server and back. The pipe copies the same rows in the
same format (``COPY … TO STDOUT (FORMAT binary)`` into ``COPY … FROM STDIN``) to a table without a key.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import pgherd
from pgherd import dialect, herdfile
from pgherd.engines.conduct import Conduct
from pgherd.local.herd import LocalHerd
from pgherd.local.installation import find
from pgherd.local.user import server_user
from pgherd.model.names import Name
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName
from pgherd.planning.rebalance import Move
from pgherd.sync import Herd

GROUPS = ("a", "b")
TABLE = "CREATE TABLE {} (id bigint PRIMARY KEY, body text, v vector({}));"
SHARD = "SELECT create_distributed_table('passage', 'id', shard_count => 1);"
BATCH_ROWS = 10_000


def main() -> int:
    """Run and print one JSON document; 1 if ``--check`` and a move is slower than half the pipe."""
    parser = argparse.ArgumentParser(prog="python -m bench.moves", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the shard (%(default)s)")
    parser.add_argument("--dim", type=int, default=256, help="dimensions of its vectors (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="moves, and pipes, that are measured (%(default)s)")
    parser.add_argument("--check", action="store_true", help="fail below half the pipe's speed")
    options = parser.parse_args()
    result = measure_moves(options.rows, options.dim, options.rounds)
    print(json.dumps(result, indent=2))
    return int(options.check and result["whole_move_vs_pipe"] < 0.5)


def measure_moves(rows: int, dim: int, rounds: int) -> dict[str, Any]:
    """Medians of ``rounds`` turns, on two servers of their own; rates in MB (10^6 bytes) of COPY's format a second."""
    with tempfile.TemporaryDirectory(prefix="pgherd-bench-moves-") as place:
        Path(place).chmod(0o711)
        local = LocalHerd(Path(place) / "herd")
        try:
            local.up([Label.parse(g) for g in GROUPS], EngineName.FLEET)
            with pgherd.connect(home=local.home) as herd:
                herd.execute(herd.plan(dialect.parse(TABLE.format("passage", dim) + SHARD)))
                _fill(herd, rows, dim)
                turns = [_turn(local.home, herd, i) for i in range(rounds)]
        finally:
            local.destroy()
    pipe, copy, whole = (median(t[key] for t in turns) for key in ("pipe", "copy", "whole"))
    return {
        "rows": rows,
        "dim": dim,
        "rounds": rounds,
        "pipe_mb_s": round(pipe, 1),
        "copy_mb_s": round(copy, 1),
        "whole_move_mb_s": round(whole, 1),
        "copy_vs_pipe": round(median(t["copy"] / t["pipe"] for t in turns), 3),
        "whole_move_vs_pipe": round(median(t["whole"] / t["pipe"] for t in turns), 3),
        "writers_waited_ms": [t["waited"] for t in turns],
        "turns": turns,
    }


def _fill(herd: Herd, rows: int, dim: int) -> None:
    random = np.random.default_rng(1)
    for first in range(0, rows, BATCH_ROWS):
        ids = list(range(first, min(first + BATCH_ROWS, rows)))
        vectors = random.standard_normal((len(ids), dim)).astype(np.float32)
        herd.table("passage").insert(
            [{"id": i, "body": f"passage {i}", "v": v} for i, v in zip(ids, vectors, strict=True)]
        )


def _turn(home: Path, herd: Herd, turn: int) -> dict[str, Any]:
    source, target = GROUPS if turn % 2 == 0 else GROUPS[::-1]
    for group in GROUPS:
        herd.sql("CHECKPOINT", region=group)
    seconds = _pipe(home, herd, source, target)
    move = Move((Name("public", "passage_0"),), herd.topology.group(source).name, herd.topology.group(target).name, 1)
    conduct = Conduct()
    started = time.perf_counter()
    herd.execute(herd._inner.engine.plan_moves((move,)), None, conduct)
    whole_s = time.perf_counter() - started
    (moved,) = conduct.moved
    waiting_s = whole_s - moved.copy_s - moved.index_s - moved.catch_up_s - moved.commit_s
    return {
        "pipe": moved.bytes / seconds / 1e6,
        "copy": moved.bytes / moved.copy_s / 1e6,
        "whole": moved.bytes / (whole_s - max(0.0, waiting_s - 1.0)) / 1e6,
        "waited": round(moved.writers_waited_ms, 1),
        "whole_s": round(whole_s, 2),
        "other_s": round(waiting_s, 2),
        **moved.as_json(),
    }


def _pipe(home: Path, herd: Herd, source: str, target: str) -> float:
    """Seconds that two psql take to copy the shard to a plain table of the other server."""
    herd.sql("CREATE TABLE public.piped (LIKE public.passage)", region=target)
    try:
        file, programs = herdfile.read(home), find(server_user(), None)
        psql = [str(programs.program("psql")), "-qX", "-v", "ON_ERROR_STOP=1"]
        out = [*psql, file.dsn(home, source), "-c", "COPY public.passage_0 TO STDOUT (FORMAT binary)"]
        into = [*psql, file.dsn(home, target), "-c", "COPY public.piped FROM STDIN (FORMAT binary)"]
        started = time.perf_counter()
        with subprocess.Popen(out, stdout=subprocess.PIPE, env=dict(programs.env)) as giving:
            subprocess.run(into, stdin=giving.stdout, env=dict(programs.env), check=True)
        return time.perf_counter() - started
    finally:
        herd.sql("DROP TABLE public.piped", region=target)


if __name__ == "__main__":
    sys.exit(main())
