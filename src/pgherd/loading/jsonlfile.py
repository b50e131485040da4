"""JSON lines: one object a line. A key that is left out takes the column's default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..errors import BadInput
from .lines import Lines
from .records import Chunk, Part, Reject
from .source import Source


class JsonlReader:
    """Reads one file; ``lines_done`` counts lines. ``optional``: the columns for which left out means NULL."""

    total_rows: int | None = None
    names: tuple[str, ...] = ()

    def __init__(self, source: Source, optional: frozenset[str]) -> None:
        self._name = source.path.name
        self._lines = Lines(source.path, source.gzipped)
        self._optional = optional

    def chunks(self, lines_done: int, rows: int) -> Iterator[Chunk]:
        """See :class:`.records.Reader`."""
        self._lines.skip_to(lines_done)
        while True:
            before = self._lines.number
            lines, objects, rejects = self._read(rows)
            if self._lines.number == before:
                return
            yield Chunk(self._parts(lines, objects), rejects, self._lines.number, self._lines.bytes_done)

    def _read(self, rows: int) -> tuple[list[int], list[dict[str, Any]], list[Reject]]:
        lines: list[int] = []
        objects: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        for text in self._lines:
            number = self._lines.number
            if number in self._lines.undecoded:
                rejects.append(Reject(number, "bad_row", "the text is not UTF-8", text.rstrip("\r\n")))
            elif not text.isspace():
                try:
                    found = json.loads(text)
                except (ValueError, RecursionError) as error:
                    rejects.append(Reject(number, "bad_row", f"not JSON: {error}", text.rstrip("\r\n")))
                    found = None
                if isinstance(found, dict):
                    lines.append(number)
                    objects.append(found)
                elif not rejects or rejects[-1].line != number:
                    self._check_shape(found, number)
                    message = f"{type(found).__name__}, not an object"
                    rejects.append(Reject(number, "bad_row", message, text.rstrip("\r\n")))
            if len(objects) + len(rejects) >= rows:
                break
        return lines, objects, rejects

    def _check_shape(self, found: Any, number: int) -> None:
        if number == 1 and isinstance(found, list):
            raise BadInput(f"{self._name} is one JSON array", hint="write one object a line: jq -c '.[]'")

    def _parts(self, lines: list[int], objects: list[dict[str, Any]]) -> list[Part]:
        """Rows by the set of columns that they must have; the optional ones that occur among them are filled up."""
        groups: dict[frozenset[str], list[int]] = {}
        for i, found in enumerate(objects):
            groups.setdefault(frozenset(found) - self._optional, []).append(i)
        parts = []
        for members in groups.values():
            records = [objects[i] for i in members]
            names = dict.fromkeys(name for record in records for name in record)
            columns: dict[str, Any] = {name: [r.get(name) for r in records] for name in names}
            parts.append(Part([lines[i] for i in members], columns, records))
        return parts

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
