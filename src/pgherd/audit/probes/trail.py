"""Whether what the herd's audit trail should have is recorded on each server: what plain SQL does needs pgaudit."""

from __future__ import annotations

from collections.abc import Iterator

from ...engines.plainsql import why_not_recorded
from ..finding import Finding, Looked, Outcome, Severity, outcome
from ..world import World


def probe(world: World) -> Outcome:
    """Nodes on which statements, or those of some roles, are not recorded, in a herd that keeps a trail."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked]:
    if world.topology.schema.trail is None:
        return
    for seen in world.up():
        settings = {r["name"]: r["setting"] for r in seen.facts["settings"]}
        reasons = [why for why in [why_not_recorded(settings)] if why]
        for r in () if reasons else seen.facts["role_settings"]:
            why = why_not_recorded({**settings, r["name"]: r["setting"]})
            if why and r["role"] != "everybody" and r["database"] in (world.dbname, "every database"):
                reasons.append(f"{why} for {r['role']}")
        for why in reasons:
            yield Finding(
                "plain_sql", Severity.NOTE, None, seen.name, seen.region,
                f"the audit trail has what clients of pgherd do, not what plain SQL does: {why}",
                "docs/trail.md says what to install or set", None, None,
            )  # fmt: skip
        if not reasons:
            yield Looked("pgaudit records plain SQL in the server's log", seen.name, seen.region, count=1)
