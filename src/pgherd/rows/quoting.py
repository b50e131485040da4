"""Names in statements that have parameters: the driver reads any percent sign as a placeholder, in quotes or not."""

from __future__ import annotations

from psycopg import sql

from ..model.names import Name, quote_ident


def escaped(text: str) -> str:
    """SQL text without placeholders, for a statement with parameters."""
    return text.replace("%", "%%")


def identifier(name: str | Name) -> sql.SQL:
    """A name, for a statement with parameters."""
    return sql.SQL(escaped(name.sql if isinstance(name, Name) else quote_ident(name)))
