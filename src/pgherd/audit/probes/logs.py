"""What servers write into their logs, and where those go. Values in log files are searched for (searching.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..finding import Finding, Outcome, Severity, outcome
from ..world import Row, Seen, World, tables_of

_ERRORS = ("debug5", "debug4", "debug3", "debug2", "debug1", "debug", "info", "notice", "warning", "error")
"""Levels at which an error, or the statement that made it, is printed; ``log`` is above them here."""
_PRINTS: dict[str, Callable[[str], bool]] = {
    "log_statement": lambda v: v != "none",
    "log_min_duration_statement": lambda v: v != "-1",
    "log_min_duration_sample": lambda v: v != "-1",
    "log_transaction_sample_rate": lambda v: float(v) > 0,
    "log_min_error_statement": lambda v: v in _ERRORS,
    "debug_print_parse": lambda v: v == "on",
    "debug_print_rewritten": lambda v: v == "on",
    "debug_print_plan": lambda v: v == "on",
    "auto_explain.log_min_duration": lambda v: v != "-1",
    "pgaudit.log_statement": lambda v: v == "on",
}


def probe(world: World) -> Outcome:
    """Settings that print statements, parameters or keys, of servers, roles and databases."""
    return outcome(_all(world))


def _all(world: World) -> Iterator[Finding]:
    if not world.pinned:
        return
    for seen in world.up():
        shown = {r["name"]: r["setting"] for r in seen.facts["settings"]}
        if shown.get("pgaudit.log") == "none":  # it is loaded, and records nothing
            shown.pop("pgaudit.log_statement", None)
        reasons = [f"{name} = {value}" for name, value in shown.items() if prints(name, value)]
        if seen.setting("log_min_messages") in _ERRORS and seen.setting("log_error_verbosity") not in (None, "terse"):
            reasons.append(f"log_error_verbosity = {seen.setting('log_error_verbosity')}: DETAIL quotes keys")
        if reasons:
            yield _finding(world, seen, reasons, "statements and keys with their values are printed")
        for r in seen.facts["role_settings"]:
            if prints(r["name"], r["setting"]) or _audits(seen, r):
                reason = f"{r['name']} = {r['setting']} for {r['role']} in {r['database']}"
                yield _finding(world, seen, [reason], "statements with their values are printed")


def _audits(seen: Seen, row: Row) -> bool:
    """Whether a setting lets pgaudit record the statements of somebody, and nothing keeps it from printing them."""
    if row["name"] != "pgaudit.log" or row["setting"] == "none" or seen.setting("pgaudit.log_statement") == "off":
        return False
    beside = (r for r in seen.facts["role_settings"] if (r["role"], r["database"]) == (row["role"], row["database"]))
    return not any(r["name"] == "pgaudit.log_statement" and r["setting"] == "off" for r in beside)


def prints(name: str, value: str | None) -> bool:
    """Whether a setting makes a server print statements, whose values are those of rows."""
    return value is not None and name in _PRINTS and _PRINTS[name](value)


def _finding(world: World, seen: Seen, reasons: list[str], what: str) -> Finding:
    where = "its log"
    destination = seen.setting("log_destination") or ""
    leaves = [d.strip() for d in destination.split(",") if d.strip() in ("syslog", "eventlog")]
    if leaves:
        where = f"{leaves[0]}, which may carry them anywhere"
    shards = (*world.at(str(seen.group.name)), *world.kept_from(seen.node.label))
    return Finding(
        "log_settings", Severity.RISK, tables_of(shards) or None, seen.name, seen.region,
        f"{what} into {where}: {', '.join(reasons)}",
        "reset them (ALTER SYSTEM RESET …, ALTER ROLE … RESET …); pgherd's own servers print no values",
        seen.name, "syslog" if leaves else seen.name,
    )  # fmt: skip
