"""SQL text -> model: PostgreSQL, YugabyteDB and Citus definitions, parsed by libpg_query. Pure: no I/O."""

from __future__ import annotations

from ..errors import SyntaxProblem
from ..model.schema import Schema
from .build import build
from .render import render
from .source import Source

__all__ = ["parse", "render"]


def parse(text: str, *, file: str = "schema.sql") -> Schema:
    """The schema that a file's text says; ``file`` is its name in messages.

    Raises SyntaxProblem where the text is not SQL, and BadSchema where it says something that can't work; both begin
    with ``file:line:column`` and the statement's first words.
    """
    source = Source(file, text.replace("\ufeff", " ", 1) if text.startswith("\ufeff") else text)
    if (at := text.find("\0")) >= 0:
        raise SyntaxProblem(f"{source.at(at)}: a NUL character: this is not a text file")
    return build(source)
