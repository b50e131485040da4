"""What the numbers were measured on, and what else it was busy with."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pgherd.local.settings import machine_memory_bytes

from .herds import Servers


def described(servers: Servers) -> dict[str, Any]:
    """Processor, memory and versions."""
    with servers.connect() as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), default_version FROM pg_available_extensions"
            " WHERE name = 'vector'"
        ).fetchone()
    assert row is not None
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_gib": round(machine_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": row[0],
        "pgvector": row[1],
        **{name: version(name) for name in ("psycopg", "numpy", "pgherd")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def busy_share(seconds: float = 2.0) -> float | None:
    """The share of all processors that is in use (0 to 1) while this process sleeps; None where it can't be told."""
    before = _jiffies()
    time.sleep(seconds)
    after = _jiffies()
    if before is None or after is None:
        return None
    total, idle = after[0] - before[0], after[1] - before[1]
    return round(1 - idle / total, 3) if total else None


def _jiffies() -> tuple[int, int] | None:
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    values = [int(f) for f in fields]
    return sum(values), values[3] + values[4]
