"""One pgherd command at a time changes a home: a lock that the operating system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import AlreadyRunning, LocalServerError, NoSuchHerd

FILE_NAME = "lock"
DRILL_NAME = "drill.lock"
BACKUP_NAME = "backup.lock"
_POLL_S = 0.05


@contextmanager
def locked(home: Path, wait_s: float, name: str = FILE_NAME, who: str = "another pgherd command") -> Iterator[None]:
    """Hold ``<home>/lock``, or another file of the home, waiting up to ``wait_s`` for it.

    Raises AlreadyRunning if another command holds it for longer, NoSuchHerd if the home is not there.
    """
    deadline = time.monotonic() + wait_s
    while (fd := _try(home / name)) is None:
        if time.monotonic() > deadline:
            raise AlreadyRunning(f"{who} is working on {home}", hint="wait for it to end, then call again")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(fd)


def _try(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchHerd(f"there is no herd in {path.parent}", hint="make one with `pgherd up`") from None
    except OSError as e:
        raise LocalServerError(
            f"{path} cannot be opened: {e.strerror}", hint="run as the user who made the herd, or name another --home"
        ) from e
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # `destroy` removes the file while it holds it: a lock on a file that is no longer there protects nothing.
        if os.fstat(fd).st_ino == path.stat().st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None
