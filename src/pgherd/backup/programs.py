"""PostgreSQL's own programs for backups: pg_basebackup, pg_verifybackup, pg_waldump; run as the caller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackupFailed
from ..local.installation import Installation

_PASSED_ON = ("PATH", "TMPDIR", "HOME")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it said."""

    status: int
    said: str


async def run(installation: Installation, name: str, arguments: Sequence[str | Path]) -> Ended:
    """Run a program to its end; it is stopped if the caller is cancelled. Raises BackupFailed without the program."""
    program = installation.program(name)
    env = {k: os.environ[k] for k in _PASSED_ON if k in os.environ} | installation.env
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            start_new_session=True,  # Ctrl-C reaches pgherd alone, which then ends in an orderly way
        )
    except OSError as error:
        raise BackupFailed(
            f"{program} cannot be run: {error.strerror}", hint="install PostgreSQL's programs"
        ) from error
    try:
        _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, said.decode(errors="replace").strip())
