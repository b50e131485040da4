"""Which servers a new herd gets: names, places and ports. Nothing is started here."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path

from .. import herdfile
from ..errors import BadInput, LocalServerError
from ..herdfile import EtcdMember, HerdFile, HerdNode, TwoNode
from ..model.placement import Label
from ..model.tls import SslMode, Tls
from ..model.topology import EngineName
from .certificates import CA_CERT
from .server import HOST, port_is_free

USER = "herd"
DATABASE = "herd"
PASSFILE = "pgpass"
NODES = "nodes"
ARCHIVING = "archiving"
"""What backup tools need here: settings, with credentials of stores, and what a restore has fetched."""
DEFAULT_REGIONS = ("us-east", "us-central", "us-west")
FIRST_PORT = 5433
LAST_PORT = 32767
"""Above, the system hands out ports to outgoing connections."""
ETCD_MEMBERS = 3
"""How many members etcd gets: it lives while two of three do."""
MOST_REPLICAS = 7
_ZONES = "abcdefghijklmnopqrstuvwxyz"
_DIRECTORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\Z")

Groups = Mapping[str, Sequence[Label]]
"""The places of each group's nodes, the preferred primary's first."""


def groups_of(labels: Sequence[Label], replicas: int = 1) -> dict[str, list[Label]]:
    """A group for each place, of ``replicas`` nodes in zones of their own of the same region."""
    if not 1 <= replicas <= MOST_REPLICAS:
        raise BadInput(f"a group of {replicas} nodes can't be made", hint=f"--replicas is 1 to {MOST_REPLICAS}")
    names = herdfile.names_for([label.region for label in labels])
    return {name: _zones(label, replicas) for name, label in zip(names, labels, strict=True)}


def _zones(first: Label, count: int) -> list[Label]:
    others = (Label(first.cloud, first.region, z) for z in _ZONES if z != first.zone)
    return [first, *(next(others) for _ in range(count - 1))]


def node_names(groups: Groups, taken: Iterable[str] = ()) -> list[str]:
    """A node's name is its group's; where a group has several, with the zone, or the region where those differ."""
    wanted = []
    for group, labels in groups.items():
        regions = {label.region for label in labels}
        for label in labels:
            tail = f"-{label.region if len(regions) > 1 else label.zone}" if len(labels) > 1 else ""
            wanted.append(group + tail)
    return herdfile.names_for(wanted, taken)


def new_herd(home: Path, engine: EngineName, groups: Groups, two_node: TwoNode | None, *, tls: bool = True) -> HerdFile:
    """Decide names and ports of a herd that is to be. Raises BadInput for what can't be made."""
    if not groups or (engine is EngineName.SINGLE and [len(g) for g in groups.values()] != [1]):
        raise BadInput(
            f"engine {engine} does not make {sum(map(len, groups.values()))} servers",
            hint="name at least one region; `single` has one server",
        )
    check_two_node(groups, two_node)
    labels = [label for group in groups.values() for label in group]
    replicated = len(labels) > len(groups)
    nodes = _nodes(home, groups, replicated, ())
    etcd = _members(labels, tls) if replicated else ()
    reach = with_ca(home) if tls else Tls(SslMode.DISABLE)
    return HerdFile(engine, DATABASE, USER, str(home / PASSFILE), nodes, etcd=etcd, two_node=two_node, tls=reach)


def with_ca(home: Path) -> Tls:
    """How clients reach servers that have certificates of the home's CA."""
    return Tls(SslMode.VERIFY_FULL, str(home / CA_CERT))


def grown(home: Path, herd: HerdFile, label: Label) -> HerdFile:
    """The herd with a group more at ``label``, of as many nodes as its first local group."""
    first = next(n.group for n in herd.nodes if n.data_directory is not None)
    replicas = sum(n.group == first for n in herd.nodes)
    taken = {n.group for n in herd.nodes} | {n.name for n in herd.nodes}
    name = herdfile.names_for([label.region], taken)[0]
    return replace(
        herd, nodes=(*herd.nodes, *_nodes(home, {name: _zones(label, replicas)}, herd.replicated, herd.nodes))
    )


def enlarged(home: Path, herd: HerdFile, replicas: int, two_node: TwoNode | None) -> HerdFile:
    """The herd with ``replicas`` nodes in each group: those that it has, and standbys in further zones of the region.

    Raises BadInput for groups that are larger, or are not in one region, and for servers that pgherd does not run.
    """
    if herd.engine is EngineName.SINGLE:
        raise BadInput("a single server takes no others", hint="make a fleet (pgherd up --regions …) and load it")
    if not 1 <= replicas <= MOST_REPLICAS:
        raise BadInput(f"a group of {replicas} nodes can't be made", hint=f"--replicas is 1 to {MOST_REPLICAS}")
    members: dict[str, list[HerdNode]] = {}
    for n in herd.nodes:
        members.setdefault(n.group, []).append(n)
    places = {}
    for group, nodes in members.items():
        here = [n.label for n in nodes]
        if any(n.data_directory is None for n in nodes):
            raise BadInput(
                f"group {group} is an attached server: pgherd can't give it standbys",
                hint="run them yourself and name them in herd.toml, or take it out (pgherd node remove)",
            )
        if any(n.leaving for n in nodes):
            raise BadInput(f"group {group} is on its way out of the herd", hint="pgherd up finishes that first")
        if len(here) > replicas:
            raise BadInput(f"group {group} has {len(here)} nodes, and keeps them", hint="leave --replicas out")
        if len({(label.cloud, label.region) for label in here}) > 1:
            raise BadInput(
                f"group {group} spans regions: its nodes are where --group said", hint="leave --replicas out"
            )
        more = (label for label in _zones(here[0], MOST_REPLICAS * 2) if label not in here)
        places[group] = [*here, *(next(more) for _ in range(replicas - len(here)))]
    check_two_node(places, two_node)
    made = iter(_nodes(home, places, True, herd.nodes))
    found = []
    for group, labels in places.items():
        for known, new in zip_longest(members[group], islice(made, len(labels))):
            found.append(new if known is None else replace(known, rest_port=known.rest_port or new.rest_port))
    etcd = herd.etcd or _members([n.label for n in found], herd.has_ca)
    return replace(herd, nodes=tuple(found), etcd=etcd, two_node=two_node)


def ports_of(nodes: Iterable[HerdNode]) -> set[int]:
    """All ports of these nodes."""
    return {port for n in nodes for port in (n.port, n.rest_port) if port is not None}


def _nodes(home: Path, groups: Groups, replicated: bool, others: Sequence[HerdNode]) -> tuple[HerdNode, ...]:
    places = [(group, label) for group, labels in groups.items() for label in labels]
    names = node_names(groups, [n.name for n in others])
    for name in (*names, *groups):
        check_name(name)
    for part in {p for _, label in places for p in (label.cloud, label.region, label.zone)} if replicated else ():
        check_name(part)
    ports = iter(node_ports(len(places), replicated, ports_of(others)))
    rest_ports = iter(free_rest_ports(len(places) if replicated else 0, ports_of(others)))
    return tuple(
        HerdNode(
            name,
            group,
            HOST,
            next(ports),
            label,
            str(home / NODES / name / "data"),
            next(rest_ports) if replicated else None,
        )
        for name, (group, label) in zip(names, places, strict=True)
    )


def check_two_node(groups: Groups, two_node: TwoNode | None) -> None:
    """A group of two can't keep both promises; whoever makes one says which it gives up."""
    small = next((name for name, labels in groups.items() if len(labels) == 2), None)
    if small is not None and two_node is None:
        raise BadInput(
            f"group {small} has two nodes: when one is lost, writes stop, or what is written meanwhile is at risk",
            hint="say --two-node durable (writes stop until it is back) or --two-node available (writes go on, on one"
            " node only); three nodes (--replicas 3) keep both promises",
        )
    if small is None and two_node is not None:
        raise BadInput("--two-node is for groups of two nodes", hint="leave it out")


def check_name(name: str) -> None:
    """Raise BadInput for a region or group that can't name a directory."""
    if not _DIRECTORY.match(name):
        raise BadInput(f"{name!r} cannot name a directory", hint="letters, digits, - and _ (at most 63)")


def first_port() -> int:
    """The lowest port for servers without standbys: ``PGHERD_FIRST_PORT``, else 5433. Raises BadInput if it is none."""
    chosen = os.environ.get("PGHERD_FIRST_PORT", str(FIRST_PORT))
    if not chosen.isdecimal() or not 1024 <= int(chosen) <= LAST_PORT:
        raise BadInput(
            f"PGHERD_FIRST_PORT is {chosen!r}", hint=f"give a port from 1024 to {LAST_PORT}, or leave it unset"
        )
    return int(chosen)


def free_ports(count: int, besides: Iterable[int] = (), first: int | None = None) -> list[int]:
    """The lowest ports from ``first`` (or :func:`first_port`) on that nothing listens on."""
    taken = set(besides)
    found: list[int] = []
    for port in range(first or first_port(), LAST_PORT + 1):
        if len(found) == count:
            break
        if port not in taken and port_is_free(port):
            found.append(port)
    return found


def node_ports(count: int, replicated: bool, besides: Iterable[int] = ()) -> list[int]:
    """Ports for servers: low ones, in a row.

    Groups with replicas take some seconds from the choice to the first use, and must not move then: their row begins
    somewhere, so that herds that start at the same time hardly choose the same.
    """
    return free_ports(count, besides, 5600 + 100 * secrets.randbelow(140) if replicated else None)


def free_rest_ports(count: int, besides: Iterable[int] = ()) -> list[int]:
    """Ports for Patroni's REST API, anywhere: herds that start at the same time hardly choose the same."""
    taken, found = set(besides), list[int]()
    while len(found) < count:
        port = 20000 + secrets.randbelow(12768)
        if port not in taken and port not in found and port_is_free(port):
            found.append(port)
    return found


def _members(labels: Sequence[Label], tls: bool) -> tuple[EtcdMember, ...]:
    """Three machines for etcd, in regions of their own as far as there are any; a witness where there are too few."""
    machines = list(dict.fromkeys(labels))
    first = [next(m for m in machines if m.region == r) for r in dict.fromkeys(m.region for m in machines)]
    chosen = [*first, *(m for m in machines if m not in first)][:ETCD_MEMBERS]
    free = (Label(chosen[0].cloud, chosen[0].region, z) for z in _ZONES)
    chosen += [label for label in free if label not in chosen][: ETCD_MEMBERS - len(chosen)]
    network = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(250)}"  # addresses and ports are kept for ever
    found = []
    for number, machine in enumerate(chosen, 1):
        host = f"{network}.{number}"
        client = free_etcd_port(host)
        found.append(EtcdMember(str(machine), host, client, free_etcd_port(host, (client,)), tls))
    return tuple(found)


def free_etcd_port(host: str, besides: Iterable[int] = ()) -> int:
    """The lowest port of etcd's that is free on ``host``. Raises LocalServerError."""
    for port in range(2379, 2479):
        if port not in besides and port_is_free(port, host):
            return port
    raise LocalServerError(f"no port is free on {host}", hint="etcd needs two of the ports 2379 to 2478 there")
