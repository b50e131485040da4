"""What a backup says of itself: ``<target>/backups/<label>.json``, written last. A target names its own groups only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from cattrs import structure
from cattrs.errors import ClassValidationError

from ..errors import BackupDamaged, BadInput, WrongVersion
from ..herdfile import write_atomically

FORMAT = 1
_DIRECTORY = "backups"


@dataclass(frozen=True, slots=True)
class Count:
    """A shard's rows at the backup's moment; ``digest`` of their values, None where the shard is large."""

    relation: str
    rows: int
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class GroupBackup:
    """One group's part; ``places`` are its nodes' labels. Paths are relative to the target, LSNs PostgreSQL's text."""

    name: str
    region: str
    places: tuple[str, ...]
    base: str
    wal: str
    system: str
    timeline: int
    start_lsn: str
    point_lsn: str
    bytes: int
    segment_bytes: int = 16 << 20
    counts: tuple[Count, ...] = ()


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup. ``base_at`` is when the last base backup ended, ``taken_at`` its moment (ISO 8601, UTC).

    ``herd`` names all groups; ``groups`` are those of this target, or of all when targets were joined. ``quiet``: no
    writer was under way at the moment, so that counts hold exactly; ``spread_ms`` is how far the groups' points are
    apart.
    """

    label: str
    base_at: str
    taken_at: str
    engine: str
    dbname: str
    user: str
    postgres_version: str
    generation: int
    quiet: bool
    spread_ms: float
    herd: tuple[str, ...]
    groups: tuple[GroupBackup, ...]
    two_node: str | None = None
    format: int = FORMAT

    def group(self, name: str) -> GroupBackup:
        """The part of the group of that name."""
        return next(g for g in self.groups if g.name == name)


@dataclass(frozen=True, slots=True)
class Found:
    """A backup as found: which directory holds which of its groups."""

    backup: Backup
    directories: dict[str, Path]

    def base(self, group: str) -> Path:
        """The base backup's directory."""
        return self.directories[group] / self.backup.group(group).base

    def wal(self, group: str) -> Path:
        """The archived WAL's directory."""
        return self.directories[group] / self.backup.group(group).wal


def path_of(directory: Path, label: str) -> Path:
    """Where the manifest of a backup is."""
    return directory / _DIRECTORY / f"{label}.json"


def write(directory: Path, backup: Backup) -> None:
    """Make the backup known in ``directory``: from now on it exists."""
    path = path_of(directory, backup.label)
    path.parent.mkdir(mode=0o711, exist_ok=True)
    write_atomically(path, json.dumps(asdict(backup), indent=1) + "\n", mode=0o600)


def read_all(directories: Sequence[Path]) -> tuple[Found, ...]:
    """The backups in some directories, oldest first; parts of one backup in several of them are joined.

    Raises BadInput for a directory without backups, BackupDamaged, WrongVersion.
    """
    parts: dict[str, list[tuple[Path, Backup]]] = {}
    for directory in dict.fromkeys(d.resolve() for d in directories):
        paths = sorted((directory / _DIRECTORY).glob("*.json")) if directory.is_dir() else []
        if not paths:
            raise BadInput(f"{directory} holds no backup", hint="pgherd backup --to DIR makes one")
        for path in paths:
            parts.setdefault(path.stem, []).append((directory, _read(path)))
    found = [_joined(members) for members in parts.values()]
    return tuple(sorted(found, key=lambda f: f.backup.taken_at))


def choose(found: Sequence[Found], label: str | None, to_time: datetime | None = None) -> Found:
    """The backup of that label; else the newest one to recover from to ``to_time``; else the newest. BadInput if
    none."""
    if label is not None:
        for one in found:
            if one.backup.label == label:
                return complete(one)
        raise BadInput(f"there is no backup {label!r}", hint="there are: " + ", ".join(f.backup.label for f in found))
    if to_time is None:
        return complete(found[-1])
    early = [f for f in found if datetime.fromisoformat(f.backup.base_at) <= to_time]
    if not early:
        raise BadInput(
            f"the oldest backup is of {found[0].backup.base_at}, after {to_time.isoformat()}",
            hint="recovery goes forward from a backup: name a later time",
        )
    return complete(early[-1])


def complete(one: Found) -> Found:
    """The backup if all its groups are there; BackupDamaged naming one that is not."""
    missing = [g for g in one.backup.herd if g not in one.directories]
    if missing:
        raise BackupDamaged(
            f"backup {one.backup.label} has no group {missing[0]} in the directories given",
            hint="name the directories of all regions",
        )
    return one


def _joined(members: Sequence[tuple[Path, Backup]]) -> Found:
    first = members[0][1]
    if any((b.taken_at, b.herd) != (first.taken_at, first.herd) for _, b in members):
        raise BackupDamaged(
            f"the directories hold different backups called {first.label}", hint="name directories of one herd"
        )
    groups = {g.name: g for _, b in members for g in b.groups}
    backup = replace(first, groups=tuple(groups[n] for n in first.herd if n in groups))
    return Found(backup, {g.name: d for d, b in members for g in b.groups})


def _read(path: Path) -> Backup:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.get("format")
        if version != FORMAT:
            raise WrongVersion(
                f"{path} has format {version}, this pgherd reads format {FORMAT}", hint="use the pgherd that wrote it"
            )
        return structure(document, Backup)
    except (OSError, ValueError, AttributeError, ClassValidationError) as e:
        raise BackupDamaged(f"{path} cannot be read", hint="use another backup (--label)") from e
