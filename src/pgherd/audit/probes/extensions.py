"""Code in the servers that can send out or read in: extensions, languages, libraries, workers."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import Finding, NotLooked, Outcome, Severity, outcome
from ..world import Seen, World, tables_of

SENDS = {
    "dblink": "connects to any server",
    "file_fdw": "reads files and programs of the server",
    "http": "sends requests anywhere",
    "pg_net": "sends requests anywhere",
    "pgsql-http": "sends requests anywhere",
    "pg_cron": "runs statements by itself",
    "pg_background": "runs statements by itself",
    "pgagent": "runs statements by itself",
    "pglogical": "replicates by itself",
    "bdr": "replicates by itself",
    "citus": "moves rows between servers by itself",
    "aws_s3": "writes to S3",
    "aws_lambda": "calls AWS",
    "azure_storage": "writes to Azure",
    "azure_ai": "sends texts to models",
    "google_ml_integration": "sends texts to models",
    "ai": "sends texts to models",
    "vectorize": "sends texts to models",
    "pg_parquet": "writes files and objects elsewhere",
    "pg_duckdb": "reads and writes elsewhere",
    "orafce": "writes files of the server",
    "adminpack": "writes files of the server",
    "oracle_fdw": "connects to any server",
    "mysql_fdw": "connects to any server",
    "tds_fdw": "connects to any server",
    "mongo_fdw": "connects to any server",
    "redis_fdw": "connects to any server",
    "sqlite_fdw": "reads and writes files of the server",
    "multicorn": "runs Python, which can do anything",
    "plr": "runs R, which can do anything",
    "plsh": "runs programs",
    "plpython3u": "runs Python, which can do anything",
    "plperlu": "runs Perl, which can do anything",
    "pltclu": "runs Tcl, which can do anything",
    "pljavau": "runs Java, which can do anything",
}
HARMLESS = frozenset({
    "amcheck", "autoinc", "bloom", "btree_gin", "btree_gist", "citext", "cube", "dict_int", "dict_xsyn",
    "earthdistance", "fuzzystrmatch", "hstore", "insert_username", "intagg", "intarray", "isn", "lo", "ltree",
    "moddatetime", "pg_buffercache", "pg_freespacemap", "pg_prewarm", "pg_trgm", "pg_visibility", "pgaudit", "pgcrypto",
    "pgrowlocks", "pgstattuple", "plperl", "plpgsql", "pltcl", "postgis", "postgres_fdw", "refint", "seg",
    "sslinfo", "tablefunc", "tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "vector",
    "xml2",
})  # fmt: skip
LIBRARIES = {
    "basebackup_to_shell": "hands base backups to a program",
    "pg_cron": "runs statements by itself",
    "pg_net": "sends requests anywhere",
    "pglogical": "replicates by itself",
    "bdr": "replicates by itself",
}
_CODE = {"language": "runs what it likes", "library": "has functions that are of no extension, and do what they like"}
QUIET_LIBRARIES = frozenset(
    {"pg_stat_statements", "auto_explain", "pg_prewarm", "vector", "passwordcheck", "auth_delay", "pgaudit"}
)


def probe(world: World) -> Outcome:
    """What is installed in any database of any node, preloaded, or running as a worker."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | NotLooked]:
    if not world.pinned:
        return
    for seen in world.primaries():
        for dbname, facts in seen.databases.items():
            names = {r["name"] for r in facts["extensions"] if r["what"] == "extension"}
            herd = any((r["schema"], r["name"]) == ("pgherd", "topology") for r in facts["relations"])
            for row in facts["extensions"]:
                mine = herd and row["name"] == "dblink" and row["schema"] == "pgherd"
                again = row["what"] == "language" and row["name"] in names
                if mine or again or row["name"] in HARMLESS:
                    continue
                does = SENDS.get(row["name"]) or _CODE.get(row["what"])
                detail = f"{row['what']} {row['name']} in database {dbname} "
                if does:
                    yield _finding(world, seen, Severity.RISK, detail + does, "drop it, or see what uses it")
                elif row["name"] == "pg_stat_statements":
                    yield _finding(world, seen, Severity.NOTE, detail + "keeps texts of statements", "")
                else:
                    yield NotLooked(detail.strip(), seen.name, seen.region, "what it does is not known to this audit")
    for seen in world.up():
        for where, listed in _libraries(seen):
            for library in filter(None, (x.strip(" \"'") for x in listed.split(","))):
                if library in LIBRARIES:
                    detail = f"library {library} {where} {LIBRARIES[library]}"
                    yield _finding(world, seen, Severity.RISK, detail, "take it out of the setting, and restart")
                elif library not in QUIET_LIBRARIES:
                    yield NotLooked(
                        f"library {library} {where}", seen.name, seen.region, "what it does is not known to this audit"
                    )
        for row in seen.facts["workers"]:
            if row["type"] is None:
                yield NotLooked("some sessions and workers", seen.name, seen.region, "the role lacks pg_read_all_stats")
            elif not row["type"].startswith("autoprewarm"):
                what = f"background worker {row['type']}" + (
                    f" in database {row['database']}" if row["database"] else ""
                )
                yield _finding(world, seen, Severity.RISK, f"{what} runs in the server", "see which library starts it")


def _libraries(seen: Seen) -> Iterator[tuple[str, str]]:
    """(where it is said, what) of libraries that the server, or sessions of roles or databases, load now or soon."""
    for kind in ("shared", "session", "local"):
        name = f"{kind}_preload_libraries"
        yield f"({name})", seen.setting(name) or ""
    for row in seen.facts["file_settings"]:
        yield f"({row['name']} in {row['file']}, not in effect yet)", row["setting"] or ""
    for row in seen.facts["role_settings"]:
        if row["name"].endswith("_preload_libraries"):
            yield f"({row['name']} of {row['role']} in {row['database']})", row["setting"]


def _finding(world: World, seen: Seen, severity: Severity, detail: str, hint: str) -> Finding:
    shards = (*world.at(str(seen.group.name)), *world.kept_from(seen.node.label))
    return Finding(
        "extension", severity, tables_of(shards) or None, seen.name, seen.region, detail, hint, seen.name, None
    )
