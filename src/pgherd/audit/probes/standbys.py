"""Who receives the WAL of a group with pinned rows: physical standbys, cascading ones too, and slots kept for them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import Finding, Looked, NotLooked, Outcome, Severity, outcome
from ..world import Row, Seen, World, tables_of


def probe(world: World) -> Outcome:
    """Each node is asked who takes WAL from it; the herd's own standbys are asked whom they take it from."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked | NotLooked]:
    for seen in world.up():
        if not world.at(str(seen.group.name)):
            continue
        senders = [r for r in seen.facts["replication"] if r["slot_type"] != "logical" and r["database"] is None]
        yield Looked("receivers of WAL", seen.name, seen.region, count=len(senders))
        if any(r["state"] is None for r in senders):
            yield NotLooked("who receives WAL", seen.name, seen.region, "the role lacks pg_monitor")
            continue
        known = {s.name: s for s in world.nodes if s.group == seen.group and s is not seen}
        for row in senders:
            one = known.get(row["application_name"])
            if one is not None and _takes_from(world, one, seen):
                del known[row["application_name"]]  # one connection each: a second one of that name is somebody else's
                yield Looked(f"standby {one.name}", seen.name, seen.region, "of the herd", 1, seen.name, one.name)
            else:
                # The WAL of a base backup comes beside it, from the same place.
                backup = any(r["state"] == "backup" and r["address"] == row["address"] for r in senders)
                yield _unknown(world, seen, row, one, backup)
        yield from _slots(world, seen, {r["slot_name"] for r in senders})


def _takes_from(world: World, standby: Seen, seen: Seen) -> bool:
    """Whether the herd's standby says that it takes its WAL from ``seen``."""
    if standby.why_down is not None or not standby.standby:
        return False
    nodes = [world.resolve(standby, r["host"], str(r["port"])) for r in standby.facts["receiver"]]
    return any(found is not None and seen.node in found for found in nodes)


def _unknown(world: World, seen: Seen, row: Row, one: Seen | None, backup: bool) -> Finding:
    here = world.at(str(seen.group.name))
    who = f"{row['application_name'] or 'a receiver without a name'} at {row['address'] or 'a socket of this machine'}"
    if one is not None and one.why_down is not None:
        detail, severity = f"{who} bears the name of node {one.name}, which does not answer the audit", Severity.RISK
    elif backup:
        detail, severity = f"{who} takes a base backup; where it is kept can't be seen from here", Severity.RISK
    else:
        detail, severity = f"{who} receives every change of this group and is no node of the herd", Severity.VIOLATION
    return Finding(
        "unknown_standby", severity, tables_of(here), seen.name, seen.region, detail,
        "find out what it is; pg_terminate_backend ends it, pg_hba.conf keeps it out", seen.name, "unknown place",
    )  # fmt: skip


def slot_name(node: str) -> str:
    """The slot that Patroni keeps for a node."""
    return re.sub(r"[^a-z0-9_]", lambda m: "_" if m[0] in "-. " else f"u{ord(m[0]):04d}", node.lower())


def _slots(world: World, seen: Seen, in_use: set[str | None]) -> Iterator[Finding]:
    names = {slot_name(n.name) for n in seen.group.nodes}
    for slot in seen.facts["slots"]:
        if slot["type"] == "physical" and slot["name"] not in names and slot["name"] not in in_use:
            yield Finding(
                "physical_slot", Severity.RISK, tables_of(world.at(str(seen.group.name))), seen.name, seen.region,
                f"physical slot {slot['name']} keeps WAL for somebody who is no node of the herd",
                "pg_drop_replication_slot", seen.name, "unknown place",
            )  # fmt: skip
