"""SQL names and literals: how they are written so that PostgreSQL reads back exactly what was meant."""

from __future__ import annotations

import re
from typing import NamedTuple

from pglast.keywords import COL_NAME_KEYWORDS, RESERVED_KEYWORDS, TYPE_FUNC_NAME_KEYWORDS

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")
_KEYWORDS = frozenset(RESERVED_KEYWORDS) | frozenset(COL_NAME_KEYWORDS) | frozenset(TYPE_FUNC_NAME_KEYWORDS)

MAX_IDENTIFIER_BYTES = 63
"""PostgreSQL's NAMEDATALEN - 1: longer identifiers are cut by the server."""


def quote_ident(name: str) -> str:
    """``name`` as an SQL identifier, quoted where PostgreSQL needs it."""
    if _PLAIN.match(name) and name not in _KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """``value`` as an SQL string literal, safe with any ``standard_conforming_strings``."""
    if "\\" in value:
        return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


def comma_idents(names: tuple[str, ...] | list[str]) -> str:
    """``a, b, "C"``: a column list."""
    return ", ".join(quote_ident(n) for n in names)


class Name(NamedTuple):
    """A schema-qualified name of a table, index or other relation."""

    schema: str
    name: str

    @property
    def sql(self) -> str:
        """The qualified name as SQL."""
        return f"{quote_ident(self.schema)}.{quote_ident(self.name)}"

    def __str__(self) -> str:
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Name:
        """Read ``table``, ``schema.table`` or their quoted forms, folding case as PostgreSQL does."""
        parts = re.findall(r'"(?:[^"]|"")*"|[^.]+', text.strip())
        clean = [p[1:-1].replace('""', '"') if p.startswith('"') else _folded(p) for p in parts]
        return cls("public", clean[0]) if len(clean) == 1 else cls(clean[-2], clean[-1])


def _folded(name: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in name)


def derived_name(base: str, suffix: str) -> str:
    """``base`` + ``suffix``, the base cut so that the whole fits into an identifier."""
    room = MAX_IDENTIFIER_BYTES - len(suffix.encode())
    return base.encode()[:room].decode(errors="ignore") + suffix
