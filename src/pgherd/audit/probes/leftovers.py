"""What is neither table nor file: prepared transactions that hold rows, and access logs of another region."""

from __future__ import annotations

from collections.abc import Iterator

from ...engines.servers.two_phase import GID_PREFIX
from ...model.names import Name
from ..finding import Finding, Outcome, Severity, outcome
from ..world import Seen, World, tables_of

OLD_S = 60.0
"""A commit of pgherd's own that is under way so long was left behind."""


def probe(world: World) -> Outcome:
    """Prepared transactions on every node, and the regions that its access log tells of."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding]:
    for seen in world.primaries():
        yield from _prepared(world, seen)
        for row in world.herd(seen)["access_log"]:
            if row["region"] != seen.region:
                severity = Severity.VIOLATION if row["questions"] else Severity.RISK
                named = ", ".join(sorted(filter(None, row["tables"])))
                yield Finding(
                    "access_log", severity, named or None, seen.name, seen.region,
                    f"pgherd.access_log has {row['lines']} lines of readers of {row['region']}, {row['questions']} with"
                    " their question",
                    "delete them here: the log of a region stays in it", None, seen.name,
                )  # fmt: skip


def _prepared(world: World, seen: Seen) -> Iterator[Finding]:
    near = (*world.kept_from(seen.node.label), *world.at(str(seen.group.name)))
    for row in seen.facts["prepared"] if near else ():
        if row["gid"].startswith(GID_PREFIX) and row["age_s"] < OLD_S:
            continue
        facts = seen.databases.get(row["database"])
        names = {r["oid"]: Name(r["schema"], r["name"]) for r in facts["relations"]} if facts else {}
        held = {names[oid] for oid in row["relations"] if oid in names}
        shards = tuple(p for p in near if row["database"] == world.dbname and p.names & held)
        listed = ", ".join(sorted(map(str, held))) or "tables that are not to be seen yet"
        yield Finding(
            "prepared_transaction", Severity.RISK, tables_of(shards) or None, seen.name, seen.region,
            f"prepared transaction {row['gid']} in database {row['database']} holds {listed}: what it wrote can be"
            " read by nobody, the audit included, until it ends",
            "COMMIT PREPARED or ROLLBACK PREPARED", None, seen.name,
        )  # fmt: skip
