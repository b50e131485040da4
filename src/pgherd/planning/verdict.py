"""Which engine fits what is needed, with a reason each. Pure."""

from __future__ import annotations

from dataclasses import dataclass

NOT_RUN = "pgherd doesn't run it yet"


@dataclass(frozen=True, slots=True)
class Need:
    """Servers for memory with the indexes as they are, and with the smallest; whether one server's CPU is short."""

    servers: int
    least_servers: int
    short_of_cpu: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether an engine fits (as a first choice), and why or why not."""

    engine: str
    fits: bool
    reason: str


def fits(need: Need) -> tuple[Fit, ...]:
    """All engines."""
    return (
        _single(need),
        _fleet(need),
        Fit(
            "citus",
            False,
            f"divides memory as a fleet does; choose it for joins and aggregates over all shards in SQL. {NOT_RUN}",
        ),
        Fit(
            "yugabytedb",
            False,
            "divides memory, and tablets elect new leaders by themselves; indexes vectors of its own kind only (no"
            f" halfvec or bit quantization). {NOT_RUN}",
        ),
        Fit(
            "multimaster",
            False,
            "every node holds all rows: no memory or disk is gained, only writers in several regions, with conflicts to"
            f" resolve. {NOT_RUN}",
        ),
    )


def _single(need: Need) -> Fit:
    if need.servers == 1:
        more = "; read replicas for its CPU" if need.short_of_cpu else ""
        return Fit("single", True, f"one server has the memory{more}: less to run than anything else")
    if need.least_servers == 1:
        return Fit("single", True, f"with a smaller index one server does; as they are, {need.servers} are needed")
    return Fit("single", False, f"the smallest index still needs {need.least_servers} servers' memory")


def _fleet(need: Need) -> Fit:
    if need.servers > 1:
        return Fit("fleet", True, f"{need.servers} plain PostgreSQL servers divide memory and disk; moves are online")
    return Fit("fleet", False, "no need of it for memory; for rows that must stay in a region it is the one to take")
