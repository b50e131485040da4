"""Where a statement stands in the schema file: every complaint begins with file, line and column."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadSchema, ResidencyRefused, SyntaxProblem


@dataclass(frozen=True, slots=True)
class Source:
    """A schema file: its name, for messages, and its text."""

    file: str
    text: str

    def at(self, offset: int) -> str:
        """``file:line:column`` (both from 1, columns in characters) of a character offset."""
        line = self.text.count("\n", 0, offset) + 1
        column = offset - self.text.rfind("\n", 0, offset)
        return f"{self.file}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class Place:
    """A statement, or a part of it, that something can be wrong with."""

    source: Source
    offset: int
    words: str
    """the statement's first words; they never hold a string constant, so never a password"""

    @property
    def where(self) -> str:
        """``file:line:column``."""
        return self.source.at(self.offset)

    def bad(self, message: str, *, hint: str = "") -> BadSchema:
        """The error that says so."""
        return BadSchema(f"{self.where}: {self.words}: {message}", hint=hint)

    def refused(self, message: str, *, hint: str = "") -> ResidencyRefused:
        """The error for policies that contradict each other: rows would leave where they must stay."""
        return ResidencyRefused(f"{self.where}: {self.words}: {message}", hint=hint)

    def syntax(self, message: str, *, hint: str = "") -> SyntaxProblem:
        """The error for text that isn't SQL."""
        return SyntaxProblem(f"{self.where}: {self.words}: {message}", hint=hint)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the file, its YugabyteDB-only clauses taken out and kept beside it.

    ``sql`` is as long as the original text from ``start`` on, so that a position in it is a position in the file.
    """

    source: Source
    start: int
    sql: str
    words: str
    tablets: int | None = None
    """n of ``SPLIT INTO n TABLETS``"""
    tablets_at: int = 0
    hashed: tuple[str, ...] | None = None
    """the columns that a primary key marks HASH; empty: the key's only column; None: no HASH there"""
    placement: bool = False
    """a CREATE TABLESPACE … WITH, written as ALTER TABLESPACE … SET so that libpg_query reads it"""

    def place(self, location: int | None = None) -> Place:
        """The place of a node's ``location``; of the statement without one."""
        offset = self.start if location is None or location < 0 else self.start + location
        return Place(self.source, offset, self.words)
