"""Which place takes which group, and whether pinned rows may be there. Guards invariant 3 for backups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import BadInput, ResidencyRefused
from ..model.placement import ANY, Tablespace
from ..model.schema import TableKind
from ..model.topology import EngineName, Topology
from .place import Place, place_of

_OF_REGION = re.compile(r"([A-Za-z0-9_-]+)=(.+)", re.DOTALL)
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
"""What a backup may be called: it names a directory and a restore point (at most 63 bytes)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A place; ``region`` is where it is (None: not said), ``takes`` whose groups go there (None: all others')."""

    place: Place
    region: str | None = None
    takes: str | None = None


def parse_targets(texts: Sequence[str], region: str | None = None) -> tuple[Target, ...]:
    """Read ``[REGION=]PLACE`` texts: ``REGION=PLACE`` is in that region and takes its groups, a bare ``PLACE`` takes
    all others. A place is a directory, or ``s3://[PROFILE@]BUCKET[/PREFIX]``.

    ``region`` is where the bare place is. Raises BadInput.
    """
    found = []
    for text in texts:
        match = _OF_REGION.match(text)
        place = place_of(match[2] if match else text)
        found.append(Target(place, match[1], match[1]) if match else Target(place, region))
    for target in found:
        if sum(t.takes == target.takes for t in found) > 1:
            whom = f"region {target.takes}" if target.takes else "all regions that have none of their own"
            raise BadInput(f"two places are given for {whom}", hint="one place a region")
    if region is not None and all(t.takes for t in found):
        raise BadInput("--target-region says where a place without a region is, and there is none", hint="leave it out")
    if not found:
        raise BadInput("no place is given", hint="--to PLACE, or --to REGION=PLACE for each region")
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
            raise BadInput(f"no place is given for region {where}", hint=f"add --to {where}=PLACE")
        found[str(group.name)] = mine[0]
    if topology.engine is not EngineName.SINGLE:  # which promises no placement
        _check_places(targets)
        _check_residency(topology, found)
    return found


def _check_places(targets: Sequence[Target]) -> None:
    """A directory, and a bucket whatever is in it, is in one region only, whatever it is called."""
    places: dict[str, str | None] = {}
    for target in targets:
        site = target.place.site
        if places.setdefault(site, target.region) != target.region:
            raise ResidencyRefused(
                f"{site} is given for two regions, and can be in one only",
                hint="give each region a directory or bucket of its own, or one --to PLACE with --target-region",
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
                    f" {target.place} {where}",
                    hint="give each region a place that is in it: "
                    + " ".join(
                        f"--to {r}=PLACE" for r in dict.fromkeys(g.primary.label.region for g in topology.groups)
                    ),
                )


def _may_be_in(space: Tablespace, cloud: str, region: str) -> bool:
    return any(b.cloud == cloud and b.region in (ANY, region) for b in space.blocks)


def check_answers(topology: Topology, targets: Mapping[str, Target]) -> None:
    """Ask each bucket where it is. BackupFailed or BadInput if it can't be used, ResidencyRefused if it is elsewhere.

    Only AWS's own regions have names that can be compared: those of groups whose cloud is ``aws``.
    """
    where: dict[Place, str | None] = {}
    for group in topology.groups:
        target, label = targets[str(group.name)], group.primary.label
        if target.place not in where:
            where[target.place] = target.place.where()
        said = where[target.place]
        if label.cloud == "aws" and said and target.region and said != target.region:
            raise ResidencyRefused(
                f"{target.place} is given for {target.region}, and is in {said}",
                hint=f"give {target.region} a bucket that is in it",
            )
