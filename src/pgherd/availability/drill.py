"""A drill: clients at work, something breaks, is put right whatever happens, and what clients met is measured."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from ..errors import HerdError
from ..local import homelock
from . import lists
from .catalogue import fault_of
from .faults import Fault
from .ground import Ground
from .history import Op
from .load import Load, Refusal
from .measure import Round, measure, summary

WARM_UP_S = 1.0
WARM_UP_WRITES = 50
CALM_S = 1.0
"""How long clients go on once all is well again."""
WRITES_AGAIN = 5
WRITES_AGAIN_S = 60.0
"""Writes go on when so many that began after the break were acknowledged; how long to wait for them before mending."""

OnRound = Callable[[int, Round], None]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trace:
    """What a picture of a round is drawn from."""

    ops: tuple[Op, ...]
    refusals: tuple[Refusal, ...]
    broken_s: float
    mended_s: float | None
    redundant_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a drill found; ``traces`` one a round."""

    drill: str
    group: str
    how: str
    rounds: tuple[Round, ...]
    traces: tuple[Trace, ...]

    def as_json(self) -> dict[str, Any]:
        """The stable keys of ``pgherd drill --json``."""
        return {
            "drill": self.drill,
            "group": self.group,
            "how": self.how,
            "rounds": [r.as_json() for r in self.rounds],
            **summary(self.rounds),
        }


def drill(
    home: Path,
    name: str,
    *,
    group: str | None = None,
    rounds: int = 5,
    seed: int | None = None,
    break_production: bool = False,
    progress: Progress | None = None,
    on_round: OnRound | None = None,
) -> Report:
    """Break a group of the herd in ``home`` ``rounds`` times, while clients work on a scratch table of its own.

    ``break_production`` allows it on attached servers, as far as that can be done from outside.

    Whatever happens, what was broken is put right and the scratch table removed; what a drill leaves that was killed
    itself, ``pgherd up`` puts right. Raises DrillRefused where there is nothing to drill or nothing would be left,
    AlreadyRunning while there is another (each would take what the other did for losses), DrillFailed when the group
    does not come back, GroupUnavailable.
    """
    say = progress or (lambda _: None)
    chance = random.Random(seed)  # noqa: S311 - choices, not secrets
    with (
        closing(Ground(home, group, break_production=break_production)) as ground,
        homelock.locked(ground.home, 0, homelock.DRILL_NAME, "another drill"),
        ending_in_order(),
    ):
        fault = fault_of(name, ground, chance)
        fault.check_reach()
        ground.join()
        done: list[tuple[Round, Trace]] = []
        try:
            fault.prepare()
            for number in range(1, rounds + 1):
                say(f"{name}, round {number} of {rounds}")
                done.append(run_round(ground, fault, chance, say))
                if on_round:
                    on_round(number, done[-1][0])
        finally:
            fault.finish()
    return Report(name, str(ground.group.name), fault.how, tuple(r for r, _ in done), tuple(t for _, t in done))


def run_round(ground: Ground, fault: Fault, chance: random.Random, say: Progress) -> tuple[Round, Trace]:
    """One round: clients start, it breaks, it is mended, the group is redundant again, the lists are checked."""
    ground.await_redundant()
    fault.arm()
    with _scratch(ground):
        seed = chance.randrange(1 << 30)
        load = Load(ground.connect, ground.connect_to, ground.group.nodes, seed=seed, enter=ground.enter)
        load.start()
        try:
            ground.await_that(lambda: load.now() > WARM_UP_S and load.acknowledged() > WARM_UP_WRITES, WRITES_AGAIN_S)
            broken_s, mended_s, hit = _break(ground, fault, load, say)
            say("waiting until the group is redundant")
            ground.await_redundant()
            redundant_s = load.now()
            ground.await_that(lambda: load.now() > redundant_s + CALM_S, 2 * CALM_S)
        finally:
            load.stop()
        ended_s = load.now()
        with ground.connect() as connection:
            final, rows = lists.final(connection), lists.rows(connection)
        ops = [replace(op, node=ground.name_of(op.node)) for op in load.history]
        found = measure(
            ops,
            final,
            broken_s=broken_s,
            ended_s=redundant_s + CALM_S / 2,
            redundant_again_s=redundant_s - (broken_s if mended_s is None else mended_s),
            reads_refused=sum(r.at_s >= broken_s for r in load.refusals),
            hit=hit,
            rows=rows,
            rows_each=lists.ROWS_EACH,
        )
    trace = Trace(tuple(ops), tuple(load.refusals), broken_s, mended_s, redundant_s, ended_s)
    return found, trace


def _break(ground: Ground, fault: Fault, load: Load, say: Progress) -> tuple[float, float | None, Sequence[str]]:
    """Break it and mend it; when it broke, when it was mended (None: it mends itself), who was hit."""
    broken_s = load.now()

    def written(besides: str) -> bool:
        node = ground.node(besides)
        return load.acknowledged(broken_s, f"{node.host}:{node.port}") > 0

    say(f"breaking it: {fault.how}")
    try:
        hit = fault.strike(written)
        struck_s = load.now()
        say("waiting for writes to go on")
        if not ground.await_that(lambda: load.acknowledged(struck_s) >= WRITES_AGAIN, WRITES_AGAIN_S):
            say(f"no write was acknowledged for {WRITES_AGAIN_S:.0f} s")
    finally:
        fault.mend()
    return broken_s, None if fault.heals else load.now(), hit


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Take SIGTERM and SIGHUP, a terminal that is closed, for Ctrl-C, so that all is put right first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _scratch(ground: Ground) -> Iterator[None]:
    """The scratch table, in a schema of its own; removed afterwards, unless there is nobody to remove it from."""
    with ground.connect() as connection:
        connection.execute(lists.CREATE)
    try:
        yield
    finally:
        with suppress(psycopg.Error, HerdError), ground.connect() as connection:
            connection.execute(lists.DROP)
