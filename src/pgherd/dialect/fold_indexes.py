"""Indexes of partitions -> indexes of their table.

YugabyteDB's users index each partition in its own tablespace, pg_dump attaches each partition's index to the table's:
both say what one index on the table says here, because every shard has its table's indexes in its own tablespace.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ..model.names import Name
from ..model.schema import Index
from .drafts import Draft, IndexDraft
from .indexes import free_name


def fold_indexes(draft: Draft) -> dict[Name, Index]:
    """The indexes that the schema has, each under the name of the last statement that it came from.

    Raises BadSchema for an index in another tablespace than its rows, or on some partitions of a table only.
    """
    found: dict[Name, Index] = {}
    alike: dict[Index, list[IndexDraft]] = defaultdict(list)
    for item in [i for i in draft.items if isinstance(i, IndexDraft)]:
        _check_tablespace(draft, item)
        if draft.tables[item.index.table].parent is None:
            found[item.index.name] = item.index
        elif item.index.name in draft.attached_indexes:
            _check_attached(draft, item)
        else:
            alike[_on_root(draft, item.index)].append(item)
    for index, items in alike.items():
        on = {i.index.table for i in items}
        if not _covered(draft, index.table, on):
            raise items[0].place.bad(
                f"an index on partition {items[0].index.table} only",
                hint=f"write CREATE INDEX … ON {index.table}: every shard then has it, in its own tablespace",
            )
        words = list(index.columns) or ["expr"]
        name = Name(index.table.schema, free_name(draft, index.table, words, index.unique))
        draft.make_relation(name, items[-1].place)
        draft.places["index", name] = items[-1].place
        found[items[-1].index.name] = replace(index, name=name)
    return found


def _on_root(draft: Draft, index: Index) -> Index:
    """The same index on the whole table, nameless."""
    return replace(index, name=Name("", ""), table=draft.root(index.table).name)


def _covered(draft: Draft, table: Name, on: set[Name]) -> bool:
    """Whether every leaf below has the index, by itself or from a level above."""
    children = draft.tables[table].children
    return table in on or (bool(children) and all(_covered(draft, c, on) for c in children))


def _check_tablespace(draft: Draft, item: IndexDraft) -> None:
    asked = item.tablespace
    if asked is not None and asked != draft.effective_tablespace(item.index.table):
        raise item.place.bad(
            f"TABLESPACE {asked}: an index lives with its rows, in each shard's own tablespace",
            hint="leave TABLESPACE out",
        )


def _check_attached(draft: Draft, item: IndexDraft) -> None:
    above, place = draft.attached_indexes[item.index.name]
    parent = next((i.index for i in draft.items if isinstance(i, IndexDraft) and i.index.name == above), None)
    if parent is None or _on_root(draft, parent) != _on_root(draft, item.index):
        raise place.bad(
            f"index {item.index.name} is not what index {above} of the table is",
            hint="create the table's index alone: every shard then has it",
        )
