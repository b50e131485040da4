"""Moving shards between groups while they are read and written.

The new home gets a table of its own. Rows are copied as a replication slot's snapshot shows them, keys and indexes are
built, and a subscription brings what has changed since; then one short two-phase commit swaps table and foreign
partition on every node. Whoever writes to the shard waits for that commit only. A subscription writes to the
publisher's schema and name and refuses a foreign table, so the new home's foreign partition steps aside first; it
stays attached and in use.

Foreign keys are there before the rows, since tied shards are copied at different moments and agree only when all has
been caught up (replicated rows aren't checked again); other keys come after, when building them takes less.

A DEFAULT partition beside the shard must hold none of its rows whenever it is attached. PostgreSQL would read all of
that partition in the commit; a check that says so, made and looked at before, spares it.

No detector sees a deadlock over two servers, and whoever comes to a shard through another node holds a lock on the
table there and then wants one on the shard at its home. So the commit asks all nodes at the same time, for the tables
before the shard, and for what keeps writers out before what keeps readers out: those who are on their way get through.
(A write to any hash shard looks at its parent, too; so does the new home's check while the last rows arrive.) What
deadlocks remain, of writers over several groups or tied tables, end when the executor gives up early and tries again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..errors import PlacementUnsatisfied
from ..model.names import Name, quote_ident, quote_literal
from ..model.schema import ListBound, Partition, Table, leaves
from ..model.topology import GroupId, Topology
from . import ddl
from .compile import Compiler, server_name
from .finish import finish
from .placement import serves, spaces_of
from .plan import BRIEFLY, Phase, Plan, Step, Traits
from .rebalance import Move

ASIDE = "pgherd_aside"
"""Schema of what steps aside during a move."""
WAIT = "writers of this shard, for the moment of the commit"
HOLD_S = 0.5
"""How long writers may be held up at most while their last rows are on the way; the executor's limit is lower."""
READERS_S = 4
"""How long a group must have been left by a shard before it comes back: more than clients trust their topology."""


def plan_moves(topology: Topology, moves: tuple[Move, ...], traits: Traits) -> Plan:
    """One phase a move: generation by generation, so that a plan that is stopped has moved what it has moved.

    Raises PlacementUnsatisfied for a move to a group that a shard's tablespace does not allow.
    """
    phases = []
    reached = topology
    for move in moves:
        _check_allowed(topology, move)
        homes = {**reached.homes, **{name.sql: move.target for name in move.shards}}
        target = replace(reached, generation=reached.generation + 1, homes=homes)
        mover = _Mover(reached, target, move, Compiler(target, traits, target.schema))
        phases.append(Phase(tuple(mover.builds()), tuple(mover.commits()), target, tuple(mover.afters()), move))
        reached = target
    return Plan(topology.generation, tuple(phases))


class _Mover:
    def __init__(self, before: Topology, after: Topology, move: Move, compiler: Compiler) -> None:
        self._before, self._after, self._move, self._compiler = before, after, move, compiler
        self._source, self._target = (move.source,), (move.target,)
        self._others = tuple(g.name for g in after.groups if g.name not in (move.source, move.target))
        self._parts = [find_shard(before, name) for name in move.shards]
        self._defaults = [
            (rest, part.name, before.homes[rest.sql])
            for table, parent, part in self._parts
            if isinstance(part.bound, ListBound) and not part.bound.default
            for rest in _default_leaves(table, parent)
        ]
        self._spaces = {name: space for table, _, _ in self._parts for name, space in spaces_of(table).items()}

    def builds(self) -> Iterator[Step]:
        yield from self.afters()
        for _, parent, part in self._parts:
            wait = f"SELECT pgherd.await_readers({quote_literal(part.name.sql)}, {READERS_S})"
            yield self._step("await_readers", part.name, self._target, wait)
            sql = f"SELECT pgherd.begin_incoming({quote_literal(part.name.sql)}, {quote_literal(parent.sql)})"
            yield self._step("make_table", part.name, self._target, sql)
        yield from self._keys(early=True)
        both = (*self._source, *self._target)
        for _, _, part in self._parts:
            begin = f"SELECT pgherd.begin_outgoing({quote_literal(part.name.sql)})"
            yield self._step("publish", part.name, self._source, begin)
            copy = f"COPY {part.name.sql} TO STDOUT (FORMAT binary)"
            yield replace(self._step("copy_rows", part.name, both, copy), moving=part.name)
        for rest, name, home in self._defaults:
            arguments = f"({quote_literal(name.sql)}, {quote_literal(rest.sql)})"
            yield self._step("spare_default", rest, (home,), f"SELECT pgherd.spare_default{arguments}", BRIEFLY)
            yield self._step("check_default", rest, (home,), f"SELECT pgherd.check_default{arguments}")
        yield from self._keys(early=False)
        for table, _, part in self._parts:
            for index in self._after.indexes(table):
                index_name = ddl.leaf_index_name(index, part.name)
                sql = ddl.create_index(index, on=part.name, name=index_name)
                step = self._step("build_part", part.name, self._target, sql)
                yield replace(step, index=Name(part.name.schema, index_name))
        for _, _, part in self._parts:
            link = quote_literal(server_name(self._move.source))
            sql = f"SELECT pgherd.subscribe({quote_literal(part.name.sql)}, {link})"
            yield self._step("subscribe", part.name, self._target, sql)
        for _, _, part in self._parts:
            behind = f"SELECT pgherd.behind({quote_literal(part.name.sql)}, pg_current_wal_insert_lsn())"
            yield replace(self._step("catch_up", part.name, both, behind), moving=part.name)

    def _keys(self, *, early: bool) -> Iterator[Step]:
        """Keys: before the rows foreign keys and what those of tied shards point to; later the rest."""
        pointed_to = {key.references for table, _, _ in self._parts for key in table.foreign_keys}
        for table, _, part in self._parts:
            texts = self._compiler.leaf_constraints(table, part)
            keys, foreign = texts[: len(table.keys)], texts[len(table.keys) :]
            first = table.name in pointed_to
            for text in [*(keys if first == early else ()), *(foreign if early else ())]:
                yield self._step("add_key", part.name, self._target, f"ALTER TABLE {part.name.sql} ADD {text}")

    def commits(self) -> Iterator[Step]:
        server = server_name(self._move.target)
        everywhere = tuple(g.name for g in self._after.groups)
        parents = ", ".join(dict.fromkeys(parent.sql for _, parent, _ in self._parts))
        shards = ", ".join(part.name.sql for _, _, part in self._parts)
        first = self._parts[0][2].name
        for _, _, part in self._parts:
            link = quote_literal(server_name(self._move.source))
            sql = f"SELECT pgherd.take_calibration({quote_literal(part.name.sql)}, {link})"
            yield self._step("take_calibration", part.name, self._target, sql)
        sql = f"LOCK TABLE ONLY {parents} IN EXCLUSIVE MODE"
        yield self._step("hold_writers", first, everywhere, sql, BRIEFLY)
        yield self._step("hold_shard", first, self._source, f"LOCK TABLE {shards} IN EXCLUSIVE MODE", WAIT)
        for _, _, part in self._parts:
            sql = f"SELECT pgherd.wait_caught_up({quote_literal(part.name.sql)}, {HOLD_S})"
            yield self._step("catch_up", part.name, self._source, sql, WAIT)
        sql = f"LOCK TABLE ONLY {parents} IN ACCESS EXCLUSIVE MODE"
        yield self._step("hold_readers", first, everywhere, sql, BRIEFLY)
        for _, parent, part in self._parts:
            linked = self._compiler.links(parent, [part], self._move.target, self._spaces[part.name], self._others)
            for kind, groups, link in linked:
                if kind == "link_shard":  # a barrier stays what it is
                    sql = f"DROP FOREIGN TABLE {part.name.sql};\n{link}"
                    yield self._step("relink_shard", part.name, groups, sql, BRIEFLY)
        for table, parent, part in self._parts:
            sql = (
                f"SELECT pgherd.end_incoming({quote_literal(part.name.sql)});\n"
                f"ALTER TABLE {parent.sql} ATTACH PARTITION {part.name.sql} {part.bound.sql}"
            )
            yield self._step("swap_in", part.name, self._target, sql, WAIT)
            yield from self._compiler.leaf_extras(table, part.name, self._target)
        for _, parent, part in self._parts:
            link = ddl.create_foreign_partition(part.name, parent, part.bound, server)
            sql = (
                f"ALTER TABLE {parent.sql} DETACH PARTITION {part.name.sql};\n"
                f"ALTER TABLE {part.name.sql} SET SCHEMA {ASIDE};\n"
                f"DELETE FROM pgherd.calibration WHERE relation = {quote_literal(part.name.sql)};\n{link}"
            )
            yield self._step("swap_out", part.name, self._source, sql, WAIT)
        for rest, name, home in self._defaults:
            sql = f"SELECT pgherd.clear_default({quote_literal(name.sql)})"
            yield self._step("clear_default", rest, (home,), sql, BRIEFLY)
        yield from finish(self._before, self._after)

    def afters(self) -> Iterator[Step]:
        for _, _, part in self._parts:
            name = quote_literal(part.name.sql)
            yield self._step("clear_move", part.name, self._target, f"SELECT pgherd.clear_incoming({name})")
            yield self._step("clear_move", part.name, self._source, f"SELECT pgherd.clear_outgoing({name})")
        for _, shard, home in self._defaults:
            if home not in (*self._source, *self._target):
                sql = f"SELECT pgherd.clear_outgoing({quote_literal(shard.sql)})"
                yield self._step("clear_move", shard, (home,), sql)

    def _step(self, kind: str, name: Name, groups: tuple[GroupId, ...], sql: str, blocks: str = "nobody") -> Step:
        return Step(kind, str(name), groups, sql, blocks=blocks, undo="cleared when the move is planned again")


def _check_allowed(topology: Topology, move: Move) -> None:
    """Guards invariant 3, whoever thought of the move."""
    for shard in (s for t in topology.schema.tables for s in topology.shards(t) if s.relation in move.shards):
        space = topology.schema.tablespace(shard.tablespace) if shard.tablespace else None
        if not serves(topology.group(move.target), space):
            raise PlacementUnsatisfied(
                f"tablespace {shard.tablespace!r} doesn't allow group {move.target} for shard {shard.relation}",
                hint="let pgherd rebalance or pgherd node drain choose the groups",
            )


def _default_leaves(table: Table, parent: Name) -> Iterator[Name]:
    """The shards that hold what no other partition of ``parent`` takes."""
    for ancestors, leaf in leaves(table.partitions):
        path = (*ancestors, leaf)
        for above, below in zip((table.name, *(p.name for p in path)), path, strict=False):
            if above == parent and isinstance(below.bound, ListBound) and below.bound.default:
                yield leaf.name


def find_shard(topology: Topology, name: Name) -> tuple[Table, Name, Partition]:
    """The table of a shard, what the shard is a partition of, and the shard."""
    for table in topology.schema.tables:
        for ancestors, leaf in leaves(table.partitions):
            if leaf.name == name:
                return table, ancestors[-1].name if ancestors else table.name, leaf
    raise AssertionError(f"{quote_ident(name.name)} is no shard")
