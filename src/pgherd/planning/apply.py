"""The plan for a schema file: from a topology to one that holds all the file asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

from ..model.names import Name
from ..model.schema import Index, ObjectKind, Schema, SqlObject, Table
from ..model.topology import Topology
from .compile import Compiler
from .ddl import asks_session
from .diff import AddEnumValue, Change, Create, diff, merge
from .finish import finish, table_is_secured
from .placement import check_homes, expand, homes_of
from .plan import Phase, Plan, Traits
from .split import plan_splits, splits_for

UNENFORCED = "one server holds everything: tablespaces are recorded, and will place rows once there are several servers"

ASKING_POLICIES = (
    "{table} has policies that ask for settings of the session, which links do not carry: a role that they hold back is"
    " refused the rows of other groups in SQL, and asks at their homes, as the client does; policies that go by"
    " current_user have no such limit"
)


def plan_apply(topology: Topology, desired: Schema, traits: Traits) -> Plan:
    """The steps that make ``topology`` hold ``desired``; an empty plan when it already does.

    New enum labels come in a phase of their own, since PostgreSQL lets nobody use a label before it is committed. Then
    everything that can be made in one transaction. Indexes on tables that may hold rows follow, because they are built
    concurrently. Shards of tables that are to have more of them are split at last.
    Raises BadSchema, PlacementUnsatisfied or ChangeRefused.
    """
    current = topology.schema
    wanted = replace(
        desired,
        items=tuple(expand(i, current, len(topology.groups)) if isinstance(i, Table) else i for i in desired.items),
    )
    changes = diff(current, wanted)
    if not changes:
        return plan_splits(topology, splits_for(topology, desired), traits)
    merged = merge(current, wanted)
    early = [c for c in changes if isinstance(c, AddEnumValue)]
    late = _indexes_of_old_tables(current, changes)
    main = [c for c in changes if c not in early and not (isinstance(c, Create) and c.item in late)]
    homes = dict(topology.homes)
    placed = merged if traits.enforces_placement else replace(merged, tablespaces=())
    for table in merged.tables:
        homes.update(homes_of(table, placed, topology.groups, homes))
    check_homes(placed, topology.groups, homes)

    phases: list[Phase] = []
    reached = topology
    if early:
        labelled = reduce(Schema.with_item, (c.item for c in early), current)
        target = replace(reached, generation=reached.generation + 1, schema=labelled)
        compiler = Compiler(target, traits, current)
        phases.append(Phase((), tuple(s for c in early for s in compiler.compile(c)), target))
        reached = target
    if main:
        without = replace(merged, items=tuple(i for i in merged.items if i not in late))
        target = replace(reached, generation=reached.generation + 1, schema=without, homes=homes)
        compiler = Compiler(target, traits, reached.schema)
        steps = [*compiler.change_links(reached), *(s for c in main for s in compiler.compile(c))]
        steps += finish(reached, target)
        phases.append(Phase((), tuple(steps), target))
        reached = target
    if late:
        target = replace(reached, generation=reached.generation + 1, schema=merged, homes=homes)
        compiler = Compiler(target, traits, reached.schema)
        builds = tuple(s for i in late for s in compiler.build_index(i))
        commits = (*(s for i in late for s in compiler.adopt_index(i)), *finish(reached, target))
        phases.append(Phase(builds, commits, target))
        reached = target
    phases += plan_splits(reached, splits_for(reached, desired), traits).phases
    notes = () if traits.enforces_placement or not merged.tablespaces else (UNENFORCED,)
    return Plan(topology.generation, tuple(phases), (*notes, *_asking_policies(current, reached)))


def _asking_policies(before: Schema, after: Topology) -> Iterator[str]:
    """What to know of tables with policies that can't be evaluated at their rows' homes for who asks through a link."""
    known = _asking(before)
    asking = _asking(after.schema)
    for table in after.schema.tables if len(after.groups) > 1 else ():
        if table.name in asking - known and table_is_secured(table):
            spaces = (after.schema.tablespace(s.tablespace) if s.tablespace else None for s in after.shards(table))
            if not all(s and s.strict for s in spaces):
                yield ASKING_POLICIES.format(table=table.name)


def _asking(schema: Schema) -> frozenset[Name]:
    """The tables with policies that ask the session."""
    objects = [i for i in schema.items if isinstance(i, SqlObject)]
    made = (o for o in objects if o.kind is ObjectKind.FUNCTION and "IMMUTABLE" not in o.sql)
    functions = frozenset(o.name.partition("(")[0].rpartition(".")[2].strip('"') for o in made)
    policies = (o for o in objects if o.kind is ObjectKind.POLICY and o.table)
    return frozenset(p.table for p in policies if p.table and asks_session(p.sql, functions))


def _indexes_of_old_tables(current: Schema, changes: list[Change]) -> list[Index]:
    created = (c.item for c in changes if isinstance(c, Create))
    return [i for i in created if isinstance(i, Index) and current.table(i.table) is not None]
