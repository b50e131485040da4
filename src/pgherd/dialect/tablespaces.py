"""``CREATE TABLESPACE … WITH (replica_placement = '{json}')``: a placement policy, with YugabyteDB's checks.

``"strict": true`` (or ``{"except": ["region", …]}``) beside the blocks is pgherd's own: rows are read at home only.

Reference: YugabyteDB's YSQL page on tablespaces (keys, wildcards, leader_preference, read replicas).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ..model.placement import ANY, PlacementBlock, ReadReplicas, Tablespace
from .source import Place
from .text import option_text

_OPTIONS = {"replica_placement", "read_replica_placement"}
_BLOCK_KEYS = ("cloud", "region", "zone", "min_num_replicas")
_EXAMPLE = (
    '{"num_replicas": 3, "placement_blocks": [{"cloud": "local", "region": "us-east", "zone": "*",'
    ' "min_num_replicas": 3}]}'
)


def read_tablespace(name: str, options: Any, place: Place, old: Tablespace | None = None) -> Tablespace:
    """The policy that the options of CREATE or ALTER TABLESPACE say. Raises BadSchema naming the tablespace."""
    given = {o.defname: option_text(o.arg) for o in options or ()}
    unknown = sorted(given.keys() - _OPTIONS)
    if unknown:
        raise place.bad(f"tablespace {name!r}: unknown option {unknown[0]!r}", hint=f"options: {', '.join(_OPTIONS)}")
    if "replica_placement" not in given and old is None:
        raise place.bad(
            f"tablespace {name!r}: replica_placement is missing", hint=f"write replica_placement = '{_EXAMPLE}'"
        )
    reader = _Reader(name, place)
    space = old or Tablespace(name, 0)
    if "replica_placement" in given:
        num, blocks, said = reader.placement("replica_placement", given["replica_placement"], live=True)
        strict, granted = reader.strict(said.get("strict", False))
        space = replace(space, num_replicas=num, blocks=blocks, strict=strict, granted=granted)
    if "read_replica_placement" in given:
        num, blocks, said = reader.placement("read_replica_placement", given["read_replica_placement"], live=False)
        space = replace(space, read_replicas=ReadReplicas(num, blocks, reader.uuid(said.get("placement_uuid"))))
    reader.check_strict(space)
    return space


class _Reader:
    def __init__(self, name: str, place: Place) -> None:
        self.name, self.place = name, place

    def bad(self, option: str, message: str, hint: str) -> Exception:
        return self.place.bad(f"tablespace {self.name!r}: {option}: {message}", hint=hint)

    def placement(
        self, option: str, text: str, *, live: bool
    ) -> tuple[int, tuple[PlacementBlock, ...], dict[str, Any]]:
        try:
            said = json.loads(text)
        except json.JSONDecodeError as e:
            raise self.bad(option, f"not JSON: {e}", f"write {_EXAMPLE}") from e
        if not isinstance(said, dict):
            raise self.bad(option, "not a JSON object", f"write {_EXAMPLE}")
        allowed = {"num_replicas", "placement_blocks"} | ({"strict"} if live else {"placement_uuid"})
        for key in sorted(said.keys() - allowed):
            raise self.bad(option, f"unknown key {key!r}", f"keys: {', '.join(sorted(allowed))}")
        num = self.count(option, said, "num_replicas")
        listed = said.get("placement_blocks")
        if not isinstance(listed, list) or not listed:
            raise self.bad(option, "placement_blocks is missing or empty", f"write {_EXAMPLE}")
        blocks = tuple(self.block(option, b, live=live) for b in listed)
        self.together(option, num, blocks)
        return num, blocks, said

    def uuid(self, value: Any) -> str | None:
        if value is not None and not (isinstance(value, str) and value):
            raise self.bad("read_replica_placement", "placement_uuid is not a text", "leave it out, or write a text")
        return value

    def strict(self, value: Any) -> tuple[bool, tuple[str, ...]]:
        """``true``, ``false`` or ``{"except": [regions]}``: whether, and what regions are granted nevertheless."""
        if isinstance(value, bool):
            return value, ()
        granted = value.get("except") if isinstance(value, dict) and value.keys() == {"except"} else None
        if not isinstance(granted, list) or not granted or not all(isinstance(r, str) and r for r in granted):
            hint = 'write "strict": true, or "strict": {"except": ["us-east"]} with the regions that may read too'
            raise self.bad("replica_placement", f"strict is {json.dumps(value)}", hint)
        return True, tuple(dict.fromkeys(granted))

    def check_strict(self, space: Tablespace) -> None:
        """ResidencyRefused for a strict policy that contradicts itself."""
        if not space.strict:
            return
        if space.regions is None or ANY in space.granted:
            raise self.place.refused(
                f"tablespace {self.name!r}: strict, but any region is allowed",
                hint="name the regions, or leave strict out",
            )
        may_read = space.regions | set(space.granted)
        for block in space.read_replicas.blocks if space.read_replicas else ():
            if block.region not in may_read:
                raise self.place.refused(
                    f"tablespace {self.name!r}: strict, but read_replica_placement puts copies at {block}",
                    hint=f"keep read replicas in {', '.join(sorted(may_read))}, or grant {block.region} with except",
                )

    def count(self, option: str, said: dict[str, Any], key: str) -> int:
        value = said.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            shown = "is missing" if key not in said else f"is {json.dumps(value)}"
            raise self.bad(option, f"{key} {shown}", f'write "{key}": a whole number above 0')
        return value

    def block(self, option: str, said: Any, *, live: bool) -> PlacementBlock:
        if not isinstance(said, dict):
            raise self.bad(option, "a placement block is not a JSON object", f"write {_EXAMPLE}")
        allowed = {*_BLOCK_KEYS} | ({"leader_preference"} if live else set())
        for key in sorted(said.keys() - allowed):
            raise self.bad(option, f"unknown key {key!r} in a placement block", f"keys: {', '.join(sorted(allowed))}")
        for key in _BLOCK_KEYS[:3]:
            if not isinstance(said.get(key), str) or not said[key]:
                raise self.bad(option, f"{key} is missing in a placement block", f'write "{key}": a name')
        cloud, region, zone = (said[key] for key in _BLOCK_KEYS[:3])
        if cloud == ANY:
            raise self.bad(option, "cloud is '*'", "name the cloud; only region and zone may be '*'")
        if region == ANY and zone != ANY:
            raise self.bad(option, f"region is '*' but zone is {zone!r}", "with region '*' the zone is '*' too")
        minimum = self.count(option, said, "min_num_replicas")
        preference = said.get("leader_preference")
        if preference is not None:
            preference = self.count(option, said, "leader_preference")
        return PlacementBlock(cloud, region, zone, minimum, preference)

    def together(self, option: str, num: int, blocks: tuple[PlacementBlock, ...]) -> None:
        places = [str(b) for b in blocks]
        for where in places:
            if places.count(where) > 1:
                raise self.bad(option, f"two placement blocks for {where}", "write one, with the sum of the minimums")
        total = sum(b.min_num_replicas for b in blocks)
        if total > num:
            raise self.bad(
                option, f"the blocks ask for {total} replicas, num_replicas is {num}", f'write "num_replicas": {total}'
            )
        ranks = {b.leader_preference for b in blocks} - {None}
        if ranks and ranks != set(range(1, len(ranks) + 1)):
            shown = ", ".join(str(r) for r in sorted(r for r in ranks if r is not None))
            raise self.bad(option, f"leader_preference is {shown}", "number them 1, 2, 3 without a gap; ties are fine")
