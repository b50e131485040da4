"""Where WAL is archived: into a directory or bucket of the region by pgherd itself, or somewhere else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ...backup.archive import NOTHING
from ...backup.recognise import recognise
from ..finding import Finding, Looked, Outcome, Severity, outcome
from ..world import Row, Seen, World, regions_of, tables_of


def probe(world: World) -> Outcome:
    """archive_command and archive_library of every node of a group with pinned rows."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked]:
    sites: dict[str, list[Seen]] = defaultdict(list)
    for seen in world.up():
        if not world.at(str(seen.group.name)):
            continue
        for row in seen.facts["archive"]:
            own = recognise(row["command"])
            if own is not None and not row["library"]:
                if (own.region, own.group) == (seen.group.primary.label.region, str(seen.group.name)):
                    sites[own.site].append(seen)
                    yield Looked(
                        "WAL archives that pgherd set up", seen.name, seen.region, own.where, 1, seen.name, own.where
                    )
                else:
                    yield _finding(
                        world, seen, Severity.VIOLATION, f"WAL goes to {own.where}, another group's place", own.where
                    )
            elif row["mode"] != "off" and (row["library"] or row["command"].strip() not in NOTHING):
                yield _elsewhere(world, seen, row)
    for site, members in sites.items():
        for seen in members:
            others = {s.region for s in members if s.region != seen.region}
            shut = tuple(
                p for p in world.at(str(seen.group.name)) if set(p.regions) != {seen.region, *others} and others
            )
            if shut:
                yield _finding(
                    world, seen, Severity.VIOLATION,
                    f"{site} takes the WAL of {seen.region} and of {', '.join(sorted(others))}: it can be in one region"
                    f" only, and the rows in {regions_of(shut)} only", site,
                )  # fmt: skip


def _elsewhere(world: World, seen: Seen, row: Row) -> Finding:
    how = f"archive_library {row['library']}" if row["library"] else "an archive_command"
    detail = f"{how} that pgherd did not set takes the WAL to an unknown place ({row['archived'] or 0} segments so far)"
    severity = Severity.VIOLATION
    if seen.data_directory is None:
        detail, severity = detail + "; pgherd does not run this server", Severity.RISK
    return _finding(world, seen, severity, detail, "unknown place")


def _finding(world: World, seen: Seen, severity: Severity, detail: str, target: str) -> Finding:
    return Finding(
        "wal_archive", severity, tables_of(world.at(str(seen.group.name))), seen.name, seen.region, detail,
        "pgherd backup --to REGION=DIR archives each region in its own place", seen.name, target,
    )  # fmt: skip
