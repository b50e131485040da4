"""A plan: what will be done, where, and who waits meanwhile; immutable, and made for one generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model.names import Name
from ..model.topology import GroupId, Topology
from .rebalance import Move

NOBODY = "nobody"
BRIEFLY = "writers and readers of this table, for the moment of the commit"


@dataclass(frozen=True, slots=True)
class Traits:
    """What an engine made of plain PostgreSQL servers can do.

    ``keys_on_parent``: no partition is foreign, so keys can live on the partitioned table itself.
    ``enforces_placement``: there are places to choose from, so tablespaces decide where shards live.
    """

    keys_on_parent: bool
    enforces_placement: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One statement on one or more groups.

    ``kind`` is the sort of change (``create_table`` …), ``target`` what it changes, ``blocks`` who waits for it and how
    long, ``undo`` how it is taken back. ``secret`` keeps the text out of everything that is shown. ``moving`` is set on
    steps that take more than a statement: a shard on its way from the first of the groups to the second. ``apart`` is
    for one of a phase's commits that is committed at once, by a session of its own, before the others. ``index`` is
    what a step builds whose target is the shard.
    """

    kind: str
    target: str
    groups: tuple[GroupId, ...]
    sql: str
    blocks: str = NOBODY
    undo: str = "rolled back with its phase"
    secret: bool = False
    moving: Name | None = None
    apart: bool = False
    index: Name | None = None

    def as_json(self) -> dict[str, Any]:
        """The step as ``apply --plan --json`` shows it."""
        return {
            "kind": self.kind,
            "target": self.target,
            "groups": list(self.groups),
            "sql": "(holds a password verifier; not shown)" if self.secret else self.sql,
            "blocks": self.blocks,
            "undo": self.undo,
        }


@dataclass(frozen=True, slots=True)
class Phase:
    """What moves a herd from one generation to the next.

    ``builds`` run first, outside of any transaction, all groups at the same time; they are repeatable, so a phase that
    was killed is run again from its start. ``commits`` then happen on all groups in one two-phase commit together with
    the record of ``result``: all or nothing. ``afters`` clear up what the builds needed; if nobody is left to run them,
    the next change or start does. ``move`` is what a phase moves, if it does nothing else: the builds of moves need
    nothing of the moves before them, so they may run ahead.
    """

    builds: tuple[Step, ...]
    commits: tuple[Step, ...]
    result: Topology
    afters: tuple[Step, ...] = ()
    move: Move | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in the order they run."""
        return (*self.builds, *self.commits, *self.afters)


@dataclass(frozen=True, slots=True)
class Plan:
    """Phases from ``parent_generation`` on; none when there is nothing to do."""

    parent_generation: int
    phases: tuple[Phase, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps of all phases in the order they run."""
        return tuple(s for p in self.phases for s in p.steps)

    @property
    def result(self) -> Topology | None:
        """The topology when all is done; None when there is nothing to do."""
        return self.phases[-1].result if self.phases else None

    def as_json(self) -> dict[str, Any]:
        """The plan as ``--plan --json`` shows it."""
        return {
            "parent_generation": self.parent_generation,
            "generation": self.result.generation if self.result else self.parent_generation,
            "steps": [s.as_json() for s in self.steps],
            "notes": list(self.notes),
        }
