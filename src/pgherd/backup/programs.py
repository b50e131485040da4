"""Running PostgreSQL's programs and those of backup tools to their end, with a small environment of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BackupFailed
from ..local.user import ServerUser

_PASSED_ON = ("PATH", "TMPDIR", "HOME")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, what it said (stderr), and what it printed (stdout)."""

    status: int
    said: str
    printed: str


async def run(
    program: Path, arguments: Sequence[str | Path], env: Mapping[str, str], user: ServerUser | None = None
) -> Ended:
    """Run a program, as ``user`` or the caller; it is stopped if the caller is cancelled. BackupFailed without it."""
    whole = {k: os.environ[k] for k in _PASSED_ON if k in os.environ} | dict(env)
    options: dict[str, Any] = {}
    if user is not None and user.drops:
        options = {"user": user.uid, "group": user.gid, "extra_groups": [], "cwd": "/"}
        whole.pop("HOME", None)
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=whole,
            start_new_session=True,  # Ctrl-C reaches pgherd alone, which then ends in an orderly way
            **options,
        )
    except OSError as error:
        raise BackupFailed(f"{program} cannot be run: {error.strerror}", hint="install it") from error
    try:
        printed, said = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with those that it has started
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, said.decode(errors="replace").strip(), printed.decode(errors="replace"))
