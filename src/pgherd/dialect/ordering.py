"""The order in which items can be made: the file's, but a table after the tables that its foreign keys name."""

from __future__ import annotations

from ..model.names import Name
from ..model.schema import Item, ObjectKind, SqlObject, Table
from .drafts import Draft

_AFTER_TABLES = (ObjectKind.VIEW, ObjectKind.TRIGGER, ObjectKind.POLICY, ObjectKind.GRANT, ObjectKind.COMMENT)


def in_order(items: tuple[Item, ...], draft: Draft) -> tuple[Item, ...]:
    """``items`` with tables moved up where a foreign key above needs them; BadSchema for a circle of foreign keys."""
    at = {item.name: n for n, item in enumerate(items) if isinstance(item, Table)}
    done: list[Item] = []
    made: set[int] = set()

    def make(n: int, path: tuple[Name, ...]) -> None:
        item = items[n]
        if n in made:
            return
        if isinstance(item, Table):
            if item.name in path:
                circle = " -> ".join(str(p) for p in (*path[path.index(item.name) :], item.name))
                raise draft.tables[item.name].place.bad(
                    f"foreign keys go in a circle: {circle}", hint="leave one of them out"
                )
            for fk in item.foreign_keys:
                if fk.references != item.name and fk.references in at:
                    needed = at[fk.references]
                    for m in range(needed):  # types, functions and the like that the table may need
                        other = items[m]
                        if isinstance(other, SqlObject) and other.kind not in _AFTER_TABLES:
                            make(m, ())
                    make(needed, (*path, item.name))
        if n not in made:
            made.add(n)
            done.append(item)

    for n in range(len(items)):
        make(n, ())
    return tuple(done)
