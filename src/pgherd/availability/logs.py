"""Logs that don't fill the disk: one that has grown large becomes ``NAME.1``, and begins anew.

Whoever writes it has it open for appending, and goes on at its new end; what is written in the moment between copying
and truncating is lost.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

LIMIT_BYTES = 16 << 20


def before(log: Path) -> Path:
    """Where the lines are that a log had when it last began anew."""
    return log.with_name(f"{log.name}.1")


def trim(log: Path, owner: tuple[int, int] | None = None, limit_bytes: int = LIMIT_BYTES) -> bool:
    """Begin ``log`` anew if it is larger; whether it was. What is kept belongs to ``owner``; links are not followed."""
    with suppress(OSError):
        if log.lstat().st_size <= limit_bytes:
            return False
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        kept = before(log)
        kept.unlink(missing_ok=True)
        with (
            open(os.open(log, os.O_RDWR | flags), "rb+") as old,  # noqa: PTH123 - not through links
            open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600), "wb") as new,  # noqa: PTH123
        ):
            if owner is not None:
                os.fchown(new.fileno(), *owner)
            shutil.copyfileobj(old, new)
            os.ftruncate(old.fileno(), 0)
            return True
    return False
