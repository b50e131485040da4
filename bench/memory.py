"""Memory of a client that loads a large parquet file: the peak of a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import pgherd

from . import herds
from .data import described, stream
from .herds import Servers, apply, directory, running
from .measure import Series
from .outcome import Outcome, Table, plain
from .setting import Setting, say

TABLE = "passage"
DIM = 384
GOAL_MB = 500.0
ROW_GROUPS = {"row groups of 20,000": 1, "row groups of 200,000": 10}
"""Batches of ``data.BATCH_ROWS`` in a row group: writers differ, and a reader must hold what it can't read in part."""

_LOAD = """
import asyncio, json, sys, time
from pathlib import Path
from pgherd.client import connect_async
from pgherd.loading import load

async def main():
    async with connect_async(home=sys.argv[1]) as herd:
        return await load(herd, sys.argv[2], Path(sys.argv[3]), restart=True)

cpu = time.process_time()
done = asyncio.run(main())
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({"rows": done.rows, "rejected": done.rejected, "seconds": done.seconds,
                  "cpu_s": time.process_time() - cpu, "peak_kib": int(status["VmHWM"].split()[0])}))
"""
"""The peak is the kernel's high-water mark of resident memory since exec. Source: proc(5), VmHWM."""


def run(setting: Setting) -> Outcome:
    """Write the file in a stream, then load it into two groups; once for each way to write it: a peak has no noise."""
    rows = setting.memory_rows
    table, peaks, found = [], Series("peak"), {}
    with directory() as base, running(two=2) as servers:
        for name, batches in ROW_GROUPS.items():
            say(f"writing {rows:,} x {DIM} to parquet, {name}")
            path = base / "rows.parquet"
            _write(path, rows, batches)
            say("loading it")
            answer = _loaded(servers["two"], path, rows)
            peak = answer["peak_kib"] * 1024 / 1e6
            peaks.rounds.append(peak)
            found[name] = {**answer, "file_bytes": path.stat().st_size}
            size = f"{path.stat().st_size / 1e6:,.0f}"
            table.append([name, size, f"{peak:.0f}", f"{answer['rows'] / answer['seconds']:,.0f}"])
            path.unlink()
    worst = Series("peak", [max(peaks.rounds)])
    return Outcome(
        "memory",
        "Memory of a loading client",
        f"{rows:,} rows: {described(DIM)}, as a parquet file, loaded into two groups by `pgherd load`'s own function in"
        " a process that does nothing else; its peak resident memory, interpreter and libraries included.",
        [plain(f"peak memory of a client that loads {rows:,} x {DIM}", worst, GOAL_MB, "MB")],
        [Table("Parquet files", ["file", "file MB", "peak MB", "rows/s"], table)],
        numbers=found,
    )


def _write(path: Path, rows: int, batches: int) -> None:
    """Uncompressed, as vectors don't compress; a row group is as many batches as asked for."""
    writer, held = None, []
    for batch in stream(rows, DIM):
        held.append(batch)
        if len(held) == batches:
            writer = _append(writer, path, held)
    if held:
        writer = _append(writer, path, held)
    assert writer is not None
    writer.close()


def _append(writer: pq.ParquetWriter | None, path: Path, held: list[object]) -> pq.ParquetWriter:
    table = pa.concat_tables(held).combine_chunks()
    writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
    writer.write_table(table, row_group_size=table.num_rows)
    held.clear()
    return writer


def _loaded(servers: Servers, path: Path, rows: int) -> dict[str, float]:
    text = f"CREATE TABLE {TABLE} (id bigint NOT NULL, code text, description text, embedding vector({DIM}),"
    text += f" PRIMARY KEY (id)); SELECT create_distributed_table('{TABLE}', 'id', shard_count => 2);"
    with pgherd.connect(home=servers.home) as herd:
        apply(herd, text)
        for group, relation in herds.shards(herd, TABLE):
            with servers.connect(group) as connection:
                connection.execute(f"TRUNCATE {relation}")
        command = [sys.executable, "-c", _LOAD, str(servers.home), TABLE, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the loading client failed: {done.stderr[-2000:]}")
        answer: dict[str, float] = json.loads(done.stdout)
        there = herd.sql(f"SELECT count(*) AS n FROM {TABLE}")[0]["n"]
    if answer["rows"] != rows or there != rows:
        raise AssertionError(f"{answer['rows']} rows were loaded, {there} are there, {rows} are in the file")
    return answer
