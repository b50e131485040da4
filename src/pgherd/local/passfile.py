"""The libpq password file of a local herd: ``<home>/pgpass``, mode 0600.

Source: PostgreSQL 18 manual, 32.16 "The Password File".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from ..herdfile import write_atomically
from ..secretfile import refuse_open

_FIELD = re.compile(r"((?:[^:\\]|\\.)*)(?::|\Z)")


def new_password() -> str:
    """A fresh password, 192 bits, of characters that need no quoting anywhere."""
    return secrets.token_urlsafe(24)


def write(path: Path, servers: Iterable[tuple[str, int | None]], user: str, password: str) -> None:
    """Write one line per (host, port), good for every database; port None stands for any."""
    lines = (entry(host, str(port or "*"), "*", user, password) for host, port in servers)
    write_atomically(path, "".join(lines), mode=0o600)


def put(path: Path, host: str, port: int, user: str, password: str | None) -> None:
    """Set one server's password, or with None take it out; other lines of the file stay as they are."""
    old = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    mine = f"{_escaped(host)}:{port}:*:{_escaped(user)}:"
    new = [line for line in old if not line.startswith(mine)]
    if password is not None:
        new.insert(0, entry(host, str(port), "*", user, password))  # the first that matches wins
    if new != old:
        write_atomically(path, "".join(new), mode=0o600)


def entry(host: str, port: str, dbname: str, user: str, password: str) -> str:
    """A line of the file; ``*`` stands for any host, port or database."""
    return ":".join(map(_escaped, (host, port, dbname, user, password))) + "\n"


def lookup(path: Path, host: str, port: int, dbname: str, user: str) -> str | None:
    """The password that libpq would take from the file, or None: the first line that matches wins.

    Raises UnsafeSetting for a file that others can read.
    """
    refuse_open(path, "the password file")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    return find(text, host, port, dbname, user)


def find(text: str, host: str, port: int, dbname: str, user: str) -> str | None:
    """The same, from the text of such a file."""
    wanted = (host, str(port), dbname, user)
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        fields = [re.sub(r"\\(.)", r"\1", f) if f != "*" else f for f in _FIELD.findall(line)]
        if len(fields) >= 5 and all(f in ("*", w) for f, w in zip(fields, wanted, strict=False)):
            return fields[4]
    return None


def _escaped(field: str) -> str:
    return field.replace("\\", "\\\\").replace(":", "\\:")
