"""What readers give: chunks of rows by column, each row with its line, and records that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..rows.batch import Values


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that can't be stored. ``row`` is what the file says: by column, or text where no columns could be told."""

    line: int
    code: str
    message: str
    row: Any


@dataclass(slots=True)
class Part:
    """Rows with the same columns. ``lines[i]`` is where row i begins; ``records[i]`` the row as read, if kept."""

    lines: Sequence[int]
    columns: dict[str, Values]
    records: Sequence[Any] | None = None

    def row(self, i: int) -> Any:
        """Row i as the file says it."""
        if self.records is not None:
            return self.records[i]
        return {name: _plain(values[i]) for name, values in self.columns.items()}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


@dataclass(slots=True)
class Chunk:
    """A stretch of the file. ``lines_done`` is where a later run goes on, ``bytes_done`` how much has been read."""

    parts: list[Part]
    rejects: list[Reject] = field(default_factory=list)
    lines_done: int = 0
    bytes_done: int = 0


class Reader(Protocol):
    """A file open for reading."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that the file says every row has; empty where each row says so itself."""
        ...

    @property
    def total_rows(self) -> int | None:
        """How many rows the file holds, where it says so."""
        ...

    def chunks(self, lines_done: int, rows: int) -> Iterator[Chunk]:
        """The rest of the file after ``lines_done``, at most ``rows`` records at a time."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...
