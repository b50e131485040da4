"""The libpq password file of a local herd: ``<home>/pgpass``, mode 0600.

Source: PostgreSQL 18 manual, 32.16 "The Password File".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from ..herdfile import write_atomically

_FIELD = re.compile(r"((?:[^:\\]|\\.)*)(?::|\Z)")


def new_password() -> str:
    """A fresh password, 192 bits, of characters that need no quoting anywhere."""
    return secrets.token_urlsafe(24)


def write(path: Path, servers: Iterable[tuple[str, int | None]], user: str, password: str) -> None:
    """Write one line per (host, port), good for every database; port None stands for any."""
    lines = (
        ":".join((_escaped(host), str(port or "*"), "*", _escaped(user), _escaped(password))) for host, port in servers
    )
    write_atomically(path, "".join(f"{line}\n" for line in lines), mode=0o600)


def lookup(path: Path, host: str, port: int, dbname: str, user: str) -> str | None:
    """The password that libpq would take from the file, or None: the first line that matches wins."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
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
