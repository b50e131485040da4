"""Logical replication that takes pinned rows elsewhere: publications, slots, and who subscribes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ...model.topology import Group
from ..finding import Finding, Looked, Outcome, Severity, outcome
from ..pinned import Pinned
from ..world import Row, Seen, World, regions_of, tables_of


class _Subscriber(NamedTuple):
    seen: Seen
    row: Row
    group: Group
    """whom it subscribes to"""
    dbname: str


def probe(world: World) -> Outcome:
    """Every publication of pinned tables, every logical slot, and each subscription of the herd's nodes."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked]:
    subscribers = list(_subscribers(world))
    for one in subscribers:
        yield from _subscription(world, one)
    for seen in world.up():
        here = world.at(str(seen.group.name))
        if here:
            yield from _slots(world, seen, here, subscribers)
    for seen in world.primaries():
        here = world.at(str(seen.group.name))
        moves = {r["name"] for r in world.herd(seen)["moving"]}
        taken = {name for s in subscribers if s.group == seen.group for name in s.row["publications"] or ()}
        for row in world.herd(seen)["publications"]:
            shards = published(here, row)
            if shards and row["name"] not in moves and row["name"] not in taken:
                yield Finding(
                    "publication", Severity.RISK, tables_of(shards), seen.name, seen.region,
                    f"publication {row['name']} offers pinned rows to whoever may replicate",
                    "DROP PUBLICATION", seen.name, None,
                )  # fmt: skip


def _subscribers(world: World) -> Iterator[_Subscriber]:
    for seen in world.up():
        if seen.standby:
            continue
        for row in seen.facts["subscriptions"]:
            options = conninfo_of(row["conninfo"])
            nodes = world.resolve(seen, options.get("hostaddr") or options.get("host"), options.get("port"))
            group = next((g for g in world.topology.groups if nodes and set(nodes) <= set(g.nodes)), None)
            if group is not None:
                yield _Subscriber(seen, row, group, options.get("dbname") or row["database"])


def conninfo_of(text: str) -> dict[str, str]:
    """A connection string's parameters; its password goes no further."""
    try:
        return {k: str(v) for k, v in conninfo_to_dict(text).items() if k != "password"}
    except ProgrammingError:
        return {}


def published(shards: tuple[Pinned, ...], publication: Row) -> tuple[Pinned, ...]:
    """Which of these shards a publication offers."""
    listed = set(publication["tables"])
    return tuple(p for p in shards if publication["everything"] or listed & {f"{n.schema}.{n.name}" for n in p.names})


def _subscription(world: World, one: _Subscriber) -> Iterator[Finding]:
    if one.dbname != world.dbname:
        return
    here = world.at(str(one.group.name))
    offered = [r for s in world.primaries() if s.group == one.group for r in world.herd(s)["publications"]]
    taken = [r for r in offered if r["name"] in one.row["publications"]]
    shards = tuple(dict.fromkeys(p for r in taken for p in published(here, r)))
    outside = tuple(p for p in shards if not p.allows(one.seen.node.label))
    if outside:
        enabled = one.row["enabled"]
        yield Finding(
            "subscription",
            Severity.VIOLATION if enabled else Severity.RISK,
            tables_of(outside),
            one.seen.name,
            one.seen.region,
            f"subscription {one.row['name']} in database {one.row['database']} takes rows of {one.group.name} here,"
            f" outside {regions_of(outside)}" + ("" if enabled else "; it is disabled"),
            "DROP SUBSCRIPTION, and the rows that it brought",
            str(one.group.primary.name),
            one.seen.name,
        )


def _slots(
    world: World, seen: Seen, here: tuple[Pinned, ...], subscribers: list[_Subscriber]
) -> Iterator[Finding | Looked]:
    primary = next((s for s in world.primaries() if s.group == seen.group), None)
    moves = {r["name"] for r in world.herd(primary)["moving"]} if primary else set()
    logical = [s for s in seen.facts["slots"] if s["type"] == "logical"]
    yield Looked("logical replication slots", seen.name, seen.region, count=len(logical))
    for slot in logical:
        mine = slot["name"] in moves or any(
            s.group == seen.group and s.row["slot"] == slot["name"] for s in subscribers
        )
        if slot["database"] != world.dbname or mine:
            continue
        how = "and somebody takes it now" if slot["active"] else "and nobody takes it now"
        yield Finding(
            "logical_slot",
            Severity.VIOLATION if slot["active"] else Severity.RISK,
            tables_of(here),
            seen.name,
            seen.region,
            f"logical slot {slot['name']} ({slot['plugin']}) keeps all changes for no subscriber of this herd, {how}:"
            " an unknown place",
            "pg_drop_replication_slot",
            seen.name,
            "unknown place",
        )
