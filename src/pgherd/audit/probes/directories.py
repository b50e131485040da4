"""Files outside of the data directory: PostgreSQL's tablespaces, symbolic links, and temporary files left behind."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import Finding, NotLooked, Outcome, Severity, outcome
from ..world import Seen, World, tables_of


def probe(world: World) -> Outcome:
    """Directories that a server with pinned rows, or one that they pass through, writes to."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding | NotLooked]:
    if not world.pinned:
        return
    yield NotLooked(
        "rows that were deleted and not yet vacuumed, dropped columns, and WAL",
        None,
        None,
        "no SQL shows what is left of them in files",
    )
    for seen in world.up():
        temporary = seen.setting("temp_tablespaces")
        for row in seen.facts["directories"]:
            if row["directory"] and not row["directory"].startswith("pg_tblspc/"):
                yield _finding(
                    world, seen, "directory",
                    f"tablespace {row['name']} is the directory {row['directory']}, outside of the data directory:"
                    " which machine and region it is on can't be seen from here",
                    "move what is in it back (ALTER TABLE … SET TABLESPACE pg_default), and drop it", row["directory"],
                )  # fmt: skip
        if temporary:
            yield _finding(
                world, seen, "temp_tablespaces",
                f"temp_tablespaces = {temporary}: sorts and hashes of rows are written there",
                "ALTER SYSTEM RESET temp_tablespaces", seen.name,
            )  # fmt: skip
        for row in seen.facts["role_settings"]:
            if row["name"] == "temp_tablespaces":
                yield _finding(
                    world, seen, "temp_tablespaces",
                    f"temp_tablespaces = {row['setting']} for {row['role']} in {row['database']}",
                    "reset it (ALTER ROLE … RESET temp_tablespaces)", seen.name,
                )  # fmt: skip
        for row in seen.facts["symlinks"]:
            yield _finding(
                world, seen, "directory",
                f"{row['link']} in the data directory is a link to {row['target']}, outside of it",
                "move the files back into the data directory", row["target"],
            )  # fmt: skip
        read = {m.place.removeprefix("file ") for m in world.matches if m.node == seen.name and m.kind == "stray_file"}
        orphans = (r for facts in seen.databases.values() for r in facts["orphans"])
        strays = sorted({r["top"] for r in (*seen.facts["stray_files"], *orphans) if r["path"] not in read})
        if strays:
            named = ", ".join(strays[:5]) + (" …" if len(strays) > 5 else "")
            yield _finding(
                world, seen, "stray_file",
                f"{len(strays)} files or directories in the data directory belong to no table and are not PostgreSQL's:"
                f" {named}. A COPY, a dump or a crash may have left rows there",
                "see what they are, and remove them", seen.name,
            )  # fmt: skip
        log = seen.setting("log_directory") or ""
        data = seen.setting("data_directory") or ""
        if seen.setting("logging_collector") == "on" and log.startswith("/") and not log.startswith(f"{data}/"):
            yield _finding(
                world, seen, "directory",
                f"log_directory = {log}, outside of the data directory: which machine and region it is on can't be seen"
                " from here", "keep the log in the data directory", log,
            )  # fmt: skip
        left = [r for r in seen.facts["temporary"] if not r["in_use"]]
        if left:
            yield _finding(
                world, seen, "temporary_files",
                f"{len(left)} temporary files of {sum(r['size'] for r in left):,} bytes belong to no session: a crash"
                " left them, and they may hold rows that were sorted here",
                "a restart of the server removes them", seen.name,
            )  # fmt: skip


def _finding(world: World, seen: Seen, kind: str, detail: str, hint: str, target: str) -> Finding:
    shards = (*world.at(str(seen.group.name)), *world.kept_from(seen.node.label))
    table = tables_of(shards) or None
    return Finding(kind, Severity.RISK, table, seen.name, seen.region, detail, hint, seen.name, target)
