"""The world as an audit found it: facts of every node and database, and what the herd says should be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..herdfile import HerdFile
from ..model.placement import Label
from ..model.topology import Group, Node, Topology
from .pinned import Pinned

Row = dict[str, Any]


@dataclass(slots=True)
class Facts:
    """Rows by the name of what was asked, and why a question was not answered."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> list[Row]:
        return self.rows.get(name, [])


@dataclass(slots=True)
class Seen:
    """One node. ``databases`` has the databases' facts by name; a standby's are its primary's, and not read again."""

    group: Group
    node: Node
    why_down: str | None = None
    standby: bool = False
    facts: Facts = field(default_factory=Facts)
    databases: dict[str, Facts] = field(default_factory=dict)
    data_directory: Path | None = None
    """of a server that pgherd starts, on this machine"""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def region(self) -> str:
        """The node's region."""
        return self.node.label.region

    def setting(self, name: str) -> str | None:
        """A setting's value; None if it is not there, or not to be seen."""
        return next((r["setting"] for r in self.facts["settings"] if r["name"] == name), None)


@dataclass(frozen=True, slots=True)
class Match:
    """Pinned values that were found in a place: how many of how many that were looked for."""

    pinned: Pinned
    column: str
    node: str
    region: str
    database: str
    place: str
    """table.column, or what else holds them"""
    kind: str
    found: int
    proof: bool
    """long enough, or enough of them, not to be chance"""
    sampled: int


@dataclass(frozen=True, slots=True)
class Strays:
    """Rows of a shard's own table that its bound does not allow."""

    pinned: Pinned
    rows: int


@dataclass(slots=True)
class World:
    """All of it. ``addresses`` maps host names that were met to the addresses behind them."""

    topology: Topology
    pinned: tuple[Pinned, ...]
    nodes: list[Seen]
    dbname: str
    file: HerdFile | None = None
    home: Path | None = None
    addresses: dict[str, frozenset[str]] = field(default_factory=dict)
    matches: list[Match] = field(default_factory=list)
    strays: list[Strays] = field(default_factory=list)
    global_model: str | None = None
    """the embedding model that the environment names for all tables"""

    def seen(self, name: str) -> Seen:
        """The node of that name."""
        return next(s for s in self.nodes if s.name == name)

    def up(self) -> Iterator[Seen]:
        """The nodes that answered."""
        return (s for s in self.nodes if s.why_down is None)

    def primaries(self) -> Iterator[Seen]:
        """The nodes whose databases were read."""
        return (s for s in self.up() if s.databases)

    def at(self, group: str) -> tuple[Pinned, ...]:
        """What is pinned and at home in a group."""
        return tuple(p for p in self.pinned if p.shard.home == group)

    def kept_from(self, label: Label) -> tuple[Pinned, ...]:
        """The pinned shards that may not be at ``label``."""
        return tuple(p for p in self.pinned if not p.allows(label))

    def home_node(self, pinned: Pinned) -> str:
        """The name of the node where a shard is: its group's primary as far as that is known."""
        group = self.topology.group(pinned.shard.home)
        return next((s.name for s in self.nodes if s.group == group and s.databases), str(group.primary.name))

    def herd(self, seen: Seen) -> Facts:
        """The facts of the herd's own database on a node."""
        return seen.databases.get(self.dbname, Facts())

    def resolve(self, seen: Seen, hosts: str | None, ports: str | None) -> tuple[Node, ...] | None:
        """The herd's nodes that a connection string on ``seen`` leads to; None: a place that the herd does not know."""
        listed = (hosts or "").split(",")
        numbers = ((ports or "5432").split(",") * len(listed))[: len(listed)]
        found = []
        for host, port in zip(listed, numbers, strict=True):
            node = next((n for n in self.topology.nodes if self._is(n, seen.node, host.strip(), port.strip())), None)
            if node is None:
                return None
            found.append(node)
        return tuple(dict.fromkeys(found))

    def _is(self, node: Node, asked_on: Node, host: str, port: str) -> bool:
        if str(node.port) != (port or "5432"):
            return False
        if not host or host.startswith(("/", "@")):  # a socket of the same machine
            host = asked_on.host
        return bool(self._behind(host) & self._behind(node.host))

    def _behind(self, host: str) -> frozenset[str]:
        return self.addresses.get(host, frozenset()) | {host}


def tables_of(pinned: tuple[Pinned, ...]) -> str:
    """The tables of some shards, for people."""
    return ", ".join(dict.fromkeys(str(p.table.name) for p in pinned))


def regions_of(pinned: tuple[Pinned, ...]) -> str:
    """The regions that some shards may be in, for people."""
    return ", ".join(dict.fromkeys(r for p in pinned for r in p.regions))
