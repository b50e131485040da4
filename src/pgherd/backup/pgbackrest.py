"""pgBackRest keeps a group in a repository of its own, in a directory or a bucket.

Its files are compressed, have checksums that are compared whenever they are read, and are never replaced by different
ones. Source: pgBackRest 2.59 documentation, "Command Reference", "Configuration Reference".
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..errors import BackupDamaged, BackupFailed, BadInput
from ..local import passfile
from .bucket import Access, Bucket
from .keeper import ENDED, Base, Setting, Source, Tool, command_text, failed, find_tool
from .manifest import GroupBackup
from .place import Folder, Place
from .programs import Ended, run

_OLDEST = {16: (2, 48), 17: (2, 53, 1), 18: (2, 55)}
"""Which release knows which PostgreSQL. Source: pgBackRest's release notes."""
_NO_SUCH_WAL = 1
_DUPLICATE = 45
"""The segment is in the archive already, with another checksum."""
DIRECTORY = "pgbackrest"
_AMAZON = ".amazonaws.com"


@dataclass(frozen=True, slots=True)
class PgBackRest:
    """See :class:`Keeper`. The repository is ``REGION/GROUP/pgbackrest``, its one stanza the group."""

    tool: ClassVar[Tool] = Tool.PGBACKREST
    place: Place
    region: str
    group: str
    setting: Setting
    program: Path

    @classmethod
    def of(cls, place: Place, region: str, group: str, setting: Setting) -> PgBackRest:
        program = find_tool("pgbackrest", "version", _OLDEST, setting)
        if isinstance(place, Bucket) and not place.access().endpoint.startswith("https://"):
            raise BadInput(f"pgBackRest reaches stores by https only, and {place} is not", hint="choose another --tool")
        return cls(place, region, group, setting, program)

    @property
    def wal(self) -> str:
        return f"{self.region}/{self.group}/{DIRECTORY}"

    @property
    def told(self) -> Path:
        return self.setting.file(self.place, f"{self.region}-{self.group}.conf")

    def settle(self) -> None:
        own = self.setting.directory
        lines = ["[global]", *self._repository()]
        lines += ["repo1-retention-full-type=time", "repo1-retention-full=9999999"]  # nothing is removed by itself
        lines += ["compress-type=gz", "compress-level=3", "repo1-bundle=y", "start-fast=y", "log-level-file=off"]
        # Standbys archive as well (archive_mode = always): the same bytes, or the one that differs is refused.
        lines += ["log-level-console=warn", "archive-mode-check=n", f"lock-path={own}/lock"]
        self.setting.write(self.told, lines)

    async def prepare(self, source: Source) -> None:
        await asyncio.to_thread(self.settle)
        with self._logged_in(source) as env:
            ended = await self._run("stanza-create", *_server(source), env=env)
        if ended.status != 0:
            raise failed(f"group {self.group}: pgBackRest can't use {self.place}", ended.said)

    def archive_command(self) -> str:
        return archive_command(self.program, self.told, self.group)

    def restore_command(self) -> str:
        self.settle()
        return f'{_head(self.program, self.told, self.group)} archive-get %f "%p"'

    async def base(self, label: str, source: Source) -> Base:
        with self._logged_in(source) as env:
            ended = await self._run("backup", "--type=full", *_server(source), env=env)
        if ended.status != 0:
            raise failed(f"group {self.group} was not copied to {self.place}", ended.said)
        newest = (await self._info())["backup"][-1]
        path = f"{self.wal}/backup/{self.group}/{newest['label']}"
        system = next(str(d["system-id"]) for d in (await self._info())["db"] if d["id"] == newest["database"]["id"])
        timeline = int(str(newest["archive"]["start"])[:8], 16)
        return Base(path, system, timeline, str(newest["lsn"]["start"]), int(newest["info"]["size"]))

    async def discard(self, path: str) -> None:
        await self._run("expire", f"--set={Path(path).name}")

    async def expire_wal(self, before: str) -> None:
        """pgBackRest knows by itself where the oldest of its backups begins."""
        there = len((await self._info())["backup"])
        ended = await self._run("expire", "--repo1-retention-full-type=count", f"--repo1-retention-full={there}")
        if ended.status != 0:
            raise failed(f"group {self.group}: pgBackRest can't remove old WAL from {self.place}", ended.said)

    async def lacking(self, names: Sequence[str]) -> list[str]:
        archives = [a["id"] for a in (await self._info())["archive"]]
        there: set[str] = set()
        for directory in sorted({f"archive/{self.group}/{a}/{n[:16]}" for a in archives for n in names}):
            listed = await self._run("repo-ls", directory, "--output=json", stanza=False)
            there |= {name.partition("-")[0] for name in json.loads(listed.printed or "{}")}
        return [n for n in names if n not in there]

    async def fetch_base(self, part: GroupBackup, into: Path) -> Path:
        into.mkdir(mode=0o700, parents=True)
        self.setting.user.give(into)
        options = [f"--set={Path(part.base).name}", "--type=none", f"--pg1-path={into}"]
        ended = await self._run("restore", *options)
        if ended.status != 0:
            said = failed("", ended.said).message.removeprefix(": ")
            raise BackupDamaged(
                f"group {part.name}: base backup {part.base} in {self.place} can't be read: {said}",
                hint="is it still there, and is the store up? Else use another backup (--label)",
            )
        return into

    async def fetch_wal(self, names: Sequence[str], into: Path, base: Path) -> Path:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.setting.user.give(into)
        for name in names:
            ended = await self._run("archive-get", name, into / name, f"--pg1-path={base}")
            if ended.status not in (0, _NO_SUCH_WAL):
                raise BackupDamaged(
                    f"group {self.group}: WAL segment {name} can't be fetched from {self.place}: {ended.said[-500:]}",
                    hint="is the store up? Else use another backup (--label)",
                )
        return into

    def _repository(self) -> list[str]:
        if isinstance(self.place, Bucket):
            return [f"repo1-path=/{self.place.key(self.wal)}", *_s3(self.place.name, self.place.access())]
        assert isinstance(self.place, Folder)
        path, user = self.place.path / self.wal, self.setting.user
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            user.give(path)
            if user.drops:  # others may pass through, but see no list of what is here
                for directory in (path.parent, path.parent.parent, self.place.path):
                    directory.chmod(directory.stat().st_mode & 0o777 | 0o011)
        except OSError as error:
            raise BackupFailed(
                f"{error.filename or path}: {error.strerror}", hint="name a directory of yours"
            ) from error
        user.check_reach(path, "choose another directory, or open that one (chmod o+x)")
        return [f"repo1-path={path}"]

    @contextmanager
    def _logged_in(self, source: Source) -> Iterator[dict[str, str]]:
        """The environment in which pgBackRest logs in as we do; the password is in a file while it does."""
        reach = {k: str(v) for k, v in source.reach.items() if v is not None}
        env = {"PGHOST": reach["host"]}
        env |= {f"PG{k.upper()}": reach[k] for k in ("sslmode", "sslrootcert") if k in reach}
        if "password" not in reach:
            yield env
            return
        with tempfile.TemporaryDirectory(dir=self.setting.directory) as work:
            self.setting.user.give(Path(work))
            path = Path(work) / "pgpass"
            passfile.write(path, [(reach["host"], None)], reach["user"], reach["password"])
            self.setting.user.give(path)
            yield env | {"PGPASSFILE": str(path)}

    async def _info(self) -> dict[str, Any]:
        ended = await self._run("info", "--output=json")
        found = json.loads(ended.printed) if ended.status == 0 else []
        if not found or found[0].get("status", {}).get("code") not in (0, 2):  # 2: no backup yet
            raise failed(f"group {self.group}: {self.place} does not say what it holds", ended.said or str(found))
        return dict(found[0])

    async def _run(
        self, command: str, *arguments: str | Path, env: dict[str, str] | None = None, stanza: bool = True
    ) -> Ended:
        options = [f"--config={self.told}", *([f"--stanza={self.group}"] if stanza else [])]
        words = [command, *options, *arguments]
        ended = await run(self.program, words, env or {}, self.setting.user)
        # Errors go to stdout unless the command prints something there.
        return Ended(ended.status, f"{ended.said}\n{ended.printed}" if ended.status else ended.said, ended.printed)


def archive_command(program: Path, config: Path, group: str) -> str:
    """The ``archive_command`` of a group's servers; each runs it in its data directory."""
    pushed = f'{_head(program, config, group)} archive-push "%p"'
    return f"{pushed}; s=$?; [ $s -eq {_DUPLICATE} ] && {ENDED} && exit 0; exit $s"


def _head(program: Path, config: Path, group: str) -> str:
    return f'{command_text({}, program, f"--config={config}", f"--stanza={group}")} --pg1-path="$PWD"'


def _server(source: Source) -> list[str]:
    reach = source.reach
    return [f"--pg1-path={source.data}", f"--pg1-port={reach['port']}", f"--pg1-user={reach['user']}",
            "--pg1-database=postgres"]  # fmt: skip


def _s3(bucket: str, access: Access) -> list[str]:
    url = urlsplit(access.endpoint)
    lines = ["repo1-type=s3", f"repo1-s3-bucket={bucket}", f"repo1-s3-region={access.region}"]
    lines += [f"repo1-s3-endpoint={url.hostname}"]
    if url.port:
        lines += [f"repo1-storage-port={url.port}"]
    if not str(url.hostname).endswith(_AMAZON):
        lines += ["repo1-s3-uri-style=path"]
    if access.ca_bundle:
        lines += [f"repo1-storage-ca-file={access.ca_bundle}"]
    if access.key is None:
        return [*lines, "repo1-s3-key-type=auto"]
    lines += [f"repo1-s3-token={access.token}"] if access.token else []
    return [*lines, f"repo1-s3-key={access.key}", f"repo1-s3-key-secret={access.secret}"]
