"""Which directory takes which group, and whether pinned rows may be there. Guards invariant 3 for backups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, ResidencyRefused
from ..model.placement import ANY, Tablespace
from ..model.schema import TableKind
from ..model.topology import EngineName, Group, Topology

_OF_REGION = re.compile(r"([A-Za-z0-9_-]+)=(.+)", re.DOTALL)
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
"""What a backup may be called: it names a directory and a restore point (at most 63 bytes)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A directory; ``region`` is where it is (None: not said), ``takes`` whose groups go there (None: all others')."""

    directory: Path
    region: str | None = None
    takes: str | None = None

    def wal(self, group: Group) -> Path:
        """Where the group's WAL is archived."""
        return self.directory / group.primary.label.region / group.name / "wal"

    def base(self, group: Group, label: str) -> Path:
        """Where the group's base backup called ``label`` is."""
        return self.directory / group.primary.label.region / group.name / "base" / label


def parse_targets(texts: Sequence[str], region: str | None = None) -> tuple[Target, ...]:
    """Read ``[REGION=]DIR`` texts: ``REGION=DIR`` is in that region and takes its groups, a bare ``DIR`` takes all
    others.

    ``region`` is where the bare directory is. Raises BadInput.
    """
    found = []
    for text in texts:
        match = _OF_REGION.match(text)
        path = Path(match[2] if match else text).expanduser().absolute()
        found.append(Target(path, match[1], match[1]) if match else Target(path, region))
    for target in found:
        if sum(t.takes == target.takes for t in found) > 1:
            whom = f"region {target.takes}" if target.takes else "all regions that have none of their own"
            raise BadInput(f"two directories are given for {whom}", hint="one directory a region")
    if region is not None and all(t.takes for t in found):
        raise BadInput("--target-region says where a DIR without a region is, and there is none", hint="leave it out")
    if not found:
        raise BadInput("no directory is given", hint="--to DIR, or --to REGION=DIR for each region")
    return tuple(found)


def assign(topology: Topology, targets: Sequence[Target]) -> dict[str, Target]:
    """The target of each group. Raises BadInput for a group without one, ResidencyRefused where rows may not be."""
    regions = {n.label.region for n in topology.nodes}
    for target in targets:
        if target.takes and target.takes not in regions:
            raise BadInput(f"there is no region {target.takes!r} in this herd", hint="regions: " + ", ".join(regions))
    found = {}
    for group in topology.groups:
        where = group.primary.label.region
        mine = [t for t in targets if t.takes == where] or [t for t in targets if t.takes is None]
        if not mine:
            raise BadInput(f"no directory is given for region {where}", hint=f"add --to {where}=DIR")
        found[str(group.name)] = mine[0]
    if topology.engine is not EngineName.SINGLE:  # which promises no placement
        _check_places(targets)
        _check_residency(topology, found)
    return found


def _check_places(targets: Sequence[Target]) -> None:
    """A directory is in one region only, whatever it is called."""
    places: dict[Path, str | None] = {}
    for target in targets:
        path = target.directory.resolve()
        if places.setdefault(path, target.region) != target.region:
            raise ResidencyRefused(
                f"{path} is given for two regions, and can be in one only",
                hint="give each region a directory of its own, or one --to DIR with --target-region",
            )


def _check_residency(topology: Topology, targets: Mapping[str, Target]) -> None:
    spaces = {t.name: t for t in topology.schema.tablespaces}
    for table in topology.schema.tables:
        for shard in topology.shards(table):
            space = spaces.get(shard.tablespace or "")
            if space is None or not space.blocks or table.kind is TableKind.REFERENCE:
                continue
            target = targets[shard.home]
            cloud = topology.group(shard.home).primary.label.cloud
            if target.region is None or not _may_be_in(space, cloud, target.region):
                where = f"is in {target.region}" if target.region else "is in no region that was named"
                allowed = ", ".join(dict.fromkeys(b.region for b in space.blocks))
                raise ResidencyRefused(
                    f"shard {shard.name} of {table.name} may be in {allowed} only (tablespace {space.name});"
                    f" {target.directory} {where}",
                    hint="give each region a directory that is in it: "
                    + " ".join(f"--to {r}=DIR" for r in dict.fromkeys(g.primary.label.region for g in topology.groups)),
                )


def _may_be_in(space: Tablespace, cloud: str, region: str) -> bool:
    return any(b.cloud == cloud and b.region in (ANY, region) for b in space.blocks)
