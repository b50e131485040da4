"""Files that hold secrets: read only if nobody else can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import UnsafeSetting

MAX_BYTES = 1 << 16


def read_secret(path: Path, what: str) -> str:
    """The text of a file that only its owner, who is us, can read; UnsafeSetting says what is wrong with another."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UnsafeSetting(f"{what} {path} can't be read: {error.strerror}", hint="name a file of your own") from error
    try:
        _check(os.fstat(fd), path, what)
        return os.read(fd, MAX_BYTES).decode("utf-8", "replace")
    finally:
        os.close(fd)


def refuse_open(path: Path, what: str) -> None:
    """Raise UnsafeSetting for a secret, whoever's it is, that others than its owner can get at; none is no secret."""
    try:
        found = path.stat()
    except OSError:
        return
    _check_mode(found, path, what)


def _check(found: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeSetting(f"{what} {path} is not a plain file", hint="write the secret into a file")
    _check_mode(found, path, what)
    if found.st_uid != os.geteuid():
        raise UnsafeSetting(f"{what} {path} belongs to another user", hint="copy it to a file of your own")


def _check_mode(found: os.stat_result, path: Path, what: str) -> None:
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise UnsafeSetting(
            f"{what} {path} has mode {mode:04o}: others than its owner can get at it", hint=f"chmod 600 {path}"
        )
