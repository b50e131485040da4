"""Tables under the names of pinned shards: at home as they should be, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from ...model.names import Name
from ...model.schema import Bound, ListBound, leaves
from ...model.topology import Topology
from ..finding import Finding, Looked, Outcome, Severity, outcome
from ..pinned import Pinned, is_everywhere
from ..world import Row, Seen, World, regions_of

ASIDE = "pgherd_aside"


def probe(world: World) -> Outcome:
    """Homes whose place is not allowed, homes that lost their constraint, heaps where only links should be."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked]:
    for p in world.pinned:
        yield from _places(world, p)
        yield from _constraint(world, p)
    known = _known_partitions(world.topology)
    for seen in world.primaries():
        yield from _heaps(world, seen)
        yield from _files(world, seen)
        yield from _unknown_partitions(world, seen, known)


def _places(world: World, p: Pinned) -> Iterator[Finding]:
    where = world.topology.groups if is_everywhere(p) else (world.topology.group(p.shard.home),)
    for node in (n for g in where for n in g.nodes):
        if not p.allows(node.label):
            kind, what = ("reference_copy", "has a copy") if is_everywhere(p) else ("home_outside", "is at home")
            yield Finding(
                kind,
                Severity.VIOLATION,
                str(p.table.name),
                node.name,
                node.label.region,
                f"shard {p.shard.name} may be in {regions_of((p,))} only (tablespace {p.space.name}); it {what} here",
                "move it (pgherd rebalance), or make a fleet: one server keeps everything in one place",
                node.name,
                node.name,
            )


def relation(world: World, seen: Seen, name: Name) -> Row | None:
    """The row of a relation in the herd's database of a node."""
    return next((r for r in world.herd(seen)["relations"] if (r["schema"], r["name"]) == tuple(name)), None)


def parent_of(p: Pinned) -> Name | None:
    """What a shard should be a partition of; None for a table that is whole."""
    for ancestors, leaf in leaves(p.table.partitions):
        if leaf.name == p.shard.relation:
            return ancestors[-1].name if ancestors else p.table.name
    return None


def attached(found: Row, p: Pinned) -> bool:
    """Whether PostgreSQL itself holds the shard's rows to its bound."""
    parent = parent_of(p)
    if parent is None:
        return True
    if (found["parent_schema"], found["parent"]) != tuple(parent) or found["detaching"]:
        return False
    return _plain(found["bound"] or "") == _plain(_sql(p.shard.path[-1].bound))


def _sql(bound: Bound) -> str:
    if isinstance(bound, ListBound) and not bound.default:
        return "FOR VALUES IN (" + ", ".join("NULL" if v is None else v for v in bound.values) + ")"
    return bound.sql


def _plain(text: str) -> list[str]:
    """A bound without the differences that don't matter."""
    body = text.lower().replace("'", " ").replace(",", " ").replace("(", " ").replace(")", " ")
    return sorted(body.split())


def _constraint(world: World, p: Pinned) -> Iterator[Finding]:
    for seen in (s for s in world.primaries() if s.group.name == p.shard.home and world.herd(s).rows):
        found = relation(world, seen, p.shard.relation)
        strays = next((s.rows for s in world.strays if s.pinned == p), None)
        if found is None or found["kind"] != "r":
            yield _at_home(p, seen, Severity.RISK, "home_missing", "is not a table here, its home")
        elif not attached(found, p):
            bound = _sql(p.shard.path[-1].bound)
            lost = f"is not held to its bound here ({bound}): it is detached, or was attached with another one"
            yield _at_home(p, seen, Severity.RISK, "constraint_missing", lost)
            if strays:
                what = f"holds {strays:,} rows that do not belong to it"
                yield _at_home(p, seen, Severity.VIOLATION, "stray_rows", what)


def _at_home(p: Pinned, seen: Seen, severity: Severity, kind: str, what: str) -> Finding:
    hint = "ALTER TABLE … ATTACH PARTITION puts it back; rows that do not belong to it have to go first"
    table, detail = str(p.table.name), f"shard {p.shard.name} {what}"
    return Finding(kind, severity, table, seen.name, seen.region, detail, hint, seen.name, seen.name)


def _files(world: World, seen: Seen) -> Iterator[Looked]:
    """Where on this node's disk the pinned shards are that are at home here."""
    directory = seen.setting("data_directory") or "the data directory"
    for p in world.at(str(seen.group.name)):
        for r in world.herd(seen)["files"]:
            if (r["schema"], r["name"]) == tuple(p.shard.relation):
                paths = [r["heap"], *([r["toast"]] if r["toast"] else []), *r["indexes"]]
                toast = f", TOAST {r['toast']}" if r["toast"] else ""
                listed = f"{p.shard.name} ({r['bytes']:,} bytes): heap {r['heap']}{toast}"
                listed += f", indexes {', '.join(r['indexes'])}" if r["indexes"] else ""
                what = "files of pinned shards (heap, TOAST, indexes)"
                yield Looked(what, seen.name, seen.region, f"{listed}; in {directory}", len(paths))


def _heaps(world: World, seen: Seen) -> Iterator[Finding | Looked]:
    moving = {r["shard"] for r in world.herd(seen)["moving"] if r["incoming"]}
    count = 0
    for p in world.pinned:
        if p.shard.home == seen.group.name or is_everywhere(p):
            continue
        for name in (p.shard.relation, Name(ASIDE, p.shard.relation.name)):
            found = relation(world, seen, name)
            count += found is not None
            if found is None or found["kind"] not in ("r", "m") or p.shard.relation.sql in moving:
                continue
            outside = not p.allows(seen.node.label)
            severity = Severity.VIOLATION if outside and found["bytes"] else Severity.RISK if outside else Severity.NOTE
            yield Finding(
                "wrong_heap",
                severity,
                str(p.table.name),
                seen.name,
                seen.region,
                f"{name} is a table of {found['bytes']:,} bytes here, not a link to {p.shard.home}",
                "look at its rows, then drop it",
                world.home_node(p),
                seen.name,
            )
    yield Looked("names of pinned shards that are at home elsewhere", seen.name, seen.region, count=count)


def _known_partitions(topology: Topology) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for table in topology.schema.tables:
        for ancestors, leaf in leaves(table.partitions):
            found |= {(p.name.schema, p.name.name) for p in (*ancestors, leaf)}
    return found


def _unknown_partitions(world: World, seen: Seen, known: set[tuple[str, str]]) -> Iterator[Finding]:
    parents = {tuple(p.table.name): p.table for p in world.pinned}
    kept = {p.table.name for p in world.kept_from(seen.node.label)}
    rows = world.herd(seen)["relations"]
    for r in rows:
        above: tuple[str, str] | None = (r["parent_schema"], r["parent"]) if r["parent"] else None
        while above is not None and above not in parents:
            up = next((x for x in rows if (x["schema"], x["name"]) == above), None)
            above = (up["parent_schema"], up["parent"]) if up and up["parent"] else None
        if above is None or r["kind"] != "r" or (r["schema"], r["name"]) in known:
            continue
        table = parents[above]
        outside = table.name in kept
        severity = Severity.VIOLATION if outside and r["bytes"] else Severity.RISK if outside else Severity.NOTE
        yield Finding(
            "unknown_partition",
            severity,
            str(table.name),
            seen.name,
            seen.region,
            f"{Name(r['schema'], r['name'])} ({r['bytes']:,} bytes) is a partition here that the herd does not know"
            f" ({r['bound']}): rows written on this node may stay in it",
            "detach it, and write its rows through the herd",
            None,
            seen.name,
        )
