"""Who could read pinned rows from another region, or get at them past the tables' rights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import md5

from ...engines.servers.scripts import all_scripts
from ...model.names import Name
from ...model.topology import Topology
from ...planning.search_function import search_functions
from ...planning.strict import audiences
from ..finding import Finding, Looked, Outcome, Severity, outcome
from ..pinned import Pinned
from ..world import Row, Seen, World, tables_of
from .links import leads_to

LINK_ROLES = ("pgherd_link_", "pgherd_any_")
_BODY = re.compile(r"AS \$(\w*)\$(.*?)\$\1\$", re.DOTALL)
_HINT = "REVOKE it; what an application needs is SELECT on the table itself"


def probe(world: World) -> Outcome:
    """Rights on links and their servers, roles that read past rights, functions with a superuser's rights."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | Looked]:
    if not world.pinned:
        return
    own = own_bodies(world.topology)
    for seen in world.up():
        yield from _login_rules(world, seen)
    for seen in world.primaries():
        yield from _powers(world, seen)
        yield from _logins(seen)
        yield from _grants(world, seen)
        yield from _usages(world, seen)
        yield from _functions(world, seen, own)


def _readers(world: World, seen: Seen) -> set[str]:
    return {r[k] for r in world.herd(seen)["readers"] for k in ("role", "scribe")}


def _is_link(seen: Seen, role: str) -> bool:
    """Whether it is one of the roles that the links of a herd on this server log in as."""
    return role in {prefix + r["name"] for prefix in LINK_ROLES for r in seen.facts["databases"]}


def _logins(seen: Seen) -> Iterator[Finding]:
    """Logins that links had for roles that are gone (engines/sql/logins.sql names them)."""
    names = [r["name"] for r in seen.facts["roles"]]
    known = {_own_login(role, r["name"]) for role in names for r in seen.facts["databases"]}
    for left in (name for name in names if name.startswith("pgherd_as_") and name not in known):
        yield Finding(
            "link_login", Severity.NOTE, None, seen.name, seen.region,
            f"role {left} is the login over links of a role that is gone or has become a superuser",
            "the next change of the herd by pgherd drops it; or DROP ROLE", seen.name,
        )  # fmt: skip


def _own_login(role: str, dbname: str) -> str:
    digest = md5(f"{role}/{dbname}".encode(), usedforsecurity=False).hexdigest()[:12]
    return f"pgherd_as_{digest}_{dbname}"[:63]


def _near(world: World, seen: Seen) -> tuple[Pinned, ...]:
    return (*world.at(str(seen.group.name)), *world.kept_from(seen.node.label))


def _powers(world: World, seen: Seen) -> Iterator[Finding | Looked]:
    links, owners = 0, {r["owner"] for r in world.herd(seen)["functions"] if r["schema"] == "pgherd"}
    for role in seen.facts["roles"]:
        if _is_link(seen, role["name"]):
            links += 1
            continue
        powers = [*role["member_of"], *role["attributes"]] if role["name"] not in owners else []
        if role["login"] and powers:
            yield _finding(
                seen, "role_powers", _near(world, seen),
                f"role {role['name']} may log in and has {', '.join(powers)}: it reads rows or files, or sends them"
                " out, whatever the tables' rights are",
                "take it away from the role", None,
            )  # fmt: skip
    yield Looked("roles of links between servers", seen.name, seen.region, count=links)


def _login_rules(world: World, seen: Seen) -> Iterator[Finding]:
    """Lines of pg_hba.conf that ask nobody for a password."""
    for rule in (r for r in seen.facts["login_rules"] if r["method"] == "trust"):
        yield _finding(
            seen, "login_rule", _near(world, seen),
            f"{rule['file']}, line {rule['line']}, lets {', '.join(rule['roles'])} in without a password"
            f" ({rule['type']} {rule['address'] or 'on this machine'})",
            "take the line out, or ask for scram-sha-256 or a certificate", None,
        )  # fmt: skip


def _grants(world: World, seen: Seen) -> Iterator[Finding | Looked]:
    kept = world.kept_from(seen.node.label)
    shown: dict[str, set[str]] = {}
    made_of: dict[tuple[str, str], set[Name]] = {}
    for r in world.herd(seen)["derived"]:
        made_of.setdefault((r["schema"], r["name"]), set()).add(Name(r["source_schema"], r["source"]))
    for row in world.herd(seen)["grants"]:
        name = Name(row["schema"], row["name"])
        names = {name} | made_of.get((row["schema"], row["name"]), set())
        shards = tuple(p for p in kept if p.names & names)
        if not shards or row["role"] in _readers(world, seen) or _is_link(seen, row["role"]):
            continue
        if row["kind"] == "f":
            yield _finding(
                seen, "link_rights", shards,
                f"{row['role']} may read {name}, a link to another region, past the policies of its table", _HINT,
                world.home_node(shards[0]),
            )  # fmt: skip
        elif row["role"] == "PUBLIC":
            yield _finding(
                seen, "public_rights", shards, f"PUBLIC may read {name}, and so rows of other regions, here", _HINT,
                world.home_node(shards[0]),
            )  # fmt: skip
        elif row["login"]:
            shown.setdefault(str(name), set()).add(row["role"])
    for table, roles in shown.items():
        listed = ", ".join(sorted(roles))
        yield Looked(
            f"roles that may read {table} from here, other regions' rows too",
            seen.name,
            seen.region,
            listed,
            len(roles),
        )


def _usages(world: World, seen: Seen) -> Iterator[Finding]:
    for dbname, facts in seen.databases.items():
        for server in facts["foreign_servers"]:
            nodes = leads_to(world, seen, server) or ()
            groups = [str(g.name) for g in world.topology.groups if set(nodes) & set(g.nodes)]
            shards = tuple(p for g in groups for p in world.at(g) if not p.allows(seen.node.label))
            if shards and server["usable_by"]:
                yield _finding(
                    seen, "server_usage", shards,
                    f"{', '.join(server['usable_by'])} may make foreign tables on server {server['name']} in database"
                    f" {dbname}, with the login of the link",
                    "REVOKE USAGE ON FOREIGN SERVER", world.home_node(shards[0]),
                )  # fmt: skip


def _functions(world: World, seen: Seen, own: frozenset[str]) -> Iterator[Finding | Looked]:
    known = 0
    for row in world.herd(seen)["functions"]:
        if row["schema"] == "pgherd" and row["body"].strip() in own:
            known += 1
            continue
        shards = tuple(p for p in _near(world, seen) if _mentions(row, p))
        if row["sends"] and _near(world, seen):
            yield _finding(
                seen, "sending_function", _near(world, seen),
                f"{row['signature']} sends statements to other servers, or writes files or programs of this one: it may"
                " take rows along", "drop it, or see what it sends and who calls it", None,
            )  # fmt: skip
        if row["definer"] and row["public"] and row["superuser"] and shards:
            yield _finding(
                seen, "definer_function", shards,
                f"PUBLIC may run {row['signature']} as superuser {row['owner']}: it reads pinned rows",
                "REVOKE EXECUTE … FROM PUBLIC, or give it an owner with fewer rights", None,
            )  # fmt: skip
    yield Looked("pgherd's own functions, compared by their text", seen.name, seen.region, count=known)


def _mentions(row: Row, p: Pinned) -> bool:
    """Whether a function's text names the table or a shard, or builds statements that could."""
    words = set(re.findall(r"\w+", row["body"].lower()))
    return any(n.name.lower() in words for n in p.names) or "execute" in words or "dblink" in row["body"].lower()


def own_bodies(topology: Topology) -> frozenset[str]:
    """The texts of the functions that pgherd makes: from its scripts, and the searches of this schema."""
    texts = list(all_scripts())
    for _, closed in audiences(topology):
        texts += [text for table in topology.schema.tables for _, text in search_functions(topology, table, closed)]
    return frozenset(found[1].strip() for text in texts for found in _BODY.findall(text))


def _finding(seen: Seen, kind: str, shards: tuple[Pinned, ...], detail: str, hint: str, source: str | None) -> Finding:
    table = tables_of(shards) or None
    return Finding(kind, Severity.RISK, table, seen.name, seen.region, detail, hint, source, seen.name)
