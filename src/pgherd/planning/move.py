"""Moving shards between groups while they are read and written.

The new home gets a table of its own, filled and kept up by logical replication; then one short two-phase commit swaps
table and foreign partition on every node. Whoever writes to the shard waits for that commit only. A subscription
writes to the publisher's schema and name and refuses a foreign table, so the new home's foreign partition steps aside
first; it stays attached and in use. Other nodes' foreign partitions are swapped before the source is locked: a writer
that comes through one of them holds that and waits for the source, and no detector sees a deadlock over two servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..model.names import Name, quote_ident, quote_literal
from ..model.schema import Partition, Table, leaves
from ..model.topology import GroupId, Topology
from . import ddl
from .apply import finish
from .compile import Compiler, server_name
from .plan import Phase, Plan, Step, Traits
from .rebalance import Move

ASIDE = "pgherd_aside"
"""Schema of what steps aside during a move."""
WAIT = "writers of this shard, for the moment of the commit"


def plan_moves(topology: Topology, moves: tuple[Move, ...], traits: Traits) -> Plan:
    """One phase a move: generation by generation, so that a plan that is stopped has moved what it has moved."""
    phases = []
    reached = topology
    for move in moves:
        homes = {**reached.homes, **{name.sql: move.target for name in move.shards}}
        target = replace(reached, generation=reached.generation + 1, homes=homes)
        mover = _Mover(reached, target, move, Compiler(target, traits, target.schema))
        phases.append(Phase(tuple(mover.builds()), tuple(mover.commits()), target, tuple(mover.afters())))
        reached = target
    return Plan(topology.generation, tuple(phases))


class _Mover:
    def __init__(self, before: Topology, after: Topology, move: Move, compiler: Compiler) -> None:
        self._before, self._after, self._move, self._compiler = before, after, move, compiler
        self._source, self._target = (move.source,), (move.target,)
        self._others = tuple(g.name for g in after.groups if g.name not in (move.source, move.target))
        self._parts = [_find(before, name) for name in move.shards]

    def builds(self) -> Iterator[Step]:
        for table, parent, part in self._parts:
            name = quote_literal(part.name.sql)
            yield self._step("clear_move", part.name, self._target, f"SELECT pgherd.clear_incoming({name})")
            yield self._step("clear_move", part.name, self._source, f"SELECT pgherd.clear_outgoing({name})")
            sql = f"SELECT pgherd.begin_incoming({name}, {quote_literal(parent.sql)})"
            yield self._step("make_table", part.name, self._target, sql)
            for text in self._compiler.leaf_constraints(table, part):
                yield self._step("add_key", part.name, self._target, f"ALTER TABLE {part.name.sql} ADD {text}")
            yield self._step("publish", part.name, self._source, f"SELECT pgherd.begin_outgoing({name})")
            sql = f"SELECT pg_create_logical_replication_slot(pgherd.move_name({name}), 'pgoutput')"
            yield self._step("keep_changes", part.name, self._source, sql)
            link = quote_literal(server_name(self._move.source))
            yield self._step("subscribe", part.name, self._target, f"SELECT pgherd.subscribe({name}, {link})")
            yield self._step("copy_rows", part.name, self._target, f"SELECT pgherd.wait_copied({name})")
            for index in self._after.indexes(table):
                index_name = ddl.leaf_index_name(index, part.name)
                sql = ddl.create_index(index, on=part.name, name=index_name)
                yield self._step("build_part", part.name, self._target, sql)
            yield self._step("catch_up", part.name, self._source, f"SELECT pgherd.wait_caught_up({name}, 600)")

    def commits(self) -> Iterator[Step]:
        server = server_name(self._move.target)
        for _, parent, part in self._parts:
            link = ddl.create_foreign_partition(part.name, parent, part.bound, server)
            if self._others:
                sql = f"DROP FOREIGN TABLE {part.name.sql};\n{link}"
                yield self._step("relink_shard", part.name, self._others, sql, WAIT)
        for _, _, part in self._parts:
            lock = f"LOCK TABLE {part.name.sql} IN ACCESS EXCLUSIVE MODE"
            yield self._step("hold_shard", part.name, self._source, lock, WAIT)
        for table, parent, part in self._parts:
            name = quote_literal(part.name.sql)
            yield self._step("catch_up", part.name, self._source, f"SELECT pgherd.wait_caught_up({name}, 5)", WAIT)
            link = ddl.create_foreign_partition(part.name, parent, part.bound, server)
            sql = (
                f"ALTER TABLE {parent.sql} DETACH PARTITION {part.name.sql};\n"
                f"ALTER TABLE {part.name.sql} SET SCHEMA {ASIDE};\n{link}"
            )
            yield self._step("swap_out", part.name, self._source, sql, WAIT)
            sql = (
                f"SELECT pgherd.end_incoming({name});\n"
                f"ALTER TABLE {parent.sql} ATTACH PARTITION {part.name.sql} {part.bound.sql}"
            )
            yield self._step("swap_in", part.name, self._target, sql, WAIT)
            yield from self._compiler.leaf_extras(table, part.name, self._target)
        yield from finish(self._before, self._after)

    def afters(self) -> Iterator[Step]:
        for _, _, part in self._parts:
            name = quote_literal(part.name.sql)
            yield self._step("clear_move", part.name, self._target, f"SELECT pgherd.clear_incoming({name})")
            yield self._step("clear_move", part.name, self._source, f"SELECT pgherd.clear_outgoing({name})")

    def _step(self, kind: str, name: Name, groups: tuple[GroupId, ...], sql: str, blocks: str = "nobody") -> Step:
        return Step(kind, str(name), groups, sql, blocks=blocks, undo="cleared when the move is planned again")


def _find(topology: Topology, name: Name) -> tuple[Table, Name, Partition]:
    """The table of a shard, what the shard is a partition of, and the shard."""
    for table in topology.schema.tables:
        for ancestors, leaf in leaves(table.partitions):
            if leaf.name == name:
                return table, ancestors[-1].name if ancestors else table.name, leaf
    raise AssertionError(f"{quote_ident(name.name)} is no shard")
