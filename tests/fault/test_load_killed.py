"""A load killed with SIGKILL at any moment, and started again, has every row exactly once."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import apply
from pgherd.client import connect_async
from pgherd.loading import Loaded, load
from pgherd.sync import Herd

ROWS = 24_000
BAD_EVERY = 100
BATCH_ROWS = 250
KILLS = 5

SCHEMA = """
CREATE TABLE event (region text NOT NULL, n bigint, note text) PARTITION BY LIST (region);
CREATE TABLE event_e PARTITION OF event FOR VALUES IN ('east');
CREATE TABLE event_c PARTITION OF event FOR VALUES IN ('central');
CREATE TABLE event_w PARTITION OF event FOR VALUES IN ('west');
"""
"""Without a key: nothing but the load itself keeps a row from being there twice."""

LOADER = """
import asyncio, sys
from pathlib import Path
from pgherd.client import connect_async
from pgherd.loading import load

async def main():
    async with connect_async(home=sys.argv[1]) as herd:
        say = lambda p: print(p.rows, flush=True)
        await load(herd, "event", Path(sys.argv[2]), batch_rows=int(sys.argv[3]), progress=say)

asyncio.run(main())
"""


def _write(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["region", "n", "note"])
        for i in range(ROWS):
            region = ("east", "central", "west")[i % 3]
            writer.writerow([region, "bad" if i % BAD_EVERY == 0 else i, f'note\n"{i}"'])


def _kill_after(home: Path, file: Path, commits: int, delay_s: float) -> bool:
    """Start a load, kill it that long after it has reported so many commits; whether it was still running."""
    arguments = [sys.executable, "-c", LOADER, str(home), str(file), str(BATCH_ROWS)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as loader:
        assert loader.stdout is not None
        for _ in range(commits):
            loader.stdout.readline()
        try:
            loader.wait(delay_s)
        except subprocess.TimeoutExpired:
            loader.kill()
        loader.stdout.read()
        return loader.wait() == -signal.SIGKILL


@pytest.mark.parametrize("engine", ["single", "fleet"])
def test_every_row_once_however_often_the_load_is_killed(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home: Path = request.getfixturevalue(f"{engine}_db")
    herd: Herd = request.getfixturevalue(engine)
    apply(herd, SCHEMA)
    file = tmp_path / "event.csv"
    _write(file)
    chance = random.Random(7)
    killed = sum(_kill_after(home, file, chance.randint(0, 6), chance.random() / 20) for _ in range(KILLS))
    assert killed == KILLS, "the load must not be done before the last kill"

    async def finish() -> Loaded:
        async with connect_async(home=home) as client:
            return await load(client, "event", file, batch_rows=BATCH_ROWS * 10)

    rest = asyncio.run(finish())
    good = [i for i in range(ROWS) if i % BAD_EVERY]
    assert rest.resumed_from > 0
    assert (rest.total_rows, rest.total_rejected) == (len(good), ROWS // BAD_EVERY)
    found: Any = herd.sql("SELECT count(*), count(DISTINCT n) AS numbers, sum(n) FROM event")[0]
    assert found == {"count": len(good), "numbers": len(good), "sum": sum(good)}
    assert rest.reject_file is not None
    lines = [json.loads(line)["line"] for line in rest.reject_file.read_text().splitlines()]
    assert lines == [2 + 2 * i for i in range(0, ROWS, BAD_EVERY)]
