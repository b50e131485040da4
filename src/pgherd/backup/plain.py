"""PostgreSQL's own programs keep a group in a directory: pg_basebackup, and a shell command that copies WAL.

Source: PostgreSQL 18 manual, 25.3 "Continuous Archiving and Point-in-Time Recovery".
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from psycopg.conninfo import make_conninfo

from ..errors import BackupDamaged, BackupFailed, BadInput
from .keeper import ENDED, Base, Setting, Source, Tool, failed
from .manifest import GroupBackup
from .place import Folder, Place
from .programs import run
from .wal import is_before

_STALE_S = 3600
_UNFINISHED = "backup_manifest.tmp"
_SCRIPT = (
    'd={wal}; f=%f; t="$d/.$f.$$"; '
    'if [ -e "$d/$f" ]; then sync "$d/$f" "$d" && {{ cmp -s "%p" "$d/$f" || {ended}; }}; '
    'else cp "%p" "$t" && sync "$t" && ln "$t" "$d/$f" && sync "$d"; s=$?; rm -f "$t"; exit $s; fi'
)
"""A segment appears under its name only when all of it is on the disk, and is never replaced: ``ln`` refuses a name
that is taken, and one that is there already must be equal, but for the end of a timeline. Whatever fails, the server
keeps the segment and tries again."""


def command_for(wal: Path) -> str:
    """The ``archive_command`` that archives into ``wal``."""
    return _SCRIPT.format(wal=shlex.quote(str(wal)).replace("%", "%%"), ended=ENDED)


@dataclass(frozen=True, slots=True)
class Plain:
    """See :class:`Keeper`. ``DIR/REGION/GROUP/base/LABEL`` and ``DIR/REGION/GROUP/wal``."""

    tool: ClassVar[Tool] = Tool.PLAIN
    folder: Path
    region: str
    group: str
    setting: Setting

    @classmethod
    def of(cls, place: Place, region: str, group: str, setting: Setting) -> Plain:
        if not isinstance(place, Folder):
            raise BadInput("PostgreSQL's own programs keep backups in directories only", hint="name a directory")
        return cls(place.path, region, group, setting)

    @property
    def wal(self) -> str:
        return f"{self.region}/{self.group}/wal"

    @property
    def told(self) -> Path | None:
        return None

    def settle(self) -> None:
        """There is nothing to tell."""

    async def prepare(self, source: Source) -> None:
        wal, user = self.folder / self.wal, self.setting.user
        try:
            for directory in (wal, wal.parent / "base"):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            user.give(wal)
            if user.drops:  # others may pass through to the WAL, but see no list of what is here
                for directory in (wal.parent, wal.parent.parent, self.folder):
                    directory.chmod(directory.stat().st_mode & 0o777 | 0o011)
            for path in wal.glob(".*"):  # what a server that died left half copied
                if path.stat().st_mtime < time.time() - _STALE_S:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise BackupFailed(
                f"{error.filename or wal}: {error.strerror}", hint="name a directory of yours"
            ) from error
        user.check_reach(wal, "choose another directory, or open that one (chmod o+x)")

    def archive_command(self) -> str:
        return command_for(self.folder / self.wal)

    def restore_command(self) -> str:
        wal = self.folder / self.wal
        self.setting.user.check_reach(wal, "the servers read the archived WAL: open that directory (chmod o+x)")
        return f'cp {shlex.quote(str(wal)).replace("%", "%%")}/%f "%p"'

    async def base(self, label: str, source: Source) -> Base:
        """WAL is left out: the archive has it."""
        path = f"{self.region}/{self.group}/base/{label}"
        directory = self.folder / path
        if directory.exists():  # of a backup that did not come to its end
            shutil.rmtree(directory)
        # A copy that was killed at its very end left it in the server that came of it. Copied, our own takes its place.
        (source.data / _UNFINISHED).unlink(missing_ok=True)
        info = {k: v for k, v in source.reach.items() if k not in ("password", "application_name")}
        dsn = make_conninfo("", **{**info, "dbname": "postgres"})
        arguments: list[str | Path] = ["-D", directory, "-d", dsn, "--no-password"]
        installation = self.setting.installation
        program = installation.program("pg_basebackup")
        ended = await run(program, [*arguments, "--checkpoint=fast", "--wal-method=none"], installation.env)
        if ended.status != 0:
            raise failed(f"group {self.group} was not copied", ended.said)
        document = json.loads((directory / "backup_manifest").read_text(encoding="utf-8"))
        ranges = document["WAL-Ranges"]
        if len(ranges) != 1:
            raise BackupFailed(f"group {self.group} failed over while it was copied", hint="take the backup again")
        missing = [f["Path"] for f in document["Files"] if not (directory / str(f.get("Path", "."))).exists()]
        if missing:
            raise BackupFailed(f"group {self.group}: {missing[0]} was not copied", hint="take the backup again")
        size = sum(int(f["Size"]) for f in document["Files"])
        system = str(document.get("System-Identifier") or "")
        return Base(path, system, int(ranges[0]["Timeline"]), str(ranges[0]["Start-LSN"]), size)

    async def discard(self, path: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder / path, ignore_errors=True)

    async def expire_wal(self, before: str) -> None:
        def remove() -> None:
            for path in (self.folder / self.wal).iterdir():
                if is_before(path.name, before):
                    path.unlink(missing_ok=True)

        try:
            await asyncio.to_thread(remove)
        except OSError as error:
            raise BackupFailed(
                f"{error.filename or self.folder}: {error.strerror}", hint="run as the user who made the backups"
            ) from error

    async def lacking(self, names: Sequence[str]) -> list[str]:
        return [n for n in names if not (self.folder / self.wal / n).exists()]

    async def fetch_base(self, part: GroupBackup, into: Path) -> Path:
        """Nothing is copied; every file is compared with its checksum."""
        base, installation = self.folder / part.base, self.setting.installation
        if not base.is_dir():
            raise BackupDamaged(f"group {part.name}: {base} is missing", hint="put it back, or use another backup")
        options = ["--no-parse-wal", "--exit-on-error", "--quiet"]
        ended = await run(installation.program("pg_verifybackup"), [*options, base], installation.env)
        if ended.status != 0:
            raise BackupDamaged(f"group {part.name}: {ended.said}", hint="use another backup (--label)")
        return base

    async def fetch_wal(self, names: Sequence[str], into: Path, base: Path) -> Path:
        return self.folder / self.wal
