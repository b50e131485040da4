"""The port: who copies a group's servers and WAL to a place, and brings them back. Three do, and mirror each other.

plain.py: PostgreSQL's own programs, into a directory. barman.py: Barman's cloud programs, into a bucket. pgbackrest.py:
pgBackRest, into either. What is above this port (the moment, the manifest, what is compared after a restore) is the
same for all.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ..errors import BackupFailed, BadInput, LocalServerError
from ..herdfile import write_atomically
from ..local.installation import Installation
from ..local.layout import ARCHIVING
from ..local.user import ServerUser
from .manifest import GroupBackup
from .place import Folder, Place

POINT_PREFIX = "pgherd_"
ENDED = "expr \"$(ls pg_wal | grep '[.]history$' | tail -n 1)\" '>' \"$(echo %f | cut -c 1-8).history\" > /dev/null"
"""A shell condition, in a data directory: segment %f is of a timeline that has ended. What lies behind the end in its
last segment is of no use, and not the same on all nodes of a group: whichever came first stays in the archive."""
_DOCS = "docs/backups.md"


class Tool(StrEnum):
    """Who does it."""

    PLAIN = "plain"
    BARMAN = "barman"
    PGBACKREST = "pgbackrest"


@dataclass(frozen=True, slots=True)
class Base:
    """A base backup that is made: where it is in the place, where recovery from it begins; bytes of the server."""

    path: str
    system: str
    timeline: int
    start_lsn: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Setting:
    """What keepers work with. ``directory`` is the servers' user's own, and holds their settings, with credentials."""

    installation: Installation
    user: ServerUser
    directory: Path

    def prepare(self) -> None:
        """Make the directory, open for nobody else."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.user.give(self.directory)

    def file(self, place: Place, name: str) -> Path:
        """A file of a place's own: what servers do with another place goes on."""
        digest = hashlib.sha256(str(place).encode()).hexdigest()[:8]
        return self.directory / f"{name}-{digest}"

    def write(self, path: Path, lines: Sequence[str]) -> None:
        """Write such a file, for the servers' user only: it may hold a store's key."""
        self.prepare()
        text = "\n".join(["# Written by pgherd: how this machine's servers reach their archive.", *lines]) + "\n"
        write_atomically(path, text, mode=0o600, owner=self.user.owner)

    def forget(self, files: Iterable[Path]) -> None:
        """Remove such files."""
        for path in files:
            path.unlink(missing_ok=True)

    def files(self) -> set[Path]:
        """Those that are there."""
        return {p for p in self.directory.glob("*") if p.is_file()}


@dataclass(frozen=True, slots=True)
class Source:
    """The server to copy: how to log in (libpq parameters, the password among them), and its data directory."""

    reach: dict[str, Any]
    data: Path


class Keeper(Protocol):
    """Keeps one group in one place. Raises BackupFailed, BadInput; paths in the place are relative to it."""

    @property
    def tool(self) -> Tool:
        """Which one it is."""

    @property
    def wal(self) -> str:
        """Where WAL goes, in the place."""

    @property
    def told(self) -> Path | None:
        """The file in the setting's directory that tells the tool what it needs, of this place alone."""

    def settle(self) -> None:
        """Write that file, which all that follows needs."""

    async def prepare(self, source: Source) -> None:
        """Settle, make what must be there before a server may archive, and see that the place takes it."""

    def archive_command(self) -> str:
        """For ``archive_command``. It never replaces a segment by a different one if its tool can help it."""

    def restore_command(self) -> str:
        """For ``restore_command``."""

    async def base(self, label: str, source: Source) -> Base:
        """A base backup of the server, called ``label``."""

    async def discard(self, path: str) -> None:
        """Remove a base backup that is part of no backup, or of none any more."""

    async def expire_wal(self, before: str) -> None:
        """Remove the WAL before the segment ``before``; all base backups begin there or later."""

    async def lacking(self, names: Sequence[str]) -> list[str]:
        """Those of some WAL segments that are not in the archive."""

    async def fetch_base(self, part: GroupBackup, into: Path) -> Path:
        """The base backup as a data directory: where it is, or a copy of it, checked, made in ``into``."""

    async def fetch_wal(self, names: Sequence[str], into: Path, base: Path) -> Path:
        """The segments, as far as they are there, as files: where they are, or copies made in ``into``.

        ``base`` is a base backup of the same server.
        """


def setting_of(installation: Installation, user: ServerUser, home: Path) -> Setting:
    """What the keepers of a herd's running servers work with."""
    return Setting(installation, user, home.resolve() / ARCHIVING)


def keeper_for(tool: Tool, place: Place, region: str, group: str, setting: Setting) -> Keeper:
    """The keeper of a group. Raises BadInput if the tool is not installed, or can't keep things there."""
    from .barman import Barman
    from .pgbackrest import PgBackRest
    from .plain import Plain

    makers: dict[Tool, type[Plain] | type[Barman] | type[PgBackRest]] = {
        Tool.PLAIN: Plain,
        Tool.BARMAN: Barman,
        Tool.PGBACKREST: PgBackRest,
    }
    return makers[tool].of(place, region, group, setting)


class NotInstalled(BadInput):
    """A tool is not there; one that is there and can't do it is worth a word."""


def choose_tool(place: Place, setting: Setting, note: Callable[[str], None]) -> Tool:
    """pgBackRest if it is installed and can do it, else Barman for buckets, else PostgreSQL's own programs.

    ``note`` is told why one that is installed is not taken.
    """
    problems: list[BadInput] = []
    for tool in (Tool.PGBACKREST, Tool.PLAIN if isinstance(place, Folder) else Tool.BARMAN):
        try:
            keeper_for(tool, place, "any", "any", setting)
        except BadInput as error:
            problems.append(error)
        else:
            for problem in problems:
                if not isinstance(problem, NotInstalled):
                    note(f"{place} is kept by {tool}: {problem.message}")
            return tool
    raise BadInput(
        f"nobody can keep backups in {place}: {'; '.join(p.message for p in problems)}",
        hint="install Barman's cloud programs (barman-cli-cloud, or pip install 'barman[cloud]') or pgBackRest",
    )


def find_tool(
    name: str,
    argument: str,
    oldest: Mapping[int, tuple[int, ...]],
    setting: Setting,
    copied: Callable[[ServerUser], Path] | None = None,
) -> Path:
    """An installed program that the servers' user can run, of a version that knows the servers' PostgreSQL.

    It is looked for beside our own Python, as in a virtual environment, then on the PATH. ``oldest`` says which version
    knows which major version; ``copied`` makes a copy for a user who may not look beside our Python. Raises BadInput.
    """
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if os.access(beside, os.X_OK):
        found = str(copied(setting.user) if copied and setting.user.drops else beside)
    if found is None:
        raise NotInstalled(f"{name} is not installed", hint=f"install it, on the machine that runs pgherd; see {_DOCS}")
    program, major = Path(found).absolute(), setting.installation.major
    version = _version_of(program, argument, setting.user)
    if major not in oldest or version < oldest[major]:
        needed = ".".join(map(str, oldest[major])) if major in oldest else "a newer one, with a newer pgherd,"
        raise BadInput(
            f"{program} is version {'.'.join(map(str, version))}, which does not know PostgreSQL {major}",
            hint=f"{needed} does: install that, or choose another --tool",
        )
    return program


@lru_cache(maxsize=16)
def _version_of(program: Path, argument: str, user: ServerUser) -> tuple[int, ...]:
    try:
        done = user.run([program, argument], {}, timeout_s=60)
    except LocalServerError as error:
        raise BadInput(error.message, hint=error.hint) from error
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    if done.returncode != 0 or found is None:
        raise BadInput(
            f"{program} does not run as the servers' user: {done.stderr.strip()[-300:]}", hint="install it anew"
        )
    return tuple(int(n) for n in found.groups(default="0"))


def command_text(env: dict[str, str], program: Path, *arguments: str) -> str:
    """A shell command for a server's setting: quoted, but for %f and %p at the start of an argument, which it fills in.

    Our servers' libraries are not the program's: it is run without LD_LIBRARY_PATH.
    """
    words = ["env", "-u", "LD_LIBRARY_PATH", *(f"{k}={v}" for k, v in env.items()), str(program), *arguments]
    return " ".join(f'"{w}"' if w in ("%f", "%p") else shlex.quote(w).replace("%", "%%") for w in words)


def failed(what: str, said: str) -> BackupFailed:
    """A program that failed, with the end of what it said."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return BackupFailed(f"{what}: {' '.join(lines[-4:])[-700:]}", hint="see the message")
