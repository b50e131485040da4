"""A herd as the reader of one region sees it, logged in as it: the region's groups, its tables, the shards there."""

from __future__ import annotations

from typing import Any

from ..model.topology import EngineName, Group, Reader, Topology
from ..planning.plan import Traits
from ..planning.readers import narrowed, reader_of
from .servers.engine import ServersEngine


class RegionEngine(ServersEngine):
    """Reads only. Nothing is settled, made or followed at its start: a reader has no right to."""

    name = EngineName.FLEET
    scripts = ()
    traits = Traits(keys_on_parent=False, enforces_placement=True)

    def __init__(self, base: dict[str, Any], groups: tuple[Group, ...], region: str) -> None:
        super().__init__(base, groups)
        self._region = region
        self._whole = self._topology

    @property
    def whole(self) -> Topology:
        """The herd's topology, other regions included: names and places, no rows."""
        return self._whole

    @property
    def reader(self) -> Reader:
        """The role this is logged in as; UnknownName if the region has none."""
        return reader_of(self._whole, self._region)

    async def _adopt(self, topology: Topology) -> None:
        self._whole = topology
        await super()._adopt(narrowed(topology, self.reader))
