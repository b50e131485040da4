"""CSV with a header (RFC 4180): quoted fields may hold commas, quotes (doubled) and newlines.

An empty field is NULL and ``""`` the empty text, as COPY reads them (PostgreSQL 18, COPY, "CSV Format").
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from ..errors import BadInput
from .lines import Lines
from .records import Chunk, Part, Reject
from .source import Source

MAX_FIELD_CHARS = 64 << 20
_FIELD = re.compile(r'"(?:[^"]|"")*"|[^,\r\n]*')


class CsvReader:
    """Reads one CSV file; ``lines_done`` counts physical lines, the header included."""

    total_rows: int | None = None

    def __init__(self, source: Source) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
        self._name = source.path.name
        self._lines = Lines(source.path, source.gzipped)
        self._feed = _Feed(self._lines)
        self._reader = csv.reader(self._feed, strict=True)
        try:
            self.names = self._header()
        except BaseException:
            self._lines.close()
            raise

    def _header(self) -> tuple[str, ...]:
        try:
            names = tuple(n.strip() for n in next(self._reader, []))
        except csv.Error as error:
            raise BadInput(f"the header of {self._name} can't be read: {error}", hint="quote it as RFC 4180") from error
        if self._lines.undecoded:
            raise BadInput(f"{self._name} is not UTF-8 text (line 1)", hint="convert it: iconv -t UTF-8")
        if not names or not all(names):
            raise BadInput(f"{self._name} has no header", hint="its first line must name a column for every field")
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise BadInput(f"the header of {self._name} names {twice[0]!r} twice", hint="rename or drop one of them")
        self._feed.settle()
        return names

    def chunks(self, lines_done: int, rows: int) -> Iterator[Chunk]:
        """See :class:`.records.Reader`."""
        self._feed.skip_to(lines_done)
        while True:
            chunk = self._chunk(rows)
            if chunk is None:
                return
            yield chunk

    def _chunk(self, rows: int) -> Chunk | None:
        lines: list[int] = []
        records: list[list[str | None]] = []
        rejects: list[Reject] = []
        feed, width, before = self._feed, len(self.names), self._feed.done
        while len(lines) + len(rejects) < rows:
            line = feed.done + 1
            try:
                record = next(self._reader)
            except StopIteration:
                break
            except csv.Error as error:
                # An unclosed quote swallows the lines that follow: only its own line is bad.
                rejects.append(Reject(line, "bad_row", f"not CSV: {error}", feed.taken[0].rstrip("\r\n")))
                feed.give_back()
                continue
            problem = self._problem(record, width, line)
            if problem:
                rejects.append(Reject(line, "bad_row", problem, "".join(feed.taken).rstrip("\r\n")))
            elif record:
                records.append(_with_nulls(record, feed.taken) if "" in record else list(record))
                lines.append(line)
            feed.settle()
        if feed.done == before:
            return None
        columns: dict[str, Any] = dict(zip(self.names, map(list, zip(*records, strict=True)), strict=bool(records)))
        parts = [Part(lines, columns)] if records else []
        return Chunk(parts, rejects, feed.done, self._lines.bytes_done)

    def _problem(self, record: list[str], width: int, line: int) -> str:
        if self._lines.undecoded and not self._lines.undecoded.isdisjoint(range(line, line + len(self._feed.taken))):
            return "the text is not UTF-8"
        if record and len(record) != width:
            return f"{len(record)} fields, the header has {width}"
        return ""

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


class _Feed:
    """Lines on their way into the csv module: remembers those of the record under way, and takes them back."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self.done = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        return line

    def settle(self) -> None:
        """The record is complete."""
        self.done += len(self.taken)
        self.taken = []

    def give_back(self) -> None:
        """Only the first line belongs to the record; the others are read again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]
        self.settle()

    def skip_to(self, line: int) -> None:
        self._lines.skip_to(line)
        self.done = max(self.done, self._lines.number)


def _with_nulls(record: list[str], lines: list[str]) -> list[str | None]:
    text = "".join(lines)
    if '""' not in text:
        return [field or None for field in record]
    found: list[str | None] = []
    at = 0
    for field in record:
        match = _FIELD.match(text, at)
        assert match is not None  # the pattern matches the empty text
        found.append(None if match.group() == "" else field)
        at = match.end() + 1
    return found
