"""How a local server is configured: its ``pgherd.conf``, sized to a share of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "pgherd.conf"
INCLUDE = f"\ninclude '{FILE_NAME}'  # written by pgherd at every start; ALTER SYSTEM overrides it\n"

_MB = 1024 * 1024

_FIXED: dict[str, str | int] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    # Durable: an acknowledged write survives a crash.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Moving shards and committing on several servers at once.
    "wal_level": "logical",
    "max_prepared_transactions": 64,
    "max_connections": 200,
    "max_wal_senders": 10,
    "max_replication_slots": 20,
    "max_logical_replication_workers": 12,
    "max_locks_per_transaction": 256,
    # Archiving can be switched on without a restart (pgherd backup does); until then nothing is kept. `always`: a
    # standby archives too, so that the archive has no gap when it takes over.
    "archive_mode": "always",
    "archive_command": "true",
    "autovacuum": "on",
    "autovacuum_work_mem": "64MB",
    "random_page_cost": "1.1",
    "jit": "off",
    # No row, parameter or password in the log: it lies outside the tables that placement is promised for. Statements,
    # DETAIL lines and messages of failed statements quote values; the client gets them all the same.
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": -1,
    "log_parameter_max_length": 0,
    "log_parameter_max_length_on_error": 0,
    "log_line_prefix": "%m [%p] ",
}
_AUDITED_PREFIX = "%m [%p] %u@%d %h "
"""pgaudit's lines say neither role nor address."""
_PRELOADED = re.compile(r"^\s*shared_preload_libraries\s*=?\s*'([^']*)'", re.MULTILINE)
TLS: dict[str, str | int] = {
    "ssl": "on",
    # One file, so that key and certificate change together; relative to the data directory (local/certificates.py).
    "ssl_cert_file": "../server.pem",
    "ssl_key_file": "../server.pem",
    "ssl_min_protocol_version": "TLSv1.2",
}
HBA_FILE = "pg_hba.conf"
HBA = (
    "local all all scram-sha-256",
    "hostnossl all all all reject",
    "hostnossl replication all all reject",
    "hostssl all all 127.0.0.1/32 scram-sha-256",
    "hostssl all all ::1/128 scram-sha-256",
    "hostssl replication all 127.0.0.1/32 scram-sha-256",
    "hostssl replication all ::1/128 scram-sha-256",
)
"""Who may log in to a server with TLS: nobody without it. Source: PostgreSQL 18 manual, 20.1 "The pg_hba.conf File"."""
_HEAD = "# Written by pgherd at every start: changes made here are lost. Use ALTER SYSTEM.\n"


def parameters(share: int) -> dict[str, str | int]:
    """The settings, but for the port, of one of ``share`` servers that have this machine among them."""
    memory, cpus = machine_memory_bytes(), os.cpu_count() or 1
    zone = "UTC" if Path("/usr/share/zoneinfo/UTC").exists() else "GMT"  # GMT needs no time zone database
    # Parallel index builds share memory in /dev/shm, often 64 MB in a container; System V's has no such limit.
    shared_memory = "posix" if _free_bytes(Path("/dev/shm")) > 1024 * _MB else "sysv"  # noqa: S108
    return _FIXED | {
        "timezone": zone,
        "log_timezone": zone,
        "dynamic_shared_memory_type": shared_memory,
        "shared_buffers": f"{_part(memory, 4 * share, low=min(128, memory // (8 * share * _MB)), high=8192)}MB",
        "maintenance_work_mem": f"{_part(memory, 8 * share, low=32, high=1024)}MB",
        "effective_cache_size": f"{_part(memory, 2 * share, low=128, high=1 << 20)}MB",
        "max_worker_processes": 24 + 2 * cpus,
        "max_parallel_workers": max(2, cpus),
        "max_parallel_maintenance_workers": max(1, min(4, cpus // 2)),
    }


def audited(data: Path) -> dict[str, str | int]:
    """What a server has besides where pgaudit is there: it is loaded, beside what ``data``'s own file loads.

    It does nothing until the herd keeps an audit trail (engines/sql/trail.sql); then no restart is needed.
    """
    own = next((p for n in ("postgresql.base.conf", "postgresql.conf") if (p := data / n).exists()), None)  # Patroni's
    listed = _PRELOADED.findall(own.read_text(encoding="utf-8", errors="replace")) if own else []
    libraries = [x.strip() for x in (listed[-1] if listed else "").split(",") if x.strip()]
    wanted = ", ".join(dict.fromkeys([*libraries, "pgaudit"]))
    return {"shared_preload_libraries": wanted, "log_line_prefix": _AUDITED_PREFIX}


def text(port: int, share: int, tls: bool = False, more: Mapping[str, str | int] | None = None) -> str:
    """The configuration file of such a server, with ``more`` settings."""
    chosen = {**parameters(share), **(TLS if tls else {}), **(more or {}), "port": port}
    return _HEAD + "".join(f"{name} = '{value}'\n" for name, value in chosen.items())


def hba_text() -> str:
    """The ``pg_hba.conf`` of a server with TLS."""
    return "# Written by pgherd at every start. To have your own, name it: ALTER SYSTEM SET hba_file.\n" + "".join(
        f"{line}\n" for line in HBA
    )


def machine_memory_bytes() -> int:
    """The memory of this machine, or of this container where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(physical, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return physical


def _part(memory: int, parts: int, *, low: int, high: int) -> int:
    return max(1, low, min(high, memory // parts // _MB))


def _free_bytes(directory: Path) -> int:
    try:
        info = os.statvfs(directory)
    except OSError:
        return 0
    return info.f_bavail * info.f_frsize
