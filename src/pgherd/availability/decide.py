"""What a watcher does about what it sees. Pure: no clock, no input or output; durations come measured, by clocks that
only go forward.

Guards invariants 1 and 2: a leader key is dropped only when its owner can't write any more (it has been fenced), or
when whatever it might still write can't be acknowledged (strict synchronous commit, and a majority of the other
machines has heard nothing of it for long enough). The argument is in docs/availability.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

FROZEN_S = 1.0
"""How long a stopped process is given to go on."""
SILENT_S = 6.0
"""How long a server of our own that runs may leave a question unanswered: a busy machine is no dead one."""
GONE_S = 1.5
"""How long a majority must have heard nothing of a primary on another machine."""
GONE_PROBES = 3
"""How many questions in a row it must have left unanswered: a watcher that was itself frozen has asked none."""
BROKEN_S = 10.0
"""How long a node must have had no control file, or been told that it is too far behind."""
NOBODY_S = 3.0
"""How long a primary that was fenced waits for one of its heirs to take over."""
SUCCESSOR_S = 15.0
"""How long it waits for another that has taken over to say that it is a primary, and so can be copied from."""


class Life(Enum):
    """A process as the operating system sees it."""

    RUNNING = auto()
    STOPPED = auto()
    GONE = auto()


class OwnAction(Enum):
    """What to do about a node of our own."""

    NOTHING = auto()
    START = auto()
    """start Patroni; a server that runs goes on"""
    FENCE = auto()
    """make sure nothing of the node runs, drop the leader key if it is the node's, start Patroni"""


class PeerAction(Enum):
    """What to do about a primary on another machine."""

    NOTHING = auto()
    WITHDRAW = auto()
    """take our vote back: it has answered, or nobody may act"""
    VOTE = auto()
    """say that it is gone"""
    DROP = auto()
    """drop its leader key, provided the votes still stand"""


@dataclass(frozen=True, slots=True)
class OwnNode:
    """A node of our own. ``was_up``: its server has run since its Patroni was started.

    ``clean``: its server was shut down; ``led``: it ended as a primary. ``leads``: the leader key names it; None when
    etcd doesn't say. ``stopped_s``: how long one of its processes has been stopped; ``silent_s``: how long its server,
    after having answered, has not. ``strange``: a Patroni that is started now takes its server for another program.
    """

    patroni: Life
    server: Life
    was_up: bool
    clean: bool
    led: bool
    leads: bool | None
    stopped_s: float
    silent_s: float
    strange: bool = False


@dataclass(frozen=True, slots=True)
class Fenced:
    """A node of our own that was fenced ``since_s`` ago, and has not been started again.

    ``led``: it ended as a primary; ``heirs``: who could take over then; ``known``: whether etcd says anything;
    ``followed``: another was elected since; ``rewindable``: and somebody is a running primary.
    """

    led: bool
    heirs: int
    known: bool
    followed: bool
    rewindable: bool
    since_s: float


@dataclass(frozen=True, slots=True)
class Broken:
    """A node of our own whose data are of no use.

    ``since_s``: for how long it has had data, but no control file, which no server starts without, while nothing made
    one; ``runs``: its server does, all the same. ``behind_s``: for how long the primary has told it that the WAL it
    needs is gone. ``followed``: another has the leader key; ``rewindable``: and is a running primary; ``heir``: the
    sync key names this node.
    """

    since_s: float
    behind_s: float
    runs: bool
    followed: bool
    rewindable: bool
    heir: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """A group's primary on another machine.

    ``strict``: its group acknowledges nothing that no standby holds. ``heirs``: standbys that the sync key names.
    ``silent_s`` and ``probes``: how long, and how many questions in a row, neither its REST API nor its server has
    answered. ``voters``: the group's machines but its own; ``votes``: how many of them, ours included, say it is gone.
    ``just_dropped``: its key was dropped a moment ago, and it took it again: it lives, only not for us.
    """

    strict: bool
    heirs: int
    silent_s: float
    probes: int
    voters: int
    votes: int
    voted: bool
    just_dropped: bool


def majority(voters: int) -> int:
    """How many of ``voters`` must agree."""
    return voters // 2 + 1


def on_own(node: OwnNode) -> OwnAction:
    """What to do about a node of our own."""
    if Life.STOPPED in (node.patroni, node.server):
        return OwnAction.FENCE if node.stopped_s >= FROZEN_S else OwnAction.NOTHING
    if node.server is Life.RUNNING:
        if node.silent_s >= SILENT_S:
            return OwnAction.FENCE
        if node.patroni is not Life.GONE:
            return OwnAction.NOTHING
        return OwnAction.FENCE if node.strange else OwnAction.START
    if node.patroni is Life.GONE:
        return OwnAction.FENCE
    if not node.was_up:
        return OwnAction.NOTHING  # Patroni is about to start it
    # A standby is started again by Patroni. A primary must not come back as one before the others had their chance;
    # nor, demoted, as a standby that shows what it has beyond its successor: it waits until it can be rewound.
    if node.clean:
        return OwnAction.FENCE if node.led and node.leads is None else OwnAction.NOTHING
    return OwnAction.FENCE if node.led or node.leads else OwnAction.NOTHING


def may_return(node: Fenced) -> bool:
    """Whether a node that was fenced may be started.

    A primary holds what nobody was told is there. Patroni rewinds it before it starts, and so before anyone reads that,
    but only if a successor says by then that it is a primary. Without etcd, Patroni can't start anything.
    """
    if not node.led:
        return True
    if not node.known:
        return False
    if node.followed:
        return node.rewindable or node.since_s >= SUCCESSOR_S
    return node.heirs < 1 or node.since_s >= NOBODY_S


def may_be_copied_anew(node: Broken) -> bool:
    """Whether what is left of a node may be removed: it is of no use, and another holds all that was acknowledged."""
    useless = (node.since_s >= BROKEN_S and not node.runs) or node.behind_s >= BROKEN_S
    return useless and node.followed and node.rewindable and not node.heir


def on_peer(peer: Peer) -> PeerAction:
    """What to do about a primary on another machine."""
    if not peer.strict or peer.heirs < 1 or peer.probes == 0:
        return PeerAction.WITHDRAW if peer.voted else PeerAction.NOTHING
    if peer.silent_s < GONE_S or peer.probes < GONE_PROBES or peer.just_dropped:
        return PeerAction.NOTHING
    if peer.voted and peer.voters >= 1 and peer.votes >= majority(peer.voters):
        return PeerAction.DROP
    return PeerAction.NOTHING if peer.voted else PeerAction.VOTE
