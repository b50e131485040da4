"""All faults by name."""

from __future__ import annotations

import random

from ..errors import BadInput
from .faults import (
    DiskFull,
    Fault,
    Freeze,
    KillHost,
    KillNode,
    KillServer,
    LoseAllEtcd,
    LoseEtcd,
    LoseRegion,
    LoseZone,
    SecondFailure,
    Switchover,
)
from .ground import Ground
from .partition import Partition

_ALL: tuple[type[Fault], ...] = (
    KillServer,
    KillNode,
    KillHost,
    Freeze,
    Partition,
    LoseZone,
    LoseRegion,
    LoseEtcd,
    LoseAllEtcd,
    DiskFull,
    Switchover,
    SecondFailure,
)
FAULTS = {f.name: f for f in _ALL}


def fault_of(name: str, ground: Ground, chance: random.Random) -> Fault:
    """The fault of that name. Raises BadInput."""
    if name not in FAULTS:
        raise BadInput(f"there is no drill {name!r}", hint="drills: " + ", ".join(FAULTS))
    return FAULTS[name](ground, chance)
