"""Copies of pinned rows: values that were met elsewhere, and materialized views made of pinned tables."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ...model.names import Name
from ..finding import Finding, Outcome, Severity, outcome
from ..pinned import Pinned
from ..world import Match, Seen, World, regions_of, tables_of

_OF_COLUMNS = ("table_copy", "materialized_view", "reference_copy", "access_log")
_HINTS = {
    "definition": "make it again without the values",
    "statistics": "ANALYZE it anew, or drop it",
    "stray_file": "see who wrote it, and remove it",
    "log_values": "remove the file, and see what settings printed it (log_settings)",
    "access_log": "serve without --log-questions, and delete the lines",
    "large_object": "lo_unlink it",
    "reference_copy": "every node has a copy of a reference table: take the values out of it",
}


def probe(world: World) -> Outcome:
    """One finding for each place that holds values of pinned rows, whatever its name."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding]:
    views = {key: shards for seen in world.primaries() for key, shards in _views(world, seen)}
    ordered = sorted(world.matches, key=_place)
    for (node, dbname, relation, kind), group in groupby(ordered, key=_place):
        matches = list(group)
        matches = [m for m in matches if m.proof] or matches
        shards = views.pop((node, dbname, relation), ())
        yield _finding(world, node, dbname, relation, kind, matches, shards)
    for (node, dbname, relation), shards in views.items():
        yield _finding(world, node, dbname, relation, "materialized_view", [], shards)


def _place(m: Match) -> tuple[str, str, str, str]:
    relation = m.place.rpartition(".")[0] if m.kind in _OF_COLUMNS else m.place
    return m.node, m.database, relation, m.kind


def _finding(
    world: World,
    node: str,
    dbname: str,
    relation: str,
    kind: str,
    matches: list[Match],
    derived: tuple[Pinned, ...],
) -> Finding:
    seen = world.seen(node)
    shards = tuple(dict.fromkeys([*(m.pinned for m in matches), *derived]))
    outside = tuple(p for p in shards if not p.allows(seen.node.label))
    proved = any(m.proof for m in matches if m.pinned in outside) or any(p in outside for p in derived)
    severity = Severity.VIOLATION if proved else Severity.RISK
    told = [f"{m.found} of {m.sampled} sampled values of {m.pinned.shard.name}.{m.column}" for m in matches]
    if derived:
        told.append(f"rows of {tables_of(derived)}, which it is made of")
    where = f"{relation} in database {dbname}" if dbname else relation
    allowed = f"; they may be in {regions_of(outside)} only" if outside else "; it lies outside of the tables"
    source = world.home_node((outside or shards)[0])
    return Finding(
        kind, severity, tables_of(outside or shards), seen.name, seen.region,
        f"{where} holds {'; '.join(told)}{allowed}", _HINTS.get(kind, "look at it, and drop it"), source, seen.name,
    )  # fmt: skip


def _views(world: World, seen: Seen) -> Iterator[tuple[tuple[str, str, str], tuple[Pinned, ...]]]:
    """Materialized views that hold rows of pinned tables from elsewhere, by what they are made of."""
    made_of: dict[Name, set[Name]] = {}
    materialized = set()
    for r in world.herd(seen)["derived"]:
        name = Name(r["schema"], r["name"])
        made_of.setdefault(name, set()).add(Name(r["source_schema"], r["source"]))
        if r["kind"] == "m" and r["populated"]:
            materialized.add(name)
    kept = world.kept_from(seen.node.label)
    for view in sorted(materialized):
        reached, waiting = {view}, [view]
        while waiting:
            new = made_of.get(waiting.pop(), set()) - reached
            reached |= new
            waiting += new
        shards = tuple(p for p in kept if p.names & reached)
        if shards:
            yield (seen.name, world.dbname, str(view)), shards
