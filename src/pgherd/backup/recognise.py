"""An ``archive_command`` that pgherd wrote, to the letter: who archives where. Any other goes who knows where."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser, Error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..client import AsyncHerd
from ..engines.base import Engine
from ..errors import HerdError
from ..model.topology import Group
from . import barman, pgbackrest, plain
from .archive import NOTHING
from .keeper import Tool

_DIRECTORY = re.compile(r"d=('(?:[^']|'\"'\"')*'|\S+); f=%f;")


@dataclass(frozen=True, slots=True)
class Archive:
    """Where WAL goes. ``site`` is the directory or bucket that is in one region, ``where`` the whole of it."""

    tool: Tool
    site: str
    region: str
    group: str
    where: str


def recognise(command: str) -> Archive | None:
    """What an ``archive_command`` does; None if it is not pgherd's own."""
    return _plain(command) or _barman(command) or _pgbackrest(command)


async def archiving_of(herd: AsyncHerd) -> dict[str, dict[str, Any] | None]:
    """How each group's primary archives its WAL: ``tool`` (``other``: not pgherd's), ``to``, ``last``, ``failing``.

    None where WAL is thrown away, or nobody answers. ``last`` is when a segment was archived last (ISO 8601),
    ``failing`` the segment that can't be archived now.
    """
    return {str(g.name): await _archiving(herd.engine, g) for g in herd.topology.groups}


async def _archiving(engine: Engine, group: Group) -> dict[str, Any] | None:
    try:
        async with engine.connection(group.name) as connection:
            done = await connection.execute(
                "SELECT current_setting('archive_command'), current_setting('archive_library'), last_archived_time,"
                " CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN last_failed_wal END"
                " FROM pg_stat_archiver"
            )
            command, library, last, failing = (await done.fetchall())[0]
    except HerdError:
        return None
    if command.strip() in NOTHING and not library:
        return None
    found = None if library else recognise(command)
    return {
        "tool": found.tool.value if found else "other",
        "to": found.where if found else None,
        "last": last.isoformat() if last else None,
        "failing": failing,
    }


def _plain(command: str) -> Archive | None:
    found = _DIRECTORY.match(command)
    if found is None:
        return None
    wal = Path(shlex.split(found[1])[0].replace("%%", "%"))
    if plain.command_for(wal) != command or len(wal.parts) < 4 or wal.name != "wal":
        return None
    return Archive(Tool.PLAIN, str(wal.parents[2]), wal.parts[-3], wal.parts[-2], str(wal))


def _barman(command: str) -> Archive | None:
    words = _words(command, "barman-cloud-wal-archive", 2)
    if len(words) != 9:
        return None
    *env, program, _, _, endpoint, url, group, _ = words
    settings = dict(e.partition("=")[::2] for e in env)
    if barman.archive_command(Path(program), settings, url, group, endpoint) != command:
        return None
    bucket, _, region = url.rpartition("/")
    site = f"{endpoint}/{bucket.removeprefix('s3://').partition('/')[0]}"
    return Archive(Tool.BARMAN, site, region, group, f"{url}/{group}")


def _pgbackrest(command: str) -> Archive | None:
    words = _words(command.partition("; ")[0], "pgbackrest", 0)
    if len(words) != 6:
        return None
    config, group = Path(words[1].partition("=")[2]), words[2].partition("=")[2]
    if pgbackrest.archive_command(Path(words[0]), config, group) != command:
        return None
    told = ConfigParser(interpolation=None)
    try:
        told.read_string(config.read_text(encoding="utf-8"))
        said = dict(told["global"])
        path = Path(said["repo1-path"])
    except (OSError, UnicodeDecodeError, Error, KeyError):
        return None
    if path.name != pgbackrest.DIRECTORY or len(path.parts) < 4 or path.parts[-2] != group:
        return None
    if said.get("repo1-type") == "s3":
        bucket = said.get("repo1-s3-bucket", "")
        port = f":{said['repo1-storage-port']}" if "repo1-storage-port" in said else ""
        site = f"https://{said.get('repo1-s3-endpoint')}{port}/{bucket}"
        return Archive(Tool.PGBACKREST, site, path.parts[-3], group, f"s3://{bucket}{path}")
    return Archive(Tool.PGBACKREST, str(path.parents[2]), path.parts[-3], group, str(path))


def _words(command: str, program: str, settings: int) -> list[str]:
    """The words of a command that runs such a program, from its ``settings`` on; none if it is another."""
    try:
        words = shlex.split(command.replace("%%", "%"))
    except ValueError:
        return []
    head = ["env", "-u", "LD_LIBRARY_PATH"]
    found = words[len(head) :]
    return found if words[: len(head)] == head and Path(*found[settings : settings + 1]).name == program else []
