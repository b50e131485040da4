"""Taking a backup of a whole herd: archiving, a base backup of each group, one moment, the rows counted.

Until the manifest is written, which is the last thing, there is no backup: whatever fails, earlier ones are as they
were, servers archive where they did before, and base backups that are part of none are removed. Killed, the same
command begins anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from psycopg import AsyncConnection

from .. import herdfile
from ..client import AsyncHerd
from ..engines.base import Engine
from ..engines.failures import talking_to
from ..errors import BackupFailed, BadInput, HerdBusy, HerdError
from ..herdfile import HerdFile
from ..local import passfile
from ..local.herd import LocalHerd
from ..local.installation import find
from ..local.layout import USER
from ..local.processes import remove_tree
from ..local.user import server_user
from ..model.topology import Group
from . import archive, manifest
from .counting import count
from .keeper import POINT_PREFIX, Base, Keeper, Setting, Source, Tool, choose_tool, keeper_for, setting_of
from .manifest import Backup, Count, GroupBackup
from .moment import Moment, moment, tables_of
from .place import Place
from .target import LABEL, Target, assign, check_answers
from .wal import segments_between

PASSFILE = "pgpass"
_OWNER = "owner.json"

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A group, where it is kept and by whom; ``segment_bytes`` is how large its WAL segments are."""

    group: Group
    place: Place
    keeper: Keeper
    segment_bytes: int = 0
    system: str = ""

    @property
    def name(self) -> str:
        return str(self.group.name)


def new_label() -> str:
    """A label of this second, UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


async def take_backup(
    herd: AsyncHerd,
    home: Path,
    targets: tuple[Target, ...],
    label: str | None = None,
    progress: Progress | None = None,
    tool: Tool | None = None,
    note: Progress | None = None,
) -> Backup:
    """Back the local herd of ``home`` up into ``targets``; from now on its servers archive their WAL there.

    ``tool`` None: the one that archives a group there already, else the best that is installed; ``note`` is told why
    one that is installed is not taken. Raises BadInput for a
    label that is taken, attached servers or a tool that can't do it, ResidencyRefused, BackupFailed, HerdBusy,
    GroupUnavailable.
    """
    say = progress or (lambda _: None)
    file = herdfile.read(home)
    label = checked_label(label or new_label())
    if any(n.data_directory is None for n in file.nodes):
        raise BadInput(
            "these servers are attached: pgherd does not set up how they archive their WAL",
            hint="back them up as they are backed up now; `pgherd backup --point` names one moment on all of them",
        )
    await herd.engine.refresh()
    chosen, groups = assign(herd.topology, targets), herd.topology.groups
    await asyncio.to_thread(check_answers, herd.topology, chosen)
    _refuse_taken(label, targets)
    user = server_user()
    setting = setting_of(find(user), user, home)
    say_why, noted = note or say, set[str]()
    kept = [await asyncio.to_thread(_kept, g, chosen[g.name].place, tool, setting, noted.add) for g in groups]
    for text in sorted(noted):
        say_why(text)
    made: dict[str, Base] = {}
    async with _undone_if_it_fails(herd.engine, kept, made, setting):
        say("switching archiving on")
        kept = await _each(kept, lambda k: _archiving(herd.engine, file, k, home))
        say(f"copying {len(groups)} servers")
        await _each(kept, lambda k: _base(herd.engine, file, k, label, made))
        base_at = datetime.now(UTC).isoformat()
        say("taking the moment")
        async with herd.engine.held() as topology:
            if topology.groups != groups:
                raise HerdBusy("servers joined or moved while they were copied", hint="take the backup again")
            async with moment(herd.engine, POINT_PREFIX + label) as (taken, readers):
                say("counting rows")
                counts: dict[str, tuple[Count, ...]] = {}
                if taken.quiet:
                    tables = tables_of(topology)
                    counted = await asyncio.gather(*(count(readers[g], tables[g]) for g in tables))
                    counts = dict(zip(tables, counted, strict=True))
        parts = {k.name: _part(k, made[k.name], taken, counts.get(k.name, ())) for k in kept}
        say("waiting for the archive")
        await _each(kept, lambda k: _archived(herd.engine, k, parts[k.name]))
        backup = Backup(
            label=label,
            base_at=base_at,
            taken_at=taken.taken_at,
            engine=file.engine.value,
            dbname=file.dbname,
            user=file.user,
            postgres_version=setting.installation.version,
            generation=topology.generation,
            quiet=taken.quiet,
            spread_ms=taken.spread_ms,
            herd=tuple(str(g.name) for g in groups),
            groups=tuple(parts.values()),
            two_node=file.two_node.value if file.two_node else None,
        )
        await asyncio.to_thread(_write, home, backup, {k.name: k.place for k in kept})
    return backup


async def stop_archiving(herd: AsyncHerd, home: Path | None = None) -> None:
    """Let the servers archive no more; backups stay, credentials that servers had for it go."""
    for group in herd.topology.groups:
        for info in _nodes(herd.engine, group):
            with talking_to(group.name, "switching archiving off"):
                async with await AsyncConnection.connect(**info, autocommit=True) as connection:
                    await archive.switch_off(connection)
    if home is not None:
        user = server_user()
        await asyncio.to_thread(remove_tree, setting_of(find(user), user, home).directory)


def checked_label(label: str) -> str:
    """The label if it can name a backup. Raises BadInput."""
    if not LABEL.match(label) or len(POINT_PREFIX + label) > 63:
        raise BadInput(f"{label!r} cannot name a backup", hint="letters, digits, - and _ (at most 56)")
    return label


def _refuse_taken(label: str, targets: Sequence[Target]) -> None:
    for target in targets:
        if target.place.read(manifest.name_of(label)) is not None:
            raise BadInput(f"{target.place} has a backup {label!r} already", hint="choose another --label")


async def _each(kept: Sequence[_Kept], work: Callable[[_Kept], Awaitable[T]]) -> list[T]:
    """Do ``work`` for all groups at once; a failure waits for the others."""
    results: list[Any] = await asyncio.gather(*(work(k) for k in kept), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _kept(group: Group, place: Place, tool: Tool | None, setting: Setting, note: Progress) -> _Kept:
    """Who keeps the group there."""
    region, name = group.primary.label.region, str(group.name)
    chosen = tool or _tool_of(place, region, name) or choose_tool(place, setting, note)
    return _Kept(group, place, keeper_for(chosen, place, region, name, setting))


def _owner(region: str, group: str) -> str:
    return f"{region}/{group}/{_OWNER}"


def _tool_of(place: Place, region: str, group: str) -> Tool | None:
    """The tool that keeps the group there already."""
    found = place.read(_owner(region, group))
    return None if found is None else Tool(json.loads(found).get("tool", Tool.PLAIN.value))


def _nodes(engine: Engine, group: Group) -> list[dict[str, Any]]:
    """How to reach each node of a group itself."""
    return [engine.whereabouts.conninfo_of(n) for n in group.nodes]


@asynccontextmanager
async def _undone_if_it_fails(
    engine: Engine, kept: Sequence[_Kept], made: Mapping[str, Base], setting: Setting
) -> AsyncIterator[None]:
    """Put back how servers archived, and remove base backups in ``made``, if what is done inside fails."""
    files = setting.files()
    before: list[tuple[_Kept, dict[str, Any], str | None]] = []
    for k in kept:
        for info in _nodes(engine, k.group):
            with talking_to(k.name, "seeing how it archives"):
                async with await AsyncConnection.connect(**info, autocommit=True) as node:
                    before.append((k, info, await archive.command_of(node)))
    try:
        yield
    except BaseException:
        for k in kept:
            if k.name in made:
                with suppress(HerdError):
                    await k.keeper.discard(made[k.name].path)
        for k, info, command in before:
            with suppress(HerdError), talking_to(k.name, "putting archiving back"):
                async with await AsyncConnection.connect(**info, autocommit=True) as node:
                    await archive.put_back(node, command)
        setting.forget(setting.files() - files)
        raise
    setting.forget(files - {k.keeper.told for k in kept if k.keeper.told})


async def _archiving(engine: Engine, file: HerdFile, k: _Kept, home: Path) -> _Kept:
    """Switch archiving on, on all nodes, and see that it works."""
    async with engine.connection(k.group.name) as connection:
        done = await connection.execute(
            "SELECT system_identifier::text, bytes_per_wal_segment FROM pg_control_system(), pg_control_init()"
        )
        system, segment_bytes = (await done.fetchall())[0]
        await asyncio.to_thread(_claim, k, {"system": str(system), "home": str(home.resolve())})
        await k.keeper.prepare(_source(engine, file, k))
        command = await asyncio.to_thread(k.keeper.archive_command)
        for info in _nodes(engine, k.group):
            with talking_to(k.name, "switching archiving on"):
                async with await AsyncConnection.connect(**info, autocommit=True) as node:
                    await archive.switch_on(node, k.name, command)
        # The archiver reads the new command some time after now, so the first segment may still go nowhere.
        for last in (False, False, True):
            try:
                await archive.flush(connection, k.name, k.keeper, 60 if last else 5)
                break
            except BackupFailed:
                if last:
                    raise
    return replace(k, segment_bytes=int(segment_bytes), system=str(system))


def _claim(k: _Kept, owner: Mapping[str, str]) -> None:
    """One herd a place: two with the same names would mix their WAL. BadInput if it is another's."""
    path = _owner(k.group.primary.label.region, k.name)
    text = k.place.read(path)
    found = json.loads(text) if text is not None else {}
    if found and {key: found.get(key) for key in owner} != owner:
        raise BadInput(
            f"{k.place} holds backups of another herd ({found.get('home')})", hint="choose another place, or prefix"
        )
    claimed = {**owner, "tool": k.keeper.tool.value}
    if found != claimed:
        k.place.write(path, json.dumps(claimed))


def _source(engine: Engine, file: HerdFile, k: _Kept) -> Source:
    """The group's primary, as whoever connected last found it."""
    reach = engine.conninfo(k.group.name)
    node = next(n for n in file.nodes if (n.host, n.port) == (reach["host"], reach["port"]))
    assert node.data_directory is not None
    return Source(reach, Path(node.data_directory).resolve())


async def _base(engine: Engine, file: HerdFile, k: _Kept, label: str, made: dict[str, Base]) -> None:
    async with engine.connection(k.group.name):  # finds out who is primary
        source = _source(engine, file, k)
    made[k.name] = await k.keeper.base(label, source)


def _part(k: _Kept, base: Base, taken: Moment, counts: tuple[Count, ...]) -> GroupBackup:
    lsn, timeline = taken.points[k.name]
    if timeline != base.timeline:
        raise BackupFailed(f"group {k.name} failed over during the backup", hint="take the backup again")
    return GroupBackup(
        name=k.name,
        region=k.group.primary.label.region,
        places=tuple(str(n.label) for n in k.group.nodes),
        base=base.path,
        wal=k.keeper.wal,
        system=base.system or k.system,
        timeline=timeline,
        start_lsn=base.start_lsn,
        point_lsn=lsn,
        bytes=base.bytes,
        segment_bytes=k.segment_bytes,
        counts=counts,
        tool=k.keeper.tool.value,
    )


async def _archived(engine: Engine, k: _Kept, part: GroupBackup) -> None:
    async with engine.connection(k.group.name) as connection:
        await archive.flush(connection, k.name, k.keeper)
        names = segments_between(part.start_lsn, part.point_lsn, part.timeline, part.segment_bytes)
        await archive.await_segments(connection, k.name, k.keeper, names)
        done = await connection.execute("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
        if int((await done.fetchall())[0][0], 16) != part.timeline:  # its point may be on the old primary only
            raise BackupFailed(f"group {k.name} failed over during the backup", hint="take the backup again")


def _write(home: Path, backup: Backup, places: Mapping[str, Place]) -> None:
    """The backup exists from now on; each place names its own groups.

    The restored servers know the herd's password, which is kept as well: nobody could log in without it.
    """
    password = passfile.entry("*", "*", "*", USER, LocalHerd(home).password())
    for place in dict.fromkeys(places.values()):
        place.write(PASSFILE, password)
    for place in dict.fromkeys(places.values()):
        manifest.write(place, replace(backup, groups=tuple(g for g in backup.groups if places[g.name] == place)))
