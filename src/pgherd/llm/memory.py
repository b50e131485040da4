"""How much memory a query may take, where its server is on this machine.

PostgreSQL limits sorts and hashes, but not the values that the expressions of one row build, and looks for a timeout
only between rows: a few kilobytes of SQL can ask for hundreds of gigabytes. So the system is asked to refuse them: the
server then ends the query with an error, and goes on. Source: prlimit(2), RLIMIT_DATA, which leaves shared buffers out.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from pathlib import Path

from ..engines.base import Connection


async def limit_memory(connection: Connection, pid: int, limit_bytes: int) -> bool:
    """Let the server's process ``pid`` of this connection take so much private memory; whether that could be done.

    It can't where the server is elsewhere, runs as another user, or this is not Linux.
    """
    if not hasattr(resource, "prlimit") or not _serves(connection, pid):
        return False
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    except PermissionError:
        return os.geteuid() == 0 and await _as_its_user(pid, limit_bytes)
    except OSError:
        return False
    return True


def _serves(connection: Connection, pid: int) -> bool:
    """Whether the process of that number here is the one at the other end: its title names our port."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as wire:
            port = wire.getsockname()[1]
    except (OSError, LookupError):
        return False
    return title.startswith("postgres: ") and f" {connection.info.user} " in title and f"({port}) " in title


async def _as_its_user(pid: int, limit_bytes: int) -> bool:
    """The same by the program prlimit, run as the process's user: in a container even root may not limit others'."""
    try:
        owner = Path(f"/proc/{pid}").stat()
        program = await asyncio.create_subprocess_exec(
            "prlimit", f"--pid={pid}", f"--data={limit_bytes}", cwd="/", user=owner.st_uid, group=owner.st_gid,
            extra_groups=[], stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await program.wait() == 0
    except OSError:
        return False
