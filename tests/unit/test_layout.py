"""Which servers a new herd gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgherd import herdfile
from pgherd.errors import BadInput
from pgherd.herdfile import TwoNode
from pgherd.local.layout import ETCD_MEMBERS, free_ports, groups_of, grown, new_herd, node_names
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName

HOME = Path("/nowhere")


def places(*texts: str) -> list[Label]:
    return [Label.parse(t) for t in texts]


def test_replicas_are_in_zones_of_their_own() -> None:
    groups = groups_of(places("us-east", "eu.b"), 3)
    assert {g: [str(n) for n in nodes] for g, nodes in groups.items()} == {
        "us-east": ["local.us-east.a", "local.us-east.b", "local.us-east.c"],
        "eu": ["local.eu.b", "local.eu.a", "local.eu.c"],
    }
    assert node_names(groups) == ["us-east-a", "us-east-b", "us-east-c", "eu-b", "eu-a", "eu-c"]


def test_a_group_may_span_regions() -> None:
    groups = {"main": places("us-east", "us-west", "us-west.b")}
    assert node_names(groups) == ["main-us-east", "main-us-west", "main-us-west-2"]


def test_a_plain_herd_has_no_etcd_and_keeps_its_names() -> None:
    herd = new_herd(HOME, EngineName.FLEET, groups_of(places("us-east", "us-west")), None)
    assert [n.name for n in herd.nodes] == ["us-east", "us-west"]
    assert (herd.etcd, herd.replicated) == ((), False)
    assert all(n.rest_port is None for n in herd.nodes)


@pytest.mark.parametrize(
    ("groups", "replicas", "machines"),
    [
        (("us-east",), 3, ["local.us-east.a", "local.us-east.b", "local.us-east.c"]),
        (("us-east", "us-west", "eu"), 3, ["local.us-east.a", "local.us-west.a", "local.eu.a"]),
        (("us-east",), 2, ["local.us-east.a", "local.us-east.b", "local.us-east.c"]),
    ],
)
def test_etcd_has_three_members_in_as_many_regions_as_there_are(
    groups: tuple[str, ...], replicas: int, machines: list[str]
) -> None:
    two_node = TwoNode.DURABLE if replicas == 2 else None
    herd = new_herd(HOME, EngineName.FLEET, groups_of(places(*groups), replicas), two_node)
    assert [m.name for m in herd.etcd] == machines
    assert len({m.host for m in herd.etcd}) == ETCD_MEMBERS
    assert all(m.host.startswith("127.") for m in herd.etcd), "nothing listens but on loopback"


def test_ports_are_all_different() -> None:
    herd = new_herd(HOME, EngineName.FLEET, groups_of(places("a", "b"), 3), None)
    ports = [p for n in herd.nodes for p in (n.port, n.rest_port)]
    assert len(set(ports)) == 12


def test_a_group_that_joins_is_as_large_as_the_others() -> None:
    herd = new_herd(HOME, EngineName.FLEET, groups_of(places("a"), 3), None)
    more = grown(HOME, herd, Label.parse("a"))
    assert [n.name for n in more.nodes[3:]] == ["a-2-a", "a-2-b", "a-2-c"]
    assert {n.group for n in more.nodes} == {"a", "a-2"}


def test_two_nodes_say_which_promise_they_give_up() -> None:
    with pytest.raises(BadInput, match="has two nodes") as caught:
        new_herd(HOME, EngineName.FLEET, groups_of(places("a"), 2), None)
    assert "--two-node durable" in caught.value.hint
    with pytest.raises(BadInput, match="groups of two"):
        new_herd(HOME, EngineName.FLEET, groups_of(places("a"), 3), TwoNode.DURABLE)
    with pytest.raises(BadInput, match="0 nodes"):
        groups_of(places("a"), 0)


def test_a_replicated_herd_survives_being_written_down(tmp_path: Path) -> None:
    herd = new_herd(tmp_path, EngineName.FLEET, groups_of(places("a"), 2), TwoNode.AVAILABLE)
    herd.write(tmp_path)
    assert herdfile.read(tmp_path) == herd


def test_a_driver_is_sent_to_the_node_that_takes_writes() -> None:
    herd = new_herd(HOME, EngineName.FLEET, groups_of(places("a"), 3), None)
    assert "target_session_attrs=read-write" in herd.dsn(HOME)
    plain = new_herd(HOME, EngineName.FLEET, groups_of(places("a", "b")), None)
    assert "target_session_attrs" not in plain.dsn(HOME)


def test_ports_begin_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHERD_FIRST_PORT", "21000")
    found = free_ports(3, besides=[21001])
    assert len(set(found)) == 3
    assert min(found) >= 21000
    assert 21001 not in found


@pytest.mark.parametrize("chosen", ["", "http", "80", "40000", "-5", "5433.0"])
def test_a_first_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("PGHERD_FIRST_PORT", chosen)
    with pytest.raises(BadInput, match="PGHERD_FIRST_PORT"):
        free_ports(1)
