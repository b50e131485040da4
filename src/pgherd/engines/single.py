"""One PostgreSQL server, any from 16 on with pgvector; needs no superuser. Where most users start."""

from __future__ import annotations

from dataclasses import replace

from ..model.topology import EngineName, Group, Topology
from ..planning.finish import search_function_steps
from ..planning.plan import Phase, Plan, Step, Traits
from .servers.engine import ServersEngine
from .servers.scripts import script


class SingleEngine(ServersEngine):
    """Everything in one group: partitioned tables stay partitioned, tablespaces are recorded."""

    name = EngineName.SINGLE
    scripts = ("catalog", "calibration", "reader", "trail", "single", "guard")
    traits = Traits(keys_on_parent=True, enforces_placement=False)

    async def first_plan(self, groups: tuple[Group, ...]) -> Plan:
        """Schema ``pgherd`` and pgvector on a new server; a new address on a known one."""
        known = self.topology
        old_catalog = await self.has_old_catalog()
        if known.generation and known.groups == groups and not old_catalog:
            return Plan(known.generation)
        result = replace(known, generation=known.generation + 1, groups=groups)
        steps: tuple[Step, ...] = ()
        if old_catalog:
            steps = (self.install_catalog((groups[0].name,)), *search_function_steps(result))
        if not known.generation:
            result = Topology(1, self.name, groups)
            only = (groups[0].name,)
            steps = (
                Step("install_extension", "vector", only, script("pgvector")),
                self.install_catalog(only),
            )
        return Plan(known.generation, (Phase((), steps, result),))
