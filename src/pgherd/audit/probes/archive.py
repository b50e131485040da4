"""Where WAL is archived: into a directory of the region by pgherd itself, or somewhere else."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ...backup.archive import command_for
from ..finding import Finding, Looked, Outcome, Severity, outcome
from ..world import Row, Seen, World, regions_of, tables_of

NOTHING = ("", "true", "/bin/true", "(disabled)")
_DIRECTORY = re.compile(r"d=('(?:[^']|'\"'\"')*'|\S+); f=%f;")


def probe(world: World) -> Outcome:
    """archive_command and archive_library of every node of a group with pinned rows."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked]:
    bases: dict[Path, list[Seen]] = defaultdict(list)
    for seen in world.up():
        if not world.at(str(seen.group.name)):
            continue
        for row in seen.facts["archive"]:
            target = own_directory(row["command"])
            if target is not None and not row["library"]:
                wal = (seen.group.primary.label.region, str(seen.group.name), "wal")
                if target.parts[-3:] == wal:
                    bases[target.parents[2]].append(seen)
                    yield Looked(
                        "WAL archives that pgherd set up",
                        seen.name,
                        seen.region,
                        str(target),
                        1,
                        seen.name,
                        str(target),
                    )
                else:
                    yield _finding(
                        world, seen, Severity.VIOLATION, f"WAL goes to {target}, another group's place", str(target)
                    )
            elif row["mode"] != "off" and (row["library"] or row["command"].strip() not in NOTHING):
                yield _elsewhere(world, seen, row)
    for base, members in bases.items():
        for seen in members:
            others = {s.region for s in members if s.region != seen.region}
            shut = tuple(
                p for p in world.at(str(seen.group.name)) if set(p.regions) != {seen.region, *others} and others
            )
            if shut:
                yield _finding(
                    world, seen, Severity.VIOLATION,
                    f"{base} takes the WAL of {seen.region} and of {', '.join(sorted(others))}: it can be in one region"
                    f" only, and the rows in {regions_of(shut)} only", str(base),
                )  # fmt: skip


def own_directory(command: str) -> Path | None:
    """The directory of an archive_command that is pgherd's own text, to the letter; None for any other."""
    found = _DIRECTORY.match(command)
    if found is None:
        return None
    directory = Path(shlex.split(found[1])[0].replace("%%", "%"))
    return directory if command_for(directory) == command else None


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
        "pgherd backup --to REGION=DIR archives each region in its own directory", seen.name, target,
    )  # fmt: skip
