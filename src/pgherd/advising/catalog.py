"""Reads what a server says of itself, its vector tables and their indexes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from ..errors import BadInput
from ..model.schema import Column, VectorType
from ..model.vectors import metric_of_opclass
from .facts import Server, VectorColumn, VectorIndex
from .session import Looking, know_vectors, one, script

LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
COUNTED_ROWS = 100_000
"""Tables that look smaller than this are counted, where the estimate may be far off."""
DEFAULTS = {"hnsw": {"m": "16", "ef_construction": "64"}, "ivfflat": {"lists": "100"}}
"""pgvector's parameters where the index names none (pgvector 0.8, README, Index Options)."""


def read_server(connection: Looking, unseen: list[str]) -> Server:
    """The server, pgvector's names made known to the session. Raises BadInput for a database without pgvector."""
    row = one(connection, "server")
    if row["pgvector"] is None:
        name = connection.info.dbname
        raise BadInput(f"database {name!r} has no pgvector", hint="name a database with vectors in it in --dsn")
    know_vectors(connection, row["vector_schema"])
    memory = cores = None
    if row["reads_files"]:
        memory, cores = _memory(connection), _cores(connection)
    else:
        unseen.append(
            "the machine's memory and cores: only roles that may read the server's files see them (--memory, --cores)"
        )
    disk, taken = _disk(connection, row["data_directory"])
    if disk is None:
        unseen.append("the disk's size: SQL does not tell it (--disk)")
    if row["in_herd"]:
        unseen.append("shards on other servers of this herd, if it has any: only this server was looked at")
    return Server(
        row["version"],
        row["pgvector"],
        row["shared_buffers"],
        row["effective_cache_size"],
        memory,
        cores,
        disk,
        taken,
        row["database_bytes"],
        row["max_connections"],
        row["standby"],
        row["measured_at"],
        row["database_reset"] or row["server_reset"],
    )


def read_columns(connection: Looking, unseen: list[str]) -> list[VectorColumn]:
    """The columns of vectors that this user may read. Raises BadInput when there are none."""
    found = connection.execute(script("columns").encode()).fetchall()
    name = connection.info.dbname
    if not found:
        raise BadInput(f"database {name!r} has no table with vectors", hint="name another database in --dsn")
    readable = [row for row in found if row["readable"]]
    for row in found:
        if not row["readable"]:
            unseen.append(f"{_shown(row)}.{row['attname']}: no SELECT on it for {connection.info.user}")
        elif row["filtered"]:
            unseen.append(f"{_shown(row)}: rows that its row-level security hides from {connection.info.user}")
    if not readable:
        tables = ", ".join(dict.fromkeys(_shown(row) for row in found))
        raise BadInput(
            f"{connection.info.user} may not read any vectors in database {name!r}",
            hint=f"GRANT SELECT ON {tables} TO {sql.Identifier(connection.info.user).as_string(connection)}",
        )
    columns = []
    for row in readable:
        kind = Column(row["attname"], row["type"]).vector
        if kind is None or kind[0] is VectorType.SPARSEVEC:
            unseen.append(f"{_shown(row)}.{row['attname']}: there is no advice on {row['type']}")
            continue
        vectors = [r["attname"] for r in found if r["oid"] == row["oid"]]
        columns.append(_column(connection, row, kind, vectors, unseen))
    return columns


def _column(
    connection: Looking, row: dict[str, Any], kind: tuple[VectorType, int | None], vectors: list[str], unseen: list[str]
) -> VectorColumn:
    table = one(connection, "table", {"leaves": row["leaves"], "vectors": vectors})
    relation = sql.Identifier(row["nspname"], row["relname"])
    dim = kind[1]
    if dim is None and kind[0] is not VectorType.BIT:
        ask = sql.SQL("SELECT vector_dims({0}) AS dim FROM {1} WHERE {0} IS NOT NULL LIMIT 1")
        first = connection.execute(ask.format(sql.Identifier(row["attname"]), relation)).fetchone()
        dim = first["dim"] if first else None
    rows = max(table["estimate"], 0)
    if rows < COUNTED_ROWS or table["never_analyzed"]:
        try:
            counted = connection.execute(sql.SQL("SELECT count(*) AS n FROM {}").format(relation)).fetchone()
            rows = counted["n"] if counted else rows
        except psycopg.errors.QueryCanceled:
            rows = max(rows, table["live"])
            unseen.append(f"{_shown(row)}: its number of rows; {rows:,} is an estimate (never analyzed)")
    if table["foreign_parts"]:
        unseen.append(f"{_shown(row)}: {table['foreign_parts']} foreign partitions, which are on other servers")
    indexes = connection.execute(script("indexes").encode(), {"leaves": row["leaves"]}).fetchall()
    return VectorColumn(
        _shown(row),
        row["attname"],
        (row["nspname"], row["relname"]),
        row["oid"],
        kind[0],
        dim,
        row["type"],
        table["parts"],
        table["foreign_parts"],
        rows,
        table["heap_bytes"],
        table["toast_bytes"],
        table["indexes_bytes"],
        table["other_width"],
        table["dead"],
        table["inserted"],
        table["deleted"],
        table["heap_hit"],
        table["heap_read"],
        table["toast_hit"],
        table["toast_read"],
        not row["attnotnull"],
        tuple(_index(i) for i in indexes if row["attname"] in (i["attribute"], *(i["uses"] or ()))),
    )


def _index(row: dict[str, Any]) -> VectorIndex:
    held = Column("held", row["type"]).vector or (VectorType.VECTOR, None)
    given = dict(o.split("=", 1) for o in row["options"] or ())
    return VectorIndex(
        row["name"],
        tuple(row["names"]),
        row["method"],
        metric_of_opclass(row["opclass"]),
        held[0],
        held[1],
        {**DEFAULTS[row["method"]], **given},
        row["attribute"] is None,
        row["partial"],
        row["valid"],
        row["bytes"],
        row["scans"],
        row["hit"],
        row["read"],
    )


def _shown(row: dict[str, Any]) -> str:
    return row["relname"] if row["nspname"] == "public" else f"{row['nspname']}.{row['relname']}"


def _file(connection: Looking, path: str) -> str:
    """The start of a file on the server, empty where there is none."""
    try:
        row = connection.execute("SELECT pg_read_file(%s, 0, 4096, true) AS text", [path]).fetchone()
    except psycopg.Error:
        return ""
    return (row["text"] or "") if row else ""


def _memory(connection: Looking) -> int | None:
    """Of the server's machine, or of its container where that is less."""
    total = re.search(r"MemTotal:\s+(\d+) kB", _file(connection, "/proc/meminfo"))
    limit = _file(connection, "/sys/fs/cgroup/memory.max").strip()
    known = [int(total[1]) * 1024] if total else []
    known += [int(limit)] if limit.isdigit() else []
    return min(known, default=None)


def _cores(connection: Looking) -> int | None:
    """From the kernel's list of processors, like ``0-3,8``."""
    parts = _file(connection, "/sys/devices/system/cpu/online").strip().split(",")
    if not all(re.fullmatch(r"\d+(-\d+)?", p) for p in parts):
        return None
    return sum(int(p.partition("-")[2] or p.partition("-")[0]) - int(p.partition("-")[0]) + 1 for p in parts)


def _disk(connection: Looking, directory: str | None) -> tuple[int | None, int]:
    """Size of the file system of a data directory on this very machine, and what is taken of it."""
    if directory is None or not (connection.info.host.startswith("/") or connection.info.host in LOCAL_HOSTS):
        return None, 0
    try:
        usage = shutil.disk_usage(Path(directory))
    except OSError:
        return None, 0
    return usage.used + usage.free, usage.used
