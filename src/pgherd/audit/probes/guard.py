"""Whether servers themselves refuse statements that would let pinned rows out (engines/sql/guard.sql)."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import Finding, Outcome, Severity, outcome
from ..world import World, tables_of


def probe(world: World) -> Outcome:
    """Each primary has both event triggers, and they fire in any session."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding]:
    for seen in world.primaries():
        shards = (*world.at(str(seen.group.name)), *world.kept_from(seen.node.label))
        rows = world.herd(seen)["guard"]
        if shards and "guard" in world.herd(seen).rows and sum(r["always"] for r in rows) < 2:
            how = "are disabled" if len(rows) == 2 else "are not there"
            yield Finding(
                "guard_off", Severity.RISK, tables_of(shards), seen.name, seen.region,
                f"the event triggers that refuse publications, foreign tables and copies of pinned rows {how}",
                "ALTER EVENT TRIGGER … ENABLE ALWAYS; where pgherd is no superuser it can have none", None, seen.name,
            )  # fmt: skip
