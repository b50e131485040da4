"""What a watcher decides, for every combination of what it can see."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from pgherd.availability.decide import (
    BROKEN_S,
    FROZEN_S,
    GONE_PROBES,
    GONE_S,
    NOBODY_S,
    SILENT_S,
    SUCCESSOR_S,
    Broken,
    Fenced,
    Life,
    OwnAction,
    OwnNode,
    Peer,
    PeerAction,
    majority,
    may_be_copied_anew,
    may_return,
    on_own,
    on_peer,
)

OWN = [
    OwnNode(patroni, server, was_up, clean, led, leads, stopped_s, silent_s, strange)
    for patroni, server, was_up, clean, led, leads, stopped_s, silent_s, strange in product(
        Life,
        Life,
        (False, True),
        (False, True),
        (False, True),
        (None, False, True),
        (0.0, FROZEN_S / 2, FROZEN_S),
        (0.0, SILENT_S),
        (False, True),
    )
]
PEERS = [
    Peer(strict, heirs, silent_s, probes, voters, votes, voted, just_dropped)
    for strict, heirs, silent_s, probes, voters, votes, voted, just_dropped in product(
        (False, True),
        range(3),
        (0.0, GONE_S - 0.01, GONE_S, 100.0),
        (0, GONE_PROBES - 1, GONE_PROBES),
        range(6),
        range(7),
        (False, True),
        (False, True),
    )
]


FENCED = [
    Fenced(led, heirs, known, followed, rewindable, since_s)
    for led, heirs, known, followed, rewindable, since_s in product(
        (False, True), range(3), (False, True), (False, True), (False, True), (0.0, NOBODY_S, SUCCESSOR_S)
    )
]


def test_only_what_can_never_start_and_another_holds_is_removed() -> None:
    for times in product((0.0, BROKEN_S), repeat=2):
        for runs, followed, rewindable, heir in product((False, True), repeat=4):
            node = Broken(*times, runs, followed, rewindable, heir)
            useless = times[1] == BROKEN_S or (times[0] == BROKEN_S and not runs)
            allowed = useless and followed and rewindable and not heir
            assert may_be_copied_anew(node) is allowed, node


def test_a_living_node_that_answers_is_left_alone() -> None:
    for node in OWN:
        if (node.patroni, node.server) == (Life.RUNNING, Life.RUNNING) and node.silent_s < SILENT_S:
            assert on_own(node) is OwnAction.NOTHING, node


def test_a_node_that_has_nothing_running_is_fenced_before_it_starts_again() -> None:
    """Its leader key may still name it; it must not come back as primary past a standby that could take over."""
    for node in OWN:
        if (node.patroni, node.server) == (Life.GONE, Life.GONE):
            assert on_own(node) is OwnAction.FENCE, node


def test_patroni_alone_starts_again_beside_a_server_that_answers_and_that_it_will_know() -> None:
    for node in OWN:
        if (node.patroni, node.server) == (Life.GONE, Life.RUNNING) and node.silent_s < SILENT_S:
            assert on_own(node) is (OwnAction.FENCE if node.strange else OwnAction.START), node


def test_a_primary_that_crashed_is_fenced_and_one_that_was_shut_down_is_not() -> None:
    for node in OWN:
        if (node.patroni, node.server) == (Life.RUNNING, Life.GONE):
            crashed_primary = node.was_up and not node.clean and (node.leads is True or node.led)
            cut_off = node.was_up and node.clean and node.led and node.leads is None
            assert (on_own(node) is OwnAction.FENCE) == (crashed_primary or cut_off), node
            assert on_own(node) is not OwnAction.START, node


def test_a_demoted_primary_never_starts_before_it_has_been_rewound() -> None:
    """What it holds beyond its successor was never acknowledged, and must not be read."""
    for node in OWN:
        if (node.patroni, node.server, node.was_up, node.led) == (Life.RUNNING, Life.GONE, True, True):
            handed_over = node.clean and node.leads is not None
            assert (on_own(node) is OwnAction.FENCE) == (not handed_over), node


def test_a_standby_that_ended_is_left_to_patroni() -> None:
    for node in OWN:
        if (node.patroni, node.server, node.led) == (Life.RUNNING, Life.GONE, False) and not node.leads:
            assert on_own(node) is OwnAction.NOTHING, node


def test_a_stopped_process_is_given_a_moment_and_no_more() -> None:
    for node in OWN:
        if Life.STOPPED in (node.patroni, node.server):
            expected = OwnAction.FENCE if node.stopped_s >= FROZEN_S else OwnAction.NOTHING
            assert on_own(node) is expected, node


def test_a_fenced_primary_waits_for_a_successor_that_it_can_be_rewound_by() -> None:
    for node in FENCED:
        if node.led and node.known and node.followed:
            assert may_return(node) == (node.rewindable or node.since_s >= SUCCESSOR_S), node


def test_a_fenced_primary_that_nobody_can_follow_comes_back_at_once() -> None:
    for node in FENCED:
        if node.led and node.known and not node.followed:
            assert may_return(node) == (node.heirs < 1 or node.since_s >= NOBODY_S), node


def test_a_fenced_primary_does_not_start_while_etcd_says_nothing_and_a_standby_always_does() -> None:
    for node in FENCED:
        if not node.led:
            assert may_return(node), node
        elif not node.known:
            assert not may_return(node), node


def test_a_key_is_dropped_for_a_machine_only_by_a_majority_that_has_heard_nothing_for_long_enough() -> None:
    dropped = 0
    for peer in PEERS:
        if on_peer(peer) is PeerAction.DROP:
            dropped += 1
            assert peer.strict, "an isolated primary could acknowledge writes"
            assert peer.heirs >= 1, "nobody holds what it has acknowledged"
            assert peer.silent_s >= GONE_S, "it was not silent for long enough"
            assert peer.probes >= GONE_PROBES, "we have not asked often enough"
            assert peer.voted, "we are not one of those who agree"
            assert 2 * peer.votes > peer.voters >= 1, "no majority"
            assert not peer.just_dropped, "it lives: it took the key again"
    assert dropped > 0


def test_nobody_votes_where_the_key_must_not_be_dropped() -> None:
    for peer in PEERS:
        action = on_peer(peer)
        if not peer.strict or peer.heirs < 1 or peer.probes == 0:
            assert action is (PeerAction.WITHDRAW if peer.voted else PeerAction.NOTHING), peer
        if action is PeerAction.VOTE:
            assert peer.silent_s >= GONE_S, peer
            assert peer.probes >= GONE_PROBES, peer
            assert not peer.voted, peer


def test_less_evidence_never_makes_a_watcher_bolder() -> None:
    """Taking any one reason away from a decision to drop leaves the key alone."""
    weaker = ("strict", False), ("heirs", 0), ("silent_s", 0.0), ("probes", 0), ("votes", 0), ("voted", False)
    for peer in PEERS:
        if on_peer(peer) is PeerAction.DROP:
            for name, value in weaker:
                assert on_peer(replace(peer, **{name: value})) is not PeerAction.DROP, (peer, name)


def test_two_majorities_share_a_voter() -> None:
    for voters in range(1, 20):
        assert 2 * majority(voters) > voters
