"""Fifty faults at random, one after the other, on a herd of its own: ``python -m pgherd.availability.soak``.

Bounded in time; the same seed breaks the same things in the same order. Ends with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from ..errors import HerdError
from ..local.herd import LocalHerd
from ..model.placement import Label
from .catalogue import fault_of
from .drill import run_round
from .ground import Ground
from .measure import Round, summary

ROUNDS, MINUTES = 50, 20.0
HARMFUL = ("kill-server", "kill-node", "kill-host", "freeze", "lose-etcd", "disk-full", "switchover", "second-failure")
"""All but those that need another herd (lose-region) or a machine that is set up for them (partition)."""


def soak(home: Path, seed: int, rounds: int, minutes: float) -> list[tuple[str, Round]]:
    """Break the first group of ``home`` up to ``rounds`` times, beginning no round after ``minutes``."""
    chance = random.Random(seed)  # noqa: S311 - choices, not secrets
    with closing(Ground(home, None)) as ground:
        ground.join()
        ends = time.monotonic() + 60 * minutes
        done: list[tuple[str, Round]] = []
        for number in range(1, rounds + 1):
            if time.monotonic() > ends:
                break
            fault = fault_of(chance.choice(HARMFUL), ground, chance)
            fault.prepare()
            found, _ = run_round(ground, fault, chance, lambda _: None)
            done.append((fault.name, found))
            told = f"{found.rto_s:6.2f} s, {found.rows:6d} rows acknowledged, {found.lost} lost"
            print(f"{number:3d} {fault.name:15s} {told}, redundant after {found.redundant_again_s:.1f} s", flush=True)
            for violation in found.violations:
                print(f"    {violation.anomaly.value}: {violation.detail}", flush=True)
    return done


def main() -> int:
    """Make a herd, break it, show what was lost, remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    print(f"seed {seed}: the same again with --seed {seed}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="pgherd-soak-"))
    place.chmod(0o711)
    local = LocalHerd(place / "home")
    try:
        local.up([Label.parse("us-east")], replicas=3)
        done = soak(local.home, seed, options.rounds, options.minutes)
    except HerdError as error:
        print(f"error {error.message}\nhint  {error.hint}", file=sys.stderr)
        return 1
    finally:
        local.destroy()
        shutil.rmtree(place, ignore_errors=True)
    found = summary([r for _, r in done])
    acknowledged, kinds = sum(r.rows for _, r in done), Counter(name for name, _ in done)
    print(f"{len(done)} rounds ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), seed {seed}")
    print(f"{acknowledged} rows acknowledged, {found['lost']} lost, {found['two_primaries']} by a second primary")
    print(f"without a write: {found['rto_s']['min']} / {found['rto_s']['median']} / {found['rto_s']['max']} s")
    return 0 if found["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
