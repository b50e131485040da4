"""Residency is a property of plans: none that is made takes a pinned row outside of its regions, whatever the herd.

Random herds (with standbys), policies and schemas go through random changes. Each plan's steps are read as text here,
by rules that know nothing of how plans are made; a kind of step that the rules do not know fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herds import FLEET, REGIONS, tables
from pgherd.errors import HerdError
from pgherd.model.names import Name
from pgherd.model.placement import Label, PlacementBlock, Tablespace
from pgherd.model.schema import ForeignKey, Item, Key, ListBound, Partition, Schema, Table, TableKind, leaves
from pgherd.model.topology import EngineName, Group, GroupId, Node, NodeId, Reader, Role, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.compile import server_name
from pgherd.planning.grow import grow
from pgherd.planning.join import join_steps
from pgherd.planning.leave import plan_leave
from pgherd.planning.move import plan_moves
from pgherd.planning.plan import Phase, Plan, Step
from pgherd.planning.readers import plan_reader
from pgherd.planning.rebalance import Move, drain, rebalance, tied_shards
from pgherd.planning.split import plan_splits, splits_of

# What is allowed, said again and on its own.


def _in(blocks: tuple[PlacementBlock, ...], label: Label) -> bool:
    return any(
        b.cloud == label.cloud and b.region in ("*", label.region) and b.zone in ("*", label.zone) for b in blocks
    )


def _may_hold(group: Group, space: Tablespace | None) -> bool:
    """Every node of the group, standbys too, is where the policy says."""
    return space is None or all(_in(space.blocks, n.label) for n in group.nodes)


def _may_lead(group: Group, space: Tablespace | None) -> bool:
    if space is None or not space.strict:
        return True
    regions = {b.region for b in space.blocks} | set(space.granted)
    return all(n.label.region in regions for n in group.nodes)


@dataclass
class _Policies:
    """The policy of every relation that holds rows, before and after a phase."""

    spaces: dict[str, Tablespace | None] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)

    def add(self, topology: Topology) -> None:
        for table in topology.schema.tables:
            if table.kind is TableKind.REFERENCE:
                continue
            rows = [(table.name, table.tablespace)] if table.kind is TableKind.LOCAL else []
            for ancestors, leaf in leaves(table.partitions):
                named = [p.tablespace for p in (leaf, *reversed(ancestors)) if p.tablespace]
                rows.append((leaf.name, named[0] if named else table.tablespace))
            for name, space in rows:
                self.spaces[name.sql] = topology.schema.tablespace(space) if space else None
                self.homes[name.sql] = str(topology.homes[name.sql])


_RELATION = r'(?P<relation>(?:"(?:[^"]|"")+"|\w+)\.(?:"(?:[^"]|"")+"|\w+))'
_HOLDS = [  # statements after which the group holds rows of the relation, or passes them on
    re.compile(rf"CREATE TABLE {_RELATION} (?!PARTITION OF [^;]*PARTITION BY)"),
    re.compile(rf"pgherd\.begin_incoming\('{_RELATION}'"),
    re.compile(rf"pgherd\.make_half\('{_RELATION}'"),
    re.compile(rf"pgherd\.begin_outgoing\('{_RELATION}'"),
    re.compile(rf"pgherd\.subscribe\('{_RELATION}'"),
    re.compile(rf"pgherd\.copy_halves\('{_RELATION}'"),
    re.compile(rf"COPY {_RELATION} "),
    re.compile(rf"ATTACH PARTITION {_RELATION} "),
]
_LINK = re.compile(rf"CREATE FOREIGN TABLE {_RELATION} [^;]*? SERVER (?P<server>\"(?:[^\"]|\"\")+\"|\w+) OPTIONS")
_SEARCHED = re.compile(r"shards_ text\[\] := ARRAY\[(?P<relations>.*?)\]::text\[\]", re.S)
_COPIES = re.compile(rf"pgherd\.copy_reference\('{_RELATION}'")
_GRANTED = re.compile(r"pgherd\.let_read\('[^']+', ARRAY\[(?P<relations>.*?)\]::text\[\]\)", re.S)

KNOWN = """
create_table create_shard create_partition link_shard bar_shard link_table bar_table relink_shard
guard_reference interleave_ids create_sequence row_security create_index build_index record run_type run_role
run_policy add_column set_default set_not_null add_constraint search_function sync_shards let_read make_reader
await_readers make_table add_key publish copy_rows build_part subscribe catch_up take_calibration hold_writers
hold_shard hold_readers swap_in swap_out clear_move clear_split make_halves note_changes analyze carry_curves
hold_reference copy_reference leave drop_link spare_default check_default clear_default
"""


def _unquoted(text: str) -> str:
    """SQL inside string constants, read like SQL outside of them."""
    return text.replace("''", "'")


def check_plan(before: Topology, plan: Plan) -> None:
    """AssertionError for a step that would take a pinned row, or a way to one, out of where it may be."""
    for phase in plan.phases:
        check_phase(before, phase)
        before = phase.result


def check_phase(before: Topology, phase: Phase) -> None:
    policies = _Policies()
    policies.add(before)
    now = _Policies()
    now.add(phase.result)
    policies.spaces.update(now.spaces)
    groups = {g.name: g for t in (before, phase.result) for g in t.groups}
    for step in phase.steps:
        assert step.kind in KNOWN.split(), f"teach this test what {step.kind} does with rows"
        for name in step.groups:
            _check_step(step, groups[name], policies, now)
    for relation, home in now.homes.items():
        assert _may_hold(groups[GroupId(home)], now.spaces[relation]), f"{relation} is at home in {home}"


def _check_step(step: Step, group: Group, policies: _Policies, now: _Policies) -> None:
    text = _unquoted(step.sql)
    leaves_alone = step.kind in ("leave", "swap_out", "clear_move", "clear_split")
    for pattern in () if leaves_alone else _HOLDS:
        for found in pattern.finditer(text):
            space = policies.spaces.get(found["relation"])
            assert _may_hold(group, space), f"{group.name} would hold {found['relation']}: {step}"
    for found in _LINK.finditer(text):
        relation, server = found["relation"], found["server"]
        if server.startswith("pgherd_"):
            assert _may_lead(group, now.spaces[relation]), f"{group.name} would lead to {relation}: {step}"
            assert server == server_name(GroupId(now.homes[relation])), f"not to its home: {step}"
    if step.kind == "search_function":
        searched = _SEARCHED.search(text)
        assert searched, f"teach this test how a search function names its shards: {step}"
        for relation in re.findall(_RELATION, searched["relations"]):
            assert _may_lead(group, now.spaces.get(relation)), f"{group.name} would search {relation}: {step}"
    for found in _COPIES.finditer(text):
        assert found["relation"] not in policies.spaces, f"no reference table: {step}"
    for found in _GRANTED.finditer(text):
        for relation in re.findall(_RELATION, found["relations"]):
            space = now.spaces.get(relation)
            assert space is None or group.primary.label.region in {b.region for b in space.blocks}, f"read: {step}"


# Random herds, policies and changes.

LABELS = st.builds(Label, st.just("local"), st.sampled_from(REGIONS), st.sampled_from(("a", "b")))


@st.composite
def _group(draw: st.DrawFn, number: int) -> Group:
    first = draw(LABELS)
    beside = st.builds(replace, st.just(first), zone=st.sampled_from(("a", "b")))
    others = draw(st.lists(st.one_of(beside, beside, beside, LABELS), max_size=2))
    nodes = tuple(
        Node(NodeId(f"g{number}-{i}"), "127.0.0.1", 5000 + number, label, Role.STANDBY if i else Role.PRIMARY)
        for i, label in enumerate((first, *others))
    )
    return Group(GroupId(f"g{number}"), number, nodes)


@st.composite
def _policy(draw: st.DrawFn, name: str, labels: list[Label]) -> Tablespace:
    """A policy for places that the herd mostly has; pinned to one region or two."""
    places = draw(st.lists(st.sampled_from(labels), min_size=1, max_size=2, unique_by=lambda x: x.region))
    zones = draw(st.booleans())
    blocks = tuple(PlacementBlock("local", p.region, p.zone if zones else "*", 1) for p in places)
    strict = draw(st.booleans())
    granted = tuple(draw(st.lists(st.sampled_from(REGIONS), max_size=1))) if strict else ()
    least = blocks if len(blocks) == 1 else tuple(replace(b, min_num_replicas=1) for b in blocks)
    return Tablespace(name, len(least), least, strict=strict, granted=granted)


SPACES = ("s0", "s1", "s2")


@st.composite
def _schemas(draw: st.DrawFn, labels: list[Label]) -> Schema:
    spaces = tuple(draw(_policy(name, labels)) for name in SPACES)
    items: list[Item] = [draw(tables(f"t{i}", SPACES)) for i in range(draw(st.integers(1, 3)))]
    tied = next((t for t in items if isinstance(t, Table) and t.kind is TableKind.DISTRIBUTED), None)
    if tied is not None and draw(st.booleans()):
        renamed = _renamed(tied.partitions)
        key = ForeignKey(("id", "region"), tied.name, ("id", "region"))
        own = Name(tied.name.schema, tied.name.name + "_tied")
        keys = (Key(("id", "region"), primary=True),)
        items.append(
            replace(tied, name=own, keys=keys, partitions=renamed, foreign_keys=(key,), shard_count=tied.shard_count)
        )
    return Schema(spaces, tuple(items))


def _renamed(partitions: tuple[Partition, ...]) -> tuple[Partition, ...]:
    return tuple(
        replace(p, name=Name(p.name.schema, p.name.name + "_tied"), partitions=_renamed(p.partitions))
        for p in partitions
    )


@dataclass
class _Herd:
    """A herd on paper that changes by plans; each is checked before it is taken for carried out."""

    topology: Topology
    wanted: Schema
    draw: st.DrawFn
    plans: int = 0

    def run(self, plan: Plan) -> None:
        check_plan(self.topology, plan)
        self.plans += 1
        self.topology = plan.result or self.topology

    def sizes(self) -> dict[str, int]:
        return {name: self.draw(st.integers(1, 1 << 30)) for name in self.topology.homes}

    def apply(self, wanted: Schema) -> None:
        self.run(plan_apply(self.topology, wanted, FLEET))
        self.wanted = wanted

    def add_table(self) -> None:
        table = self.draw(tables(f"n{self.topology.generation}", SPACES))
        self.apply(replace(self.wanted, items=(*self.wanted.items, table)))

    def add_partition(self) -> None:
        """A partition more on each table that is shared out by a list."""
        items = []
        for item in self.wanted.items:
            if isinstance(item, Table) and item.partitions and not item.name.name.endswith("_tied"):
                number = self.topology.generation
                if not any(getattr(p.bound, "default", False) for p in item.partitions):
                    name = Name(item.name.schema, f"{item.name.name}_more{number}")
                    space = self.draw(st.none() | st.sampled_from(SPACES))
                    more = Partition(name, ListBound((f"more {number}",)), space)
                    item = replace(item, partitions=(*item.partitions, more))
            items.append(item)
        self.apply(replace(self.wanted, items=tuple(items)))

    def change_policy(self) -> None:
        spaces = list(self.wanted.tablespaces)
        i = self.draw(st.integers(0, len(spaces) - 1))
        spaces[i] = self.draw(_policy(spaces[i].name, [n.label for n in self.topology.nodes]))
        self.apply(replace(self.wanted, tablespaces=tuple(spaces)))

    def rebalance(self) -> None:
        self.run(plan_moves(self.topology, rebalance(self.topology, self.sizes()), FLEET))

    def grow(self) -> None:
        splits, moves = grow(self.topology, self.sizes())
        first = plan_splits(self.topology, splits, FLEET)
        self.run(first)
        self.run(plan_moves(self.topology, moves, FLEET))

    def split(self) -> None:
        names = [str(t.name) for t in self.topology.schema.tables if t.kind is TableKind.DISTRIBUTED]
        name = self.draw(st.sampled_from(names or ["none"]))
        self.run(plan_splits(self.topology, splits_of(self.topology, name, {})[:2], FLEET))

    def move_anywhere(self) -> None:
        """What nobody should ask for: a shard to any group at all."""
        units = tied_shards(self.topology)
        if not units:
            return
        unit = self.draw(st.sampled_from(units))
        target = self.draw(st.sampled_from([g.name for g in self.topology.groups]))
        if target != unit[0].home:
            move = Move(tuple(s.relation for s in unit), unit[0].home, target, 1)
            self.run(plan_moves(self.topology, (move,), FLEET))

    def drain(self) -> None:
        group = self.draw(st.sampled_from([g.name for g in self.topology.groups]))
        self.run(plan_moves(self.topology, drain(self.topology, self.sizes(), group), FLEET))

    def leave(self) -> None:
        group = self.draw(st.sampled_from([g.name for g in self.topology.groups]))
        self.run(plan_moves(self.topology, drain(self.topology, self.sizes(), group), FLEET))
        self.run(plan_leave(self.topology, group))

    def join(self) -> None:
        number = 1 + max(g.number for g in self.topology.groups)
        group = self.draw(_group(number))
        target = replace(self.topology, generation=self.topology.generation + 1, groups=(*self.topology.groups, group))
        steps = tuple(join_steps(target, (group.name,), {}, FLEET))
        self.run(Plan(self.topology.generation, (Phase((), steps, target),)))

    def reader(self) -> None:
        region = self.draw(st.sampled_from(sorted({g.primary.label.region for g in self.topology.groups})))
        reader = Reader(region, f"reader_{region}", f"scribe_{region}", None)
        self.run(plan_reader(self.topology, reader, "secret", "secret"))


OPERATIONS: tuple[Callable[[_Herd], None], ...] = (
    _Herd.add_table,
    _Herd.add_partition,
    _Herd.change_policy,
    _Herd.rebalance,
    _Herd.grow,
    _Herd.split,
    _Herd.move_anywhere,
    _Herd.drain,
    _Herd.leave,
    _Herd.join,
    _Herd.reader,
)


@st.composite
def _lives(draw: st.DrawFn) -> tuple[_Herd, list[Callable[[_Herd], None]]]:
    groups = tuple(draw(_group(i)) for i in range(1, 1 + draw(st.integers(2, 6))))
    topology = Topology(1, EngineName.FLEET, groups)
    schema = draw(_schemas([g.primary.label for g in groups]))
    operations = draw(st.lists(st.sampled_from(OPERATIONS), min_size=4, max_size=12))
    return _Herd(topology, schema, draw), operations


def live(herd: _Herd, operations: list[Callable[[_Herd], None]]) -> Iterator[str]:
    """Carry out what can be; the names of what was refused."""
    try:
        herd.apply(herd.wanted)
    except HerdError as error:
        yield error.code
        return
    for operation in operations:
        try:
            operation(herd)
        except HerdError as error:
            yield error.code


def _refusals_are_expected(codes: list[str]) -> None:
    expected = {"change_refused", "placement_unsatisfied", "residency", "bad_schema", "unknown_name"}
    assert set(codes) <= expected, codes


@settings(max_examples=40)
@given(_lives())
def test_no_plan_takes_a_pinned_row_out(case: Any) -> None:
    _refusals_are_expected(list(live(*case)))


@pytest.mark.long
def test_ten_thousand_plans() -> None:
    made = 0

    @settings(max_examples=300)
    @given(_lives())
    def some(case: Any) -> None:
        nonlocal made
        _refusals_are_expected(list(live(*case)))
        made += case[0].plans

    rounds = 0
    while made < 10_000:
        some()
        rounds += 1
        assert rounds < 200, f"only {made} plans were made"
