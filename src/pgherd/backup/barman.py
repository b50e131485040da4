"""Barman's cloud programs keep a group in a bucket: compressed archives of the data directory, and WAL.

Source: Barman 3.19 manual, "Barman for the cloud": barman-cloud-backup, -wal-archive, -restore, -wal-restore.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from psycopg.conninfo import make_conninfo

from ..errors import BackupDamaged, BackupFailed, BadInput
from ..local import runtime
from ..local.user import ServerUser
from .bucket import Bucket
from .keeper import POINT_PREFIX, Base, Setting, Source, Tool, command_text, failed, find_tool
from .manifest import GroupBackup
from .place import Place
from .programs import Ended, run
from .wal import is_before

_OLDEST = {16: (3, 9), 17: (3, 12), 18: (3, 16)}
"""The first releases after each major version of PostgreSQL was out."""
_ARCHIVER = "barman-cloud-wal-archive"
_ROOTS = ("barman[cloud]", "psycopg2-binary")
_MODULES = {
    _ARCHIVER: "barman.clients.cloud_walarchive",
    "barman-cloud-wal-restore": "barman.clients.cloud_walrestore",
    "barman-cloud-backup": "barman.clients.cloud_backup",
    "barman-cloud-backup-list": "barman.clients.cloud_backup_list",
    "barman-cloud-restore": "barman.clients.cloud_restore",
}
_AT_ONCE = 4
_NO_SUCH_WAL = 1


@dataclass(frozen=True, slots=True)
class Barman:
    """See :class:`Keeper`. ``REGION/GROUP/base/ID`` and ``REGION/GROUP/wals``, as Barman lays them out."""

    tool: ClassVar[Tool] = Tool.BARMAN
    bucket: Bucket
    region: str
    group: str
    setting: Setting
    archiver: Path

    @classmethod
    def of(cls, place: Place, region: str, group: str, setting: Setting) -> Barman:
        if not isinstance(place, Bucket):
            raise BadInput("Barman's cloud programs keep backups in buckets only", hint="name a bucket: s3://BUCKET")
        return cls(place, region, group, setting, find_tool(_ARCHIVER, "--version", _OLDEST, setting, _copied))

    @property
    def wal(self) -> str:
        return f"{self.region}/{self.group}/wals"

    @property
    def told(self) -> Path:
        return self.setting.file(self.bucket, f"{self.region}.aws")

    def settle(self) -> None:
        """Write the servers' own file of credentials; see :meth:`Bucket.access`."""
        access = self.bucket.access()
        lines = ["[default]", f"region = {access.region}", f"endpoint_url = {access.endpoint}"]
        lines += [f"ca_bundle = {access.ca_bundle}"] if access.ca_bundle else []
        if access.key is not None:
            lines += [f"aws_access_key_id = {access.key}", f"aws_secret_access_key = {access.secret}"]
        lines += [f"aws_session_token = {access.token}"] if access.token else []
        self.setting.write(self.told, lines)

    async def prepare(self, source: Source) -> None:
        await asyncio.to_thread(self.settle)

    def archive_command(self) -> str:
        return archive_command(self.archiver, self._env(), *self._place(), endpoint=self.bucket.access().endpoint)

    def restore_command(self) -> str:
        program = self.archiver.with_name("barman-cloud-wal-restore")
        return command_text(self._env(), program, *self._options(), *self._place(), "%f", "%p")

    async def base(self, label: str, source: Source) -> Base:
        info = {k: v for k, v in source.reach.items() if k not in ("password", "application_name")}
        dsn = make_conninfo("", **{**info, "dbname": "postgres"})
        name = f"{POINT_PREFIX}{label}"
        options = ["--gzip", "--immediate-checkpoint", "--name", name, "--dbname", dsn]
        ended = await self._run("barman-cloud-backup", *options, *self._options(), *self._place())
        if ended.status != 0:
            raise failed(f"group {self.group} was not copied to {self.bucket}", ended.said)
        listed = await self._run("barman-cloud-backup-list", "--format", "json", *self._options(), *self._place())
        if listed.status != 0:
            raise failed(f"group {self.group}: {self.bucket} does not list its backups", listed.said)
        found = [b for b in json.loads(listed.printed)["backups_list"] if b["backup_name"] == name]
        if not found or found[-1]["status"] != "DONE":
            raise BackupFailed(f"group {self.group}: Barman did not finish backup {name}", hint="take it again")
        return self._base(max(found, key=lambda b: str(b["backup_id"])))

    def _base(self, made: dict[str, Any]) -> Base:
        path = f"{self.region}/{self.group}/base/{made['backup_id']}"
        size = int(made.get("cluster_size") or made.get("size") or 0)
        return Base(path, str(made["systemid"]), int(made["timeline"]), str(made["begin_xlog"]), size)

    async def discard(self, path: str) -> None:
        await asyncio.to_thread(self.bucket.remove_directory, path)

    async def expire_wal(self, before: str) -> None:
        def remove() -> None:
            found = [key for key, _ in self.bucket.objects(f"{self.wal}/")]
            self.bucket.remove_all([key for key in found if is_before(key.rpartition("/")[2], before)])

        await asyncio.to_thread(remove)

    async def lacking(self, names: Sequence[str]) -> list[str]:
        directories = sorted({n[:16] for n in names})
        listed = [await asyncio.to_thread(self.bucket.names, f"{self.wal}/{d}") for d in directories]
        there = {name.partition(".")[0] for found in listed for name in found}  # compressed ones have a suffix
        return [n for n in names if n not in there]

    async def fetch_base(self, part: GroupBackup, into: Path) -> Path:
        """All is read twice: Barman takes an archive that is damaged in the middle for one that ends there."""
        for name in await asyncio.to_thread(self.bucket.names, part.base):
            if name.endswith(".gz") and not await asyncio.to_thread(self.bucket.unpacks, f"{part.base}/{name}"):
                raise BackupDamaged(
                    f"group {part.name}: {part.base}/{name} in {self.bucket} is damaged",
                    hint="use another backup (--label)",
                )
        ended = await self._run("barman-cloud-restore", *self._options(), *self._place(), Path(part.base).name, into)
        if ended.status != 0:
            raise BackupDamaged(
                f"group {part.name}: base backup {part.base} in {self.bucket} can't be read: {_end(ended)}",
                hint="is it still there, and is the store up? Else use another backup (--label)",
            )
        return into

    async def fetch_wal(self, names: Sequence[str], into: Path, base: Path) -> Path:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def fetch(name: str) -> None:
            async with turn:
                options = ["--no-partial", *self._options(), *self._place()]
                ended = await self._run("barman-cloud-wal-restore", *options, name, into / name)
            if ended.status not in (0, _NO_SUCH_WAL):
                raise failed(f"group {self.group}: WAL segment {name} can't be fetched from {self.bucket}", ended.said)

        await asyncio.gather(*map(fetch, names))
        return into

    def _env(self) -> dict[str, str]:
        return {"AWS_CONFIG_FILE": str(self.told), "AWS_SHARED_CREDENTIALS_FILE": str(self.told)}

    def _options(self) -> list[str]:
        return ["--endpoint-url", self.bucket.access().endpoint]

    def _place(self) -> tuple[str, str]:
        return f"{self.bucket.url}/{self.region}", self.group

    async def _run(self, name: str, *arguments: str | Path) -> Ended:
        return await run(self.archiver.with_name(name), arguments, self._env())


def _copied(user: ServerUser) -> Path:
    """Barman from our own Python's packages, where the servers' user may reach it."""
    return runtime.scripts(user, "barman", _ROOTS, _MODULES) / _ARCHIVER


def archive_command(program: Path, env: dict[str, str], url: str, group: str, endpoint: str) -> str:
    """The ``archive_command`` for a region's bucket (``s3://BUCKET[/PREFIX]/REGION``)."""
    return command_text(env, program, "--gzip", "--endpoint-url", endpoint, url, group, "%p")


def _end(ended: Ended) -> str:
    return failed("", ended.said).message.removeprefix(": ")
