"""Ways from other regions to pinned rows, and from pinned rows to elsewhere: foreign servers, tables, mappings."""

from __future__ import annotations

from collections.abc import Iterator

from ...model.names import Name
from ...model.topology import Node
from ...planning.compile import server_name
from ..finding import Finding, Looked, NotLooked, Outcome, Severity, outcome
from ..pinned import Pinned
from ..world import Row, Seen, World, regions_of, tables_of


def probe(world: World) -> Outcome:
    """Foreign servers in every database of every node, resolved against the herd's nodes."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked | NotLooked]:
    for seen in world.primaries():
        for dbname, facts in seen.databases.items():
            for server in facts["foreign_servers"]:
                tables = [t for t in facts["foreign_tables"] if t["server"] == server["name"]]
                yield from _server(world, seen, dbname, server, tables)
    if any(True for _ in world.up()):
        yield NotLooked(
            "dblink connections that are open",
            None,
            None,
            "PostgreSQL shows them to their own sessions only (who could open one is looked at)",
        )


def leads_to(world: World, seen: Seen, server: Row) -> tuple[Node, ...] | None:
    """The herd's nodes behind a foreign server, None for an unknown place."""
    options = server["options"] or {}
    return world.resolve(seen, options.get("hostaddr") or options.get("host"), options.get("port"))


def own_group(world: World, dbname: str, server: Row) -> str | None:
    """The group that a server is pgherd's own link to, by its name and database."""
    if dbname != world.dbname or server["wrapper"] != "postgres_fdw":
        return None
    return next((str(g.name) for g in world.topology.groups if server_name(g.name) == server["name"]), None)


def _server(world: World, seen: Seen, dbname: str, server: Row, tables: list[Row]) -> Iterator[Finding | Looked]:
    if server["wrapper"] == "file_fdw":
        return  # reads files here; the extension is told of
    if not server["options"] and not server["mapped"]:
        yield Looked("servers that lead nowhere and let nobody in", seen.name, seen.region, server["name"], 1)
        return
    where = f"foreign server {server['name']} in database {dbname}"
    nodes = leads_to(world, seen, server)
    mine = own_group(world, dbname, server)
    if mine is not None:
        group = world.topology.group(mine)
        far = (server["options"] or {}).get("dbname")
        if nodes is None or not set(nodes) <= set(group.nodes) or far != world.dbname:
            yield _finding(
                world,
                seen,
                "link_elsewhere",
                Severity.VIOLATION,
                world.pinned,
                f"{where} should lead to group {mine} and leads elsewhere: rows written through it go there",
                "put it back: ALTER SERVER … OPTIONS (SET host …), or open the herd with the right herd.toml",
                None if nodes is None else nodes[0],
            )
        else:
            label = seen.node.label
            led = [p for p in world.at(mine) if not p.allows(label) and any(_is_of(t, p) for t in tables)]
            barred = tuple(p for p in led if not p.space.readable_at(label))
            if barred:
                yield _finding(
                    world, seen, "strict_link", Severity.VIOLATION, barred,
                    f"{where} leads to {', '.join(p.shard.name for p in barred)}, whose tablespace is strict: nobody"
                    f" outside {regions_of(barred)} may be led there",
                    "pgherd apply puts a barrier in its place", group.primary, str(group.primary.name),
                )  # fmt: skip
            shut = tuple(p for p in led if p not in barred)
            if shut:
                names = len([t for t in tables if any(_is_of(t, p) for p in shut)])
                yield Looked(
                    f"reachable from here: {tables_of(shut)}",
                    seen.name,
                    seen.region,
                    f"pgherd's own link to {mine}: its policy lets other regions ask, and answers pass through",
                    names,
                    str(group.primary.name),
                    seen.name,
                )
        return
    yield from _foreign(world, seen, where, dbname, server, tables, nodes)


def _foreign(
    world: World, seen: Seen, where: str, dbname: str, server: Row, tables: list[Row], nodes: tuple[Node, ...] | None
) -> Iterator[Finding | Looked]:
    """A server that is not pgherd's."""
    mapped = f"usable by {', '.join(server['mapped'])}" if server["mapped"] else "nobody has a login on it yet"
    here = world.at(str(seen.group.name))
    if nodes is None:
        if here:
            yield _finding(
                world, seen, "foreign_server", Severity.RISK, here,
                f"{where} ({server['wrapper']}) leads to a place that the herd does not know; {mapped}",
                "drop it unless you know where it leads", None,
            )  # fmt: skip
        return
    far_db = (server["options"] or {}).get("dbname") or dbname
    if far_db != world.dbname and dbname != world.dbname:  # another herd's links, say: no way to this one's rows
        what = "foreign servers between other databases of the herd's nodes"
        yield Looked(what, seen.name, seen.region, f"{where} leads to database {far_db}", 1)
        return
    for node in nodes:
        group = next(g for g in world.topology.groups if node in g.nodes)
        shut = tuple(p for p in world.at(str(group.name)) if not p.allows(seen.node.label))
        reached = tuple(p for p in shut if any(_is_of(t, p) for t in tables)) if far_db == world.dbname else ()
        if reached and server["mapped"]:
            names = ", ".join(sorted({f"{t['schema']}.{t['name']}" for t in tables}))
            yield _finding(
                world, seen, "foreign_table", Severity.VIOLATION, reached,
                f"{where} reaches {node.name}: {names} shows pinned rows here; {mapped}",
                "drop the foreign table, the mapping and the server", node, node.name,
            )  # fmt: skip
        elif shut:
            yield _finding(
                world, seen, "foreign_server", Severity.RISK, shut,
                f"{where} reaches {node.name} (database {far_db}), which pgherd did not make; {mapped}",
                "drop the server", node, node.name,
            )  # fmt: skip
        outward = tuple(p for p in here if not p.allows(node.label))
        if outward and not shut:
            yield _finding(
                world, seen, "foreign_server", Severity.RISK, outward,
                f"{where} leads to {node.name}, outside {regions_of(outward)}; {mapped}", "drop the server", node,
            )  # fmt: skip


def _is_of(table: Row, p: Pinned) -> bool:
    """Whether a foreign table shows a pinned shard, or the table it is of."""
    return Name(table["far_schema"], table["far_name"]) in p.names


def behind(world: World, seen: Seen, dbname: str, schema: str, name: str) -> tuple[Pinned, ...]:
    """The pinned shards whose rows a foreign table shows."""
    facts = seen.databases[dbname]
    for table in facts["foreign_tables"]:
        if (table["schema"], table["name"]) == (schema, name):
            server = next(s for s in facts["foreign_servers"] if s["name"] == table["server"])
            nodes = leads_to(world, seen, server) or ()
            groups = {str(g.name) for g in world.topology.groups if set(nodes) & set(g.nodes)}
            return tuple(p for g in groups for p in world.at(g) if _is_of(table, p))
    return ()


def _finding(
    world: World,
    seen: Seen,
    kind: str,
    severity: Severity,
    shards: tuple[Pinned, ...],
    detail: str,
    hint: str,
    node: Node | None,
    source: str | None = None,
) -> Finding:
    """``source``: where rows come from when they come here; otherwise they would go from here to ``node``."""
    target = seen.name if source else (node.name if node else "unknown place")
    table = tables_of(shards) or None
    return Finding(kind, severity, table, seen.name, seen.region, detail, hint, source or seen.name, target)
