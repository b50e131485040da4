"""The words of a hybrid search: which text they are looked for in, and in which language's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from pglast import ast, parse_sql
from pglast.parser import ParseError
from pglast.visitors import Visitor

from ..errors import BadInput
from ..model.names import quote_ident, quote_literal
from ..model.schema import Column, Index, Table
from ..rows.types import cast_type

DEFAULT_CONFIG = "english"
_TEXT = frozenset({"text", "character varying", "varchar", "bpchar", "citext"})


class Document(NamedTuple):
    """What words are matched with: a ``tsvector`` expression over a table's columns, and its configuration."""

    expression: str
    config: str


class Words(NamedTuple):
    """What a hybrid search adds to a search: the words (websearch syntax), where to look, and how many rows to give."""

    text: str
    document: Document
    k: int


def words_of(question: Any, hybrid: bool | str, model: object) -> str | None:
    """The words of a search: ``hybrid`` itself, or the question if it is in words (it needs a model then)."""
    if not hybrid or isinstance(hybrid, str):
        return hybrid or None
    if model is None:
        raise BadInput("a hybrid search needs words", hint="ask in words, or give them as hybrid='…' with a vector")
    return str(question)


class _Reading(NamedTuple):
    columns: frozenset[str]
    config: str | None


def document_of(
    table: Table, indexes: tuple[Index, ...], vector: Column, name: str | None, config: str | None
) -> Document:
    """Where the words are looked for: in text column ``name``, or in the one that goes with the vector column.

    Uses, in this order, a tsvector column generated from it, an indexed expression over it, or the text itself.
    Without a name it is the text that the vector is computed from, else the only tsvector or text column.
    Raises BadInput with the choices.
    """
    if name is None:
        name = next((e.text_column for e in table.embeddings if e.vector_column == vector.name), None)
    column = _only(table) if name is None else _named(table, name)
    ident = quote_ident(column.name)
    if column.type == "tsvector":
        made = _reading(column.generated) if column.generated else None
        return Document(ident, config or (made and made.config) or DEFAULT_CONFIG)
    for expression, source in _prepared(table, indexes):
        reading = _reading(source)
        if reading and column.name in reading.columns and config in (None, reading.config):
            return Document(expression, reading.config or DEFAULT_CONFIG)
    config = config or DEFAULT_CONFIG
    return Document(f"to_tsvector({quote_literal(config)}, {ident})", config)


def _prepared(table: Table, indexes: tuple[Index, ...]) -> Iterator[tuple[str, str]]:
    """Expressions that the servers keep ready, each with the text that says what is in it."""
    for column in table.columns:
        if column.type == "tsvector" and column.generated:
            yield quote_ident(column.name), column.generated
    for index in indexes:
        if index.method in ("gin", "gist") and len(index.elements) == 1 and index.where is None and not index.columns:
            yield f"({index.elements[0]})", index.elements[0]


def _named(table: Table, name: str) -> Column:
    column = table.column(name)
    if column is None or not (_is_text(column) or column.type == "tsvector"):
        what = "no column" if column is None else "no text in column"
        raise BadInput(f"table {table.name} has {what} {name!r}", hint=f"text columns: {_choices(table)}")
    return column


def _only(table: Table) -> Column:
    """The only tsvector column, or the only text column; texts that identify rows or place them are not prose."""
    keys = {*table.primary_key, *table.partition_columns}
    texts = [c for c in table.columns if _is_text(c)]
    for found in ([c for c in table.columns if c.type == "tsvector"], [c for c in texts if c.name not in keys], texts):
        if len(found) == 1:
            return found[0]
    what = "several text columns" if texts else "no text column"
    raise BadInput(f"table {table.name} has {what}", hint=f"name one with text_column: {_choices(table)}")


def _is_text(column: Column) -> bool:
    return cast_type(column.type).rsplit(".", 1)[-1] in _TEXT


def _choices(table: Table) -> str:
    return ", ".join(c.name for c in table.columns if _is_text(c) or c.type == "tsvector") or "none"


@lru_cache(maxsize=256)
def _reading(expression: str) -> _Reading | None:
    """The columns that a ``to_tsvector`` expression reads and the configuration it names; None for any other."""
    columns: set[str] = set()
    configs: list[str | None] = []

    class Reader(Visitor):
        def visit_ColumnRef(self, _: Any, node: Any) -> None:
            columns.add(getattr(node.fields[-1], "sval", ""))

        def visit_FuncCall(self, _: Any, node: Any) -> None:
            if node.funcname[-1].sval == "to_tsvector":
                configs.append(_config(node.args))

    try:
        Reader()(parse_sql(f"SELECT {expression}"))
    except ParseError:
        return None
    return _Reading(frozenset(columns), configs[0]) if configs else None


def _config(arguments: Any) -> str | None:
    if len(arguments) < 2:
        return None
    first = arguments[0].arg if isinstance(arguments[0], ast.TypeCast) else arguments[0]
    return getattr(getattr(first, "val", None), "sval", None)
