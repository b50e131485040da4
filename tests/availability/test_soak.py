"""Many random faults in a row while a writer works: nothing that was acknowledged is lost."""

from __future__ import annotations

import random
import time

import pytest

from availability.replicated import Replicated, wait_until
from availability.test_failover import Writer, frozen, killed_node, killed_server
from pgherd.availability.switchover import switchover
from pgherd.herdfile import HerdNode

ROUNDS = 50
LONGEST_S = 1100


def switched(replicated: Replicated, node: HerdNode) -> None:
    switchover(replicated.home, "main")


def lost_machine(replicated: Replicated, node: HerdNode) -> None:
    replicated.kill_machine(node)
    replicated.new_primary(node)
    replicated.local.up()


FAULTS = (killed_server, killed_node, frozen, switched, lost_machine)


@pytest.mark.soak
def test_no_acknowledged_write_is_lost_in_many_random_faults(replicated: Replicated) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writer = Writer(replicated, 900_000_000_000)
    writer.start()
    ends, rounds = time.monotonic() + LONGEST_S, 0
    try:
        while rounds < ROUNDS and time.monotonic() < ends and not writer.failures:
            wait_until(replicated.in_step, 180)
            writer.more()
            chance.choice(FAULTS)(replicated, replicated.primary())
            writer.more(1)
            rounds += 1
    finally:
        writer.end()
    assert writer.failures == []
    with replicated.connect() as connection:
        found = {row[0] for row in connection.execute("SELECT id FROM entry_here").fetchall()}
    assert set(writer.acknowledged) - found == set(), f"seed {seed}"
    assert rounds >= 10
