"""Restoring a whole herd into a new home: to a backup's moment, or to a named one or a time after it; then looking
whether it is right.

To a moment, backup/moment.py says why the groups agree. To a time T, each group replays all that was committed by T, as
its own clock has it. A transaction over several groups is decided after it is prepared everywhere, told to the others
after it was decided, and forgotten after all were told; if the servers' clocks agree, so do these times, and what the
groups hold at T is one of the states that settling finishes. Clocks that differ by d can tear transactions that were
committed within d of T. Source: PostgreSQL 18 manual, 25.3.5 "Recovering Using a Continuous Archive Backup".
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from .. import herdfile
from ..client import AsyncHerd, connect_async
from ..engines.failures import talking_to
from ..errors import BackupDamaged, BackupFailed, BadInput, HerdError, LocalServerError, WrongVersion
from ..herdfile import TwoNode
from ..local import passfile
from ..local.herd import LocalHerd
from ..local.installation import Installation, find
from ..local.processes import remove_tree
from ..local.rebuild import begin, rebuild, start_whole
from ..local.user import server_user
from ..model.names import Name
from ..model.placement import Label
from ..model.topology import EngineName
from ..secretfile import refuse_open
from .counting import count
from .keeper import POINT_PREFIX, setting_of
from .manifest import Backup, Count, Found
from .moment import tables_of
from .place import Folder
from .take import PASSFILE
from .verify import Fetched, fetch

_NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1 dbname=none user=none password=none"
_TROUBLE = re.compile(r"(?:Barman cloud WAL restore exception|P\d\d +ERROR): (.+)")
"""What the tools write into the server's log when they could not look for a segment."""
_LAST = re.compile(r"last completed transaction was at log time (.+)")

Progress = Callable[[str], None]
Until = datetime | str | None
"""How far: a time, the label of a restore point that was named after the backup, or the backup's own moment."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore made. ``checked`` rows were compared with the backup (None: it has no exact counts, or to a
    time)."""

    label: str
    to: Until
    rows: dict[str, int]
    checked: int | None
    settled: int
    disabled: tuple[str, ...]


async def restore(found: Found, home: Path, to: Until = None, progress: Progress | None = None) -> Restored:
    """Restore a backup into ``home``, which is empty or new, and check it; the herd then runs.

    If it fails, nothing of it is left. Raises WouldOverwrite, BackupDamaged, WrongVersion, LocalServerError, BadInput
    for a time or a restore point that the archive does not reach.
    """
    say = progress or (lambda _: None)
    user = server_user()
    installation = find(user)
    _check_version(found, installation)
    password = await asyncio.to_thread(_password, found)
    begin(home)
    try:
        say("reading the backup")
        setting = setting_of(installation, user, home)
        fetched = await fetch(found, setting)
        await asyncio.to_thread(_recover, found, fetched, home, to, password, say)
        await asyncio.to_thread(remove_tree, setting.directory)
        say("settling commits that were under way")
        return await _settled(found, home, to, say)
    except BaseException:
        with suppress(HerdError):
            await asyncio.to_thread(LocalHerd(home).destroy)
        with suppress(OSError):
            home.rmdir()
        raise


def _check_version(found: Found, installation: Installation) -> None:
    made_by = found.backup.postgres_version
    if made_by.split(".")[0] != str(installation.major):
        raise WrongVersion(
            f"backup {found.backup.label} was made by PostgreSQL {made_by}, the programs are {installation.version}",
            hint=f"set PGHERD_PG_CONFIG to the pg_config of PostgreSQL {made_by.split('.')[0]}",
        )


def _password(found: Found) -> str:
    for place in found.places.values():
        if isinstance(place, Folder):
            refuse_open(place.path / PASSFILE, "the password file")
        text = place.read(PASSFILE)
        password = passfile.find(text or "", "", 0, found.backup.dbname, found.backup.user)
        if password is not None:
            return password
    raise BackupDamaged(f"{PASSFILE} is missing beside backup {found.backup.label}", hint="put it back from a copy")


def _recover(found: Found, fetched: dict[str, Fetched], home: Path, to: Until, password: str, say: Progress) -> None:
    backup = found.backup
    groups = {g.name: [Label.parse(p) for p in g.places] for g in backup.groups}
    commands = {name: f.keeper.restore_command() for name, f in fetched.items()}

    def recovery(name: str) -> str:
        return _recovery(backup, commands[name], to)

    def lay_out(name: str, path: Path) -> None:
        base = fetched[name].base
        if base.is_relative_to(home.resolve()):  # our own copy
            base.rename(path)
        else:
            shutil.copytree(base, path, symlinks=True)

    try:
        rebuild(home, EngineName(backup.engine), password, groups, lay_out, recovery, say)
    except LocalServerError as error:
        raise _why_not(error, found, home, to) from error


def _recovery(backup: Backup, restore_command: str, to: Until) -> str:
    if to is None:
        # The base backup's own timeline, which holds the point: a later failover has made others, which need not.
        until = f"recovery_target_name = '{POINT_PREFIX}{backup.label}'\n"
        until += "recovery_target_timeline = 'current'\n"
    elif isinstance(to, str):
        until = f"recovery_target_name = '{POINT_PREFIX}{to}'\nrecovery_target_timeline = 'latest'\n"
    else:
        until = f"recovery_target_time = '{to.astimezone(UTC).isoformat()}'\nrecovery_target_timeline = 'latest'\n"
    command = restore_command.replace("\\", "\\\\").replace("'", "''")
    return f"restore_command = '{command}'\n{until}recovery_target_action = 'promote'\nhot_standby = off\n"


def _why_not(error: LocalServerError, found: Found, home: Path, to: Until) -> HerdError:
    """A recovery that ends early is the commonest failure: say which group, and how far its archive reaches."""
    local = LocalHerd(home)
    for group in found.backup.groups:
        log = local.log(group.name)
        text = log.read_text(errors="replace") if log.exists() else ""
        if trouble := _TROUBLE.findall(text):
            return BackupFailed(
                f"group {group.name}: WAL can't be fetched from {found.places[group.name]}: {trouble[-1]}",
                hint="see that the store is up, then again",
            )
        if "recovery ended before configured recovery target" not in text:
            continue
        if isinstance(to, str):
            return BadInput(
                f"group {group.name}: its archive holds no restore point {POINT_PREFIX}{to} after {found.backup.label}",
                hint="name a backup from before it (--label); `pgherd backup` archives all that a running herd has",
            )
        if to is None:
            return BackupDamaged(
                f"group {group.name}: its WAL ends before the backup's moment", hint="use another backup"
            )
        last = _LAST.findall(text)
        reach = f"the last commit in it is of {last[-1]}" if last else "it holds no commit after the base backup"
        return BadInput(
            f"the archive of group {group.name} does not reach {to.isoformat()}: {reach}",
            hint="name an earlier time; if the old herd runs, `pgherd backup` archives all that it has",
        )
    return error


async def _settled(found: Found, home: Path, to: Until, say: Progress) -> Restored:
    settled, disabled = await _silence(home)
    async with connect_async(home=home) as herd:  # opening settles, and points the servers at each other
        await herd.recover()
        async with herd.engine.held():
            pass  # moves that were under way
        say("counting rows")
        counted = await _count(herd)
    rows = {g: sum(c.rows for c in counts) for g, counts in counted.items()}
    exact = to is None and found.backup.quiet
    if exact:
        _compare(found, counted)
    groups = {g.name: [Label.parse(p) for p in g.places] for g in found.backup.groups}
    two_node = TwoNode(found.backup.two_node) if found.backup.two_node else None
    await asyncio.to_thread(start_whole, home, groups, two_node, say)
    return Restored(found.backup.label, to, rows, sum(rows.values()) if exact else None, settled, disabled)


async def _silence(home: Path) -> tuple[int, tuple[str, ...]]:
    """Subscriptions that came with the backup must not reach for the servers of the herd it was made of.

    How many commits were left half done, and which subscriptions, other than pgherd's own, are disabled now.
    """
    file = herdfile.read(home)
    prepared, disabled = 0, []
    for node in file.nodes:
        reach = make_conninfo(file.dsn(home), host=node.host, port=node.port)
        with talking_to(node.group, "looking for subscriptions"):
            async with await AsyncConnection.connect(reach, autocommit=True) as connection:
                done = await connection.execute(
                    "SELECT count(*) FROM pg_prepared_xacts WHERE database = %s", [file.dbname]
                )
                prepared += (await done.fetchall())[0][0]
                done = await connection.execute(
                    "SELECT datname, subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid"
                )
                found = await done.fetchall()
            for dbname, name in found:
                async with await AsyncConnection.connect(make_conninfo(reach, dbname=dbname), autocommit=True) as other:
                    for change in ("DISABLE", f"CONNECTION '{_NOWHERE}'"):
                        await other.execute(
                            sql.SQL("ALTER SUBSCRIPTION {} {}").format(sql.Identifier(name), sql.SQL(change))
                        )
                disabled.append(f"{name} on {node.name}")
    return prepared, tuple(d for d in disabled if not d.startswith("pgherd_move_"))


async def _count(herd: AsyncHerd) -> dict[str, tuple[Count, ...]]:
    async def of(group: str, tables: Sequence[Name]) -> tuple[Count, ...]:
        async with herd.engine.connection(group) as connection, connection.transaction():
            return await count(connection, tables)

    tables = tables_of(herd.topology)
    counted = await asyncio.gather(*(of(g, tables[g]) for g in tables))
    return dict(zip(tables, counted, strict=True))


def _compare(found: Found, counted: dict[str, tuple[Count, ...]]) -> None:
    for group in found.backup.groups:
        here = {c.relation: c for c in counted[group.name]}
        for then in group.counts:
            now = here.get(then.relation)
            if now is None or now.rows != then.rows or (then.digest and now.digest and now.digest != then.digest):
                has = f"{now.rows} rows" if now else "nothing"
                raise BackupDamaged(
                    f"group {group.name}: {then.relation} has {has}, the backup's moment had {then.rows}"
                    + (", with other values" if now and now.rows == then.rows else ""),
                    hint="use another backup (--label), and report this: it should not happen",
                )
