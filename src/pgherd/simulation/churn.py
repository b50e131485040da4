"""Servers come and go: which moves the planner makes of it, and what they weigh against the least that could be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..model.topology import Topology
from ..planning.move import plan_moves
from ..planning.plan import Traits
from ..planning.rebalance import Move, drain, rebalance
from .synthetic import Shape, groups_of

PLANNED = 2
"""Moves that are planned to the last statement, to know how large the plan of all is: they are alike."""
FLEET = Traits(keys_on_parent=False, enforces_placement=True)


@dataclass(frozen=True, slots=True)
class Churn:
    """One event: moves and bytes of it, and the ``least_bytes`` that any way of sharing out evenly has to move.

    ``uneven_before``, ``uneven_after``: the heaviest group over the mean, less 1. ``busiest_bytes``: what the group
    with most traffic sends or gets. ``planner_s``: choosing the moves; ``plan_s`` and ``plan_bytes``: all statements
    to all nodes, worked out from the first moves.
    """

    event: str
    moves: int
    bytes: int
    least_bytes: int
    uneven_before: float
    uneven_after: float
    busiest_bytes: int
    planner_s: float
    plan_s: float
    plan_bytes: int
    note: str = ""


def churn(topology: Topology, sizes: Mapping[str, int], shape: Shape) -> list[Churn]:
    """One server more, a tenth more, twice as many; one drained; one lost."""
    found = []
    count = len(topology.groups)
    for more in dict.fromkeys((1, max(1, count // 10), count)):
        grown = replace(topology, groups=(*topology.groups, *groups_of(shape, count + 1, more)))
        plural = "s" if more > 1 else ""
        found.append(_event(f"{more} group{plural} more", grown, sizes, rebalance, _fair(topology, grown, sizes)))
    if count > shape.regions:
        leaving = topology.groups[-1].name
        on_it = _load(topology, sizes)[leaving]
        found.append(
            _event("1 group drained", topology, sizes, lambda t, s: drain(t, s, leaving), on_it, without=leaving)
        )
    heaviest = max(_load(topology, sizes).values())
    note = "from its group's other nodes" if shape.replicas > 1 else "from a backup: there are no replicas"
    even = _uneven(topology, sizes)
    found.append(Churn("1 node lost, and made anew", 0, heaviest, heaviest, even, even, heaviest, 0.0, 0.0, 0, note))
    return found


def _event(
    event: str,
    topology: Topology,
    sizes: Mapping[str, int],
    choose: Callable[[Topology, Mapping[str, int]], tuple[Move, ...]],
    least: int,
    without: str | None = None,
) -> Churn:
    began = time.perf_counter()
    moves = choose(topology, sizes)
    chosen = time.perf_counter()
    plan = plan_moves(topology, moves[:PLANNED], FLEET)
    planned = time.perf_counter()
    text = sum(len(s.sql) * len(s.groups) for s in plan.steps)
    share = len(moves) / max(1, min(PLANNED, len(moves)))
    homes = {**topology.homes, **{n.sql: m.target for m in moves for n in m.shards}}
    after = replace(topology, homes=homes)
    traffic = Counter[str]()
    for m in moves:
        traffic[m.source] += m.bytes
        traffic[m.target] += m.bytes
    return Churn(
        event,
        len(moves),
        sum(m.bytes for m in moves),
        least,
        _uneven(topology, sizes),
        _uneven(after, sizes, without),
        max(traffic.values(), default=0),
        chosen - began,
        (planned - chosen) * share,
        round(text * share),
    )


def _load(topology: Topology, sizes: Mapping[str, int]) -> dict[str, int]:
    load = {str(g.name): 0 for g in topology.groups}
    for name, home in topology.homes.items():
        load[home] += sizes[name]
    return load


def _uneven(topology: Topology, sizes: Mapping[str, int], without: str | None = None) -> float:
    load = [b for g, b in _load(topology, sizes).items() if g != without]
    return max(load) * len(load) / max(1, sum(load)) - 1


def _fair(before: Topology, after: Topology, sizes: Mapping[str, int]) -> int:
    """What groups that join must get for all of a region to hold the same, region by region."""
    region = {g.name: g.primary.label.region for g in after.groups}
    load = _load(before, sizes)
    old, new = Counter(region[g.name] for g in before.groups), Counter(region.values())
    total = Counter[str]()
    for group, weight in load.items():
        total[region[before.group(group).name]] += weight
    return sum(total[r] * (new[r] - old[r]) // new[r] for r in new)
