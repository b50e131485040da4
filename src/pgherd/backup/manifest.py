"""What a backup says of itself: ``backups/<label>.json`` in its place, written last; of that place's groups only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from cattrs import structure
from cattrs.errors import ClassValidationError

from ..errors import BackupDamaged, BadInput, WrongVersion
from .place import Place

FORMAT = 2
READS = (1, FORMAT)
"""Format 1 had plain keepers only."""
_DIRECTORY = "backups"
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Count:
    """A shard's rows at the backup's moment; ``digest`` of their values, None where the shard is large."""

    relation: str
    rows: int
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class GroupBackup:
    """One group's part; ``places`` are its nodes' labels, ``tool`` who keeps it.

    Paths are relative to the place, LSNs PostgreSQL's text.
    """

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
    tool: str = "plain"


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
    """A backup as found: which place holds which of its groups."""

    backup: Backup
    places: dict[str, Place]


def name_of(label: str) -> str:
    """What the manifest of a backup is called in its place."""
    return f"{_DIRECTORY}/{label}{_SUFFIX}"


def write(place: Place, backup: Backup) -> None:
    """Make the backup known in ``place``: from now on it exists."""
    place.write(name_of(backup.label), json.dumps(asdict(backup), indent=1) + "\n")


def read_all(places: Sequence[Place]) -> tuple[Found, ...]:
    """The backups in some places, oldest first; parts of one backup in several of them are joined.

    Raises BadInput for a place without backups, BackupDamaged, WrongVersion.
    """
    parts: dict[str, list[tuple[Place, Backup]]] = {}
    for place in dict.fromkeys(places):
        labels = [n.removesuffix(_SUFFIX) for n in place.names(_DIRECTORY) if n.endswith(_SUFFIX)]
        if not labels:
            raise BadInput(f"{place} holds no backup", hint="pgherd backup --to makes one")
        for label in labels:
            parts.setdefault(label, []).append((place, _read(place, label)))
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
    missing = [g for g in one.backup.herd if g not in one.places]
    if missing:
        raise BackupDamaged(
            f"backup {one.backup.label} has no group {missing[0]} in the places given",
            hint="name the places of all regions",
        )
    return one


def _joined(members: Sequence[tuple[Place, Backup]]) -> Found:
    first = members[0][1]
    if any((b.taken_at, b.herd) != (first.taken_at, first.herd) for _, b in members):
        raise BackupDamaged(f"the places hold different backups called {first.label}", hint="name places of one herd")
    groups = {g.name: g for _, b in members for g in b.groups}
    backup = replace(first, groups=tuple(groups[n] for n in first.herd if n in groups))
    return Found(backup, {g.name: p for p, b in members for g in b.groups})


def _read(place: Place, label: str) -> Backup:
    path = f"{place}/{name_of(label)}"
    try:
        document = json.loads(place.read(name_of(label)) or "")
        version = document.get("format")
        if version not in READS:
            raise WrongVersion(
                f"{path} has format {version}, this pgherd reads format {FORMAT}", hint="use the pgherd that wrote it"
            )
        return structure(document, Backup)
    except (ValueError, AttributeError, ClassValidationError) as e:
        raise BackupDamaged(f"{path} cannot be read", hint="use another backup (--label)") from e
