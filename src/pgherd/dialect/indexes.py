"""CREATE INDEX -> Index: YugabyteDB's methods under PostgreSQL's names, unnamed indexes named as PostgreSQL does."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from pglast import ast
from pglast.enums import CoercionForm, SortByDir, SortByNulls
from pglast.parser import ParseError, parse_sql

from ..model.names import Name, derived_name, quote_ident
from ..model.schema import Index
from .drafts import Draft, IndexDraft, TableDraft
from .source import Place, Statement
from .text import bare_type, expression, option_text, relation, strings

_METHODS = {"ybhnsw": "hnsw", "lsm": "btree", "ybgin": "gin"}
_WORD = re.compile(r"[A-Za-z0-9_.+-]+")
_KNOWN = ("btree", "hash", "gin", "gist", "spgist", "brin", "hnsw", "ivfflat")


def create_index(draft: Draft, node: Any, statement: Statement) -> None:
    """CREATE [UNIQUE] INDEX. Raises BadSchema."""
    place = statement.place()
    table = draft.table(relation(node.relation, place), place)
    method = _METHODS.get(node.accessMethod or "btree", node.accessMethod or "btree")
    if method not in _KNOWN:
        raise place.bad(f"index method {method!r}", hint=f"methods: {', '.join(_KNOWN)}")
    elements = [_without_hash(p) for p in node.indexParams]
    name = Name(table.name.schema, node.idxname or _choose_name(draft, table.name, elements, bool(node.unique)))
    index = Index(
        name=name,
        table=table.name,
        method=method,
        elements=tuple(_element(e, place) for e in elements),
        columns=tuple(e.name for e in elements if e.name),
        unique=bool(node.unique),
        nulls_not_distinct=bool(node.nulls_not_distinct),
        include=tuple(e.name for e in node.indexIncludingParams or ()),
        options=tuple(sorted(_option(o, statement) for o in node.options or ())),
        where=expression(node.whereClause, place) if node.whereClause else None,
        opclass=_opclass(elements[0]),
    )
    _need_columns(draft, table, index, place)
    if draft.make_relation(name, place, if_not_exists=bool(node.if_not_exists)):
        draft.items.append(IndexDraft(index, place, node.tableSpace))


def _option(node: Any, statement: Statement) -> tuple[str, str]:
    """A storage parameter; its value is a number or a word, which needs no quotes."""
    value = option_text(node.arg)
    if node.defnamespace or not _WORD.fullmatch(node.defname) or not _WORD.fullmatch(value):
        raise statement.place(node.location).bad(
            f"storage parameter {node.defname} = {value}", hint="write name = number or name = word"
        )
    return node.defname, value


def copy_indexes(draft: Draft, source: Name, target: Name, place: Place) -> None:
    """The indexes of ``source`` once more on ``target`` (LIKE … INCLUDING INDEXES), with names of their own."""
    for item in [i for i in draft.items if isinstance(i, IndexDraft) and i.index.table == source]:
        words = list(item.index.columns) or ["expr"]
        name = Name(target.schema, free_name(draft, target, words, item.index.unique))
        draft.make_relation(name, place)
        draft.items.append(IndexDraft(replace(item.index, name=name, table=target), place, item.tablespace))


def _need_columns(draft: Draft, table: TableDraft, index: Index, place: Place) -> None:
    owner = table
    while owner.parent is not None:
        owner = draft.tables[owner.parent]
    for column in (*index.columns, *index.include):
        owner.column(column, place)


def _without_hash(element: Any) -> Any:
    """``a HASH`` is read as operator class hash: PostgreSQL's btree finds equal values as well."""
    if strings(element.opclass) == ("hash",):
        element.opclass = None
    return element


def _element(element: Any, place: Place) -> str:
    if element.name:
        text = quote_ident(element.name)
    else:
        text = expression(element.expr, place)
        plain = isinstance(element.expr, ast.FuncCall) and element.expr.funcformat == CoercionForm.COERCE_EXPLICIT_CALL
        text = text if plain and _reads_bare(text) else f"({text})"
    if element.collation:
        text += " COLLATE " + ".".join(quote_ident(c) for c in strings(element.collation) if c != "pg_catalog")
    if element.opclass:
        text += " " + (_opclass(element) or "")
        if element.opclassopts:
            text += "(" + ", ".join(f"{o.defname} = {option_text(o.arg)}" for o in element.opclassopts) + ")"
    descending = element.ordering == SortByDir.SORTBY_DESC
    text += " DESC" if descending else ""
    usual = SortByNulls.SORTBY_NULLS_FIRST if descending else SortByNulls.SORTBY_NULLS_LAST
    if element.nulls_ordering not in (None, SortByNulls.SORTBY_NULLS_DEFAULT, usual):
        text += " NULLS LAST" if descending else " NULLS FIRST"
    return text


def _reads_bare(text: str) -> bool:
    """Whether an index element needs no parentheses around this expression."""
    try:
        parse_sql(f"CREATE INDEX ON t ({text})")
    except ParseError:
        return False
    return True


def _opclass(element: Any) -> str | None:
    """The operator class's name; ``public.`` and ``pg_catalog.`` are left out as for a type."""
    names = [n for n in strings(element.opclass) if n != "pg_catalog"]
    return bare_type(tuple(names)) if names else None


def _choose_name(draft: Draft, table: Name, elements: list[Any], unique: bool) -> str:
    return free_name(draft, table, [_label(e) for e in elements], unique)


def free_name(draft: Draft, table: Name, words: list[str], unique: bool) -> str:
    """``table_col_col_idx``, numbered until no relation of the schema has it (indexcmds.c, ChooseIndexName)."""
    suffix = "_key" if unique else "_idx"
    base = "_".join((table.name, *words))
    name, n = derived_name(base, suffix), 0
    while ("relation", Name(table.schema, name).sql) in draft.made:
        n += 1
        name = derived_name(base, f"{suffix}{n}")
    return name


def _label(element: Any) -> str:
    if element.name:
        return str(element.name)
    return strings(element.expr.funcname)[-1] if isinstance(element.expr, ast.FuncCall) else "expr"
