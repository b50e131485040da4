"""Everything about a herd on paper: size, churn, fan-out, connections; each figure with its formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engines.servers.pool import MAX_CONNECTIONS
from ..errors import BadInput
from ..planning.advice import Figure
from ..planning.workload import Machine, Workload, check
from .churn import Churn, churn
from .latency import LogNormal, hedged, quantile
from .synthetic import Shape, synthetic

CLIENT_US = 60.0
"""What a client spends on each server that it asks, in microseconds: sending, reading, merging."""
TAIL = 5.0
"""The 99th percentile of one server over its median, where nobody has measured."""
NETWORK_MS = 0.5
MAX_SERVER_CONNECTIONS = 200
"""max_connections of the servers that pgherd starts."""


@dataclass(frozen=True, slots=True)
class Fanout:
    """A search that asks ``servers`` of them: milliseconds, with and without hedged questions."""

    servers: int
    p50_ms: float
    p99_ms: float
    hedged_p50_ms: float
    hedged_p99_ms: float


@dataclass(frozen=True, slots=True)
class Load:
    """``latency`` of one server (None: estimated), searches a second, clients (processes), bytes/s into one node."""

    latency: LogNormal | None = None
    qps: float | None = None
    clients: int = 1
    rate: int = 100 * 2**20
    client_us: float = CLIENT_US


@dataclass(frozen=True, slots=True)
class Simulation:
    """The answer; ``latency`` is that of one server."""

    groups: int
    shards: int
    latency: LogNormal
    figures: tuple[Figure, ...]
    churn: tuple[Churn, ...]
    fanout: tuple[Fanout, ...]
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``pgherd advise --simulate --json``."""
        return {
            "groups": self.groups,
            "shards": self.shards,
            "server_p50_ms": self.latency.p50_ms,
            "server_p99_ms": self.latency.p99_ms,
            "figures": [asdict(f) for f in self.figures],
            "churn": [asdict(c) for c in self.churn],
            "fanout": [asdict(f) for f in self.fanout],
            "reasons": list(self.reasons),
        }


def simulate(shape: Shape, work: Workload, load: Load) -> Simulation:
    """A herd of this shape with these rows under this load. Raises BadInput for numbers that make no sense."""
    check(work, Machine())
    shape.check(work.rows)
    for what, value in (("rate", load.rate), ("clients", load.clients), ("client-us", load.client_us)):
        if not 0 < value <= 10**12:
            raise BadInput(f"{what} is {value:,}", hint="more than 0")
    topology, sizes = synthetic(shape, work)
    events = churn(topology, sizes, shape)
    latency = load.latency or _estimated(shape, work)
    fanout = tuple(_fanout(latency, n, load.client_us) for n in _steps(shape.groups))
    figures = tuple(_figures(shape, work, load, sizes, latency, fanout[-1]))
    return Simulation(
        shape.groups, len(sizes), latency, figures, tuple(events), fanout, tuple(_reasons(shape, events, fanout, load))
    )


def _estimated(shape: Shape, work: Workload) -> LogNormal:
    ms = work.search_ms()[0] + NETWORK_MS
    return LogNormal(ms, TAIL * ms)


def _steps(groups: int) -> list[int]:
    """1, 2, 4, … and all."""
    return [*(2**i for i in range(groups.bit_length()) if 2**i < groups), groups]


def _fanout(latency: LogNormal, servers: int, client_us: float) -> Fanout:
    again, own = hedged(latency), servers * client_us / 1000
    times = [quantile(x, share, servers) + own for x in (latency, again) for share in (0.5, 0.99)]
    return Fanout(servers, *times)


def _figures(
    shape: Shape, work: Workload, load: Load, sizes: dict[str, int], latency: LogNormal, whole: Fanout
) -> list[Figure]:
    total, groups = sum(sizes.values()), shape.groups
    each = total / groups
    table, index = work.table, work.index()
    found = [
        Figure("bytes of all shards", total, "B", f"table {table.bytes:,} B + index {index.bytes:,} B + primary key"),
        Figure("bytes of a shard", total / len(sizes), "B", f"{total:,} B / {len(sizes):,} shards"),
        Figure("bytes of a group", each, "B", f"{total:,} B / {groups:,} groups"),
        Figure(
            "index of a group", index.bytes / groups, "B", f"{index.bytes:,} B / {groups:,} groups: wants memory"
        ),
        Figure("time to fill a node", each / load.rate, "s", f"{each:,.0f} B / {load.rate:,} B/s"),
        Figure(
            "time of a search, p50", whole.p50_ms, "ms",
            f"F(t)^{groups} = 0.5, F lognormal with median {latency.p50_ms:.3g} and p99 {latency.p99_ms:.3g} ms,"
            f" + {groups} x {load.client_us:g} us of the client",
        ),
        Figure("time of a search, p99", whole.p99_ms, "ms", f"F(t)^{groups} = 0.99, and the same of the client"),
        Figure(
            "p99 with hedged questions", whole.hedged_p99_ms, "ms",
            f"(1 - (1 - F(t)) (1 - F(t - h)))^{groups} = 0.99, h = p95 of one server; 5 % more questions, and replicas",
        ),
        Figure(
            "connections of a client", MAX_CONNECTIONS * groups, "connections",
            f"{MAX_CONNECTIONS} (at most) x {groups:,} groups",
        ),
        Figure(
            "connections of a server", MAX_CONNECTIONS * load.clients, "connections",
            f"{MAX_CONNECTIONS} (at most) x {load.clients:,} clients; servers of pgherd take {MAX_SERVER_CONNECTIONS}",
        ),
        Figure(
            "searches a second of one client", 1e6 / (groups * load.client_us), "searches/s",
            f"1 s / ({groups:,} groups x {load.client_us:g} us), one core of the client",
        ),
    ]  # fmt: skip
    if load.qps is not None:
        ms = work.search_ms()[0]
        formula = f"{load.qps:,.6g} searches/s x {ms:.2f} ms / 1,000: every search visits every group"
        found.append(Figure("busy cores of a server", load.qps * ms / 1000, "cores", formula))
    return found


def _reasons(shape: Shape, events: Sequence[Churn], fanout: Sequence[Fanout], load: Load) -> list[str]:
    found = []
    one, whole = fanout[0], fanout[-1]
    if shape.groups > 1:
        found.append(
            f"asking {shape.groups:,} servers instead of one makes the median {whole.p50_ms / one.p50_ms:.1f} and the"
            f" p99 {whole.p99_ms / one.p99_ms:.1f} times as long; hedged, the p99 is"
            f" {whole.hedged_p99_ms / one.p99_ms:.1f} times"
        )
    own = shape.groups * load.client_us / 1000
    if own > whole.p50_ms / 2:
        found.append(
            f"{own:.0f} ms of each search are the client's own work for {shape.groups:,} answers: place rows by a key"
            " that searches name, so that they visit few groups"
        )
    if MAX_CONNECTIONS * load.clients > MAX_SERVER_CONNECTIONS:
        found.append(f"{load.clients:,} clients can want more connections than a server takes: put a pooler before it")
    large = max(events, key=lambda e: e.plan_bytes)
    if large.plan_bytes > 2**30:
        found.append(
            f"the statements of '{large.event}' are {large.plan_bytes / 2**30:,.1f} GiB in all: each move tells every"
            " node the new homes (search functions, links), which grow with the shards"
        )
    uneven = max(e.uneven_after for e in events)
    if uneven > 0.25:
        found.append(
            f"the heaviest group can hold {uneven:.0%} more than the mean: more shards a group (--shards) even out"
            " better"
        )
    return found
