"""Where bytes may live: labels of nodes, placement blocks, tablespaces (YugabyteDB's placement policies)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadInput

KNOWN_CLOUDS = frozenset({"local", "aws", "gcp", "azure", "oci", "ibm", "onprem"})
ANY = "*"


@dataclass(frozen=True, order=True, slots=True)
class Label:
    """Where a node is: cloud, region and zone."""

    cloud: str
    region: str
    zone: str

    def __str__(self) -> str:
        return f"{self.cloud}.{self.region}.{self.zone}"

    @classmethod
    def parse(cls, text: str) -> Label:
        """Read ``[cloud.]region[.zone]``; cloud ``local`` and zone ``a`` if left out.

        Two parts are region and zone, unless the first is a cloud's name (``aws.us-east-1``).
        """
        parts = [p.strip() for p in text.split(".")]
        if not all(parts) or len(parts) > 3 or ANY in parts:
            raise BadInput(f"{text!r} is not a place", hint="write region, region.zone or cloud.region.zone")
        if len(parts) == 3:
            return cls(parts[0], parts[1], parts[2])
        if len(parts) == 2:
            return cls(parts[0], parts[1], "a") if parts[0] in KNOWN_CLOUDS else cls("local", parts[0], parts[1])
        return cls("local", parts[0], "a")


@dataclass(frozen=True, slots=True)
class PlacementBlock:
    """One entry of ``placement_blocks``: at least ``min_num_replicas`` replicas on nodes whose labels match."""

    cloud: str
    region: str
    zone: str
    min_num_replicas: int
    leader_preference: int | None = None

    def matches(self, label: Label) -> bool:
        """Whether a node with this label may hold a replica of the block."""
        return self.cloud == label.cloud and self.region in (ANY, label.region) and self.zone in (ANY, label.zone)

    def __str__(self) -> str:
        return f"{self.cloud}.{self.region}.{self.zone}"


@dataclass(frozen=True, slots=True)
class ReadReplicas:
    """``read_replica_placement``: asynchronous copies that never vote nor lead."""

    num_replicas: int
    blocks: tuple[PlacementBlock, ...]
    placement_uuid: str | None = None


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A named placement policy; ``blocks`` empty means anywhere.

    ``strict``: its rows are read in its own regions and in those that are ``granted``; no other server leads to them.
    """

    name: str
    num_replicas: int
    blocks: tuple[PlacementBlock, ...] = ()
    read_replicas: ReadReplicas | None = None
    strict: bool = False
    granted: tuple[str, ...] = ()

    @property
    def regions(self) -> frozenset[str] | None:
        """The regions that rows are pinned to; None if they may be in any."""
        named = frozenset(b.region for b in self.blocks)
        return None if not named or ANY in named else named

    def allows(self, label: Label) -> bool:
        """Whether a voting replica may live at ``label``."""
        return not self.blocks or any(b.matches(label) for b in self.blocks)

    def readable_at(self, label: Label) -> bool:
        """Whether a server at ``label`` may lead to the rows, wherever they are."""
        if not self.strict or label.region in self.granted:
            return True
        return any(b.cloud == label.cloud and b.region in (ANY, label.region) for b in self.blocks)
