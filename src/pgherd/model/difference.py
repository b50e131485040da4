"""What makes one JSON document of another, small where little has changed.

An edit names a path. Of an object there, the keys in ``drop`` go and those in ``put`` come or change; of an array,
``drop`` elements from ``at`` on are replaced by those in ``put``. To Python, and so here, 1 and true are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Edit = dict[str, Any]
Path = tuple[str | int, ...]


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[Edit]:
    """The edits that make ``new`` of ``old``, deepest first: none changes the path of a later one."""
    return list(_object(old, new, ()))


def patched(document: Any, edits: Sequence[Edit]) -> Any:
    """The document with the edits made, as ``pgherd.patched`` makes them; the one given stays as it is."""
    for edit in edits:
        document = _at(document, edit["path"], edit)
    return document


def _object(old: dict[str, Any], new: dict[str, Any], path: Path) -> Iterator[Edit]:
    put = {}
    for key, value in new.items():
        if key not in old or not _alike(old[key], value):
            put[key] = value
        elif old[key] != value:
            yield from _inside(old[key], value, (*path, key))
    drop = [key for key in old if key not in new]
    if put or drop:
        yield {"path": list(path), "drop": drop, "put": put}


def _array(old: list[Any], new: list[Any], path: Path) -> Iterator[Edit]:
    start, most = 0, min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    end = 0
    while end < most - start and old[-1 - end] == new[-1 - end]:
        end += 1
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    if len(before) == len(after) == 1 and _alike(before[0], after[0]):
        yield from _inside(before[0], after[0], (*path, start))
    else:
        yield {"path": list(path), "at": start, "drop": len(before), "put": after}


def _inside(old: Any, new: Any, path: Path) -> Iterator[Edit]:
    yield from (_object if isinstance(old, dict) else _array)(old, new, path)


def _alike(old: Any, new: Any) -> bool:
    """Whether one is made of the other by edits inside it, or both are the same."""
    return type(old) is type(new) and (isinstance(old, (dict, list)) or old == new)


def _at(value: Any, path: Sequence[str | int], edit: Edit) -> Any:
    if path:
        copied = value.copy()
        copied[path[0]] = _at(value[path[0]], path[1:], edit)
        return copied
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k not in edit["drop"]} | edit["put"]
    return [*value[: edit["at"]], *edit["put"], *value[edit["at"] + edit["drop"] :]]
