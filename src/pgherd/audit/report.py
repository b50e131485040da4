"""An audit's report as data: what ``--json`` prints and what is signed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .. import __version__
from ..model.topology import Topology
from .finding import Outcome, Severity
from .pinned import Pinned

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, at which generation of the herd, beginning ``at`` (ISO 8601, UTC)."""

    at: str
    seconds: float
    topology: Topology
    pinned: tuple[Pinned, ...]
    outcome: Outcome

    @property
    def clean(self) -> bool:
        """No violation and no risk."""
        return not any(f.severity is not Severity.NOTE for f in self.outcome.findings)

    @property
    def complete(self) -> bool:
        """Every node and every database was seen."""
        return not any(n.whole for n in self.outcome.not_looked)

    @property
    def violated(self) -> bool:
        """Whether rows or values are outside, or on their way."""
        return any(f.severity is Severity.VIOLATION for f in self.outcome.findings)

    def as_json(self) -> dict[str, Any]:
        """The document; the keys that design.md names stay."""
        topology = self.topology
        return {
            "format": FORMAT,
            "pgherd": __version__,
            "at": self.at,
            "seconds": self.seconds,
            "generation": topology.generation,
            "engine": topology.engine.value,
            "clean": self.clean,
            "complete": self.complete,
            "violations": sum(f.severity is Severity.VIOLATION for f in self.outcome.findings),
            "risks": sum(f.severity is Severity.RISK for f in self.outcome.findings),
            "groups": [
                {
                    "name": str(g.name),
                    "nodes": [{"name": str(n.name), "region": n.label.region, "place": str(n.label)} for n in g.nodes],
                    "pinned": sorted({str(p.table.name) for p in self.pinned if p.shard.home == g.name}),
                }
                for g in topology.groups
            ],
            "pinned": [
                {
                    "table": str(p.table.name),
                    "shard": str(p.shard.name),
                    "home": str(p.shard.home),
                    "tablespace": p.space.name,
                    "regions": list(p.regions),
                }
                for p in self.pinned
            ],
            "findings": [asdict(f) for f in self.outcome.findings],
            "looked_at": [asdict(x) for x in self.outcome.looked],
            "could_not_look_at": [asdict(x) for x in self.outcome.not_looked],
        }
