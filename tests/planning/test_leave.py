"""What may leave a herd, and what follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herds import FLEET, a_herd, pinned
from pgherd import dialect
from pgherd.errors import ChangeRefused, UnknownName
from pgherd.model.topology import GroupId, Topology
from pgherd.planning.apply import plan_apply
from pgherd.planning.leave import plan_leave

TEXT = """
CREATE TABLE t (id int PRIMARY KEY); SELECT create_distributed_table('t', 'id', shard_count => 2);
CREATE TABLE r (id int PRIMARY KEY); SELECT create_reference_table('r');
"""


def herd_of(*regions: str, text: str = TEXT) -> Topology:
    herd = plan_apply(a_herd(*regions), dialect.parse(text), FLEET).result
    assert herd is not None
    return herd


def test_an_empty_group_leaves_in_one_commit() -> None:
    """The first one, too: the next takes its part."""
    herd = herd_of("us-east", "us-west")
    herd = replace(herd, homes=dict.fromkeys(herd.homes, GroupId("g2")))
    plan = plan_leave(herd, GroupId("g1"))
    (phase,) = plan.phases
    assert [g.name for g in phase.result.groups] == ["g2"]
    assert phase.result.generation == herd.generation + 1
    assert phase.result.homes == herd.homes
    (leave,) = (s for s in phase.commits if s.kind == "leave")
    assert leave.groups == ("g1",)
    assert "DROP TABLE IF EXISTS public.t CASCADE" in leave.sql
    assert "TRUNCATE pgherd.topology" in leave.sql
    (unlink,) = (s for s in phase.commits if s.kind == "drop_link")
    assert unlink.groups == ("g2",)
    assert all(s.groups == ("g2",) for s in phase.commits if s.kind not in ("leave",))


def test_what_is_in_the_way_is_named() -> None:
    herd = herd_of("us-east", "us-west")
    with pytest.raises(ChangeRefused, match=r"shard public.t_0 is in group g1"):
        plan_leave(herd, GroupId("g1"))
    with pytest.raises(UnknownName, match="atlantis"):
        plan_leave(herd, GroupId("atlantis"))
    with pytest.raises(ChangeRefused, match="only group"):
        plan_leave(herd_of("us-east"), GroupId("g1"))
    whole = herd_of("us-east", "us-west", text="CREATE TABLE whole (id int PRIMARY KEY);")
    with pytest.raises(ChangeRefused, match="table whole is whole in group g1") as refused:
        plan_leave(whole, whole.homes["public.whole"])
    assert "distribute it" in refused.value.hint


def test_a_tablespace_that_nobody_serves_any_more_is_noted() -> None:
    herd = herd_of("us-east", "us-west")
    homes = dict.fromkeys(herd.homes, GroupId("g2"))
    herd = replace(herd, homes=homes, schema=replace(herd.schema, tablespaces=(pinned("us-east"), pinned("us-west"))))
    (note,) = plan_leave(herd, GroupId("g1")).notes
    assert "'in_us-east'" in note
