"""SQL types as statements use them: what a value may be cast to unharmed, and what is read back in binary."""

from __future__ import annotations

import re
from functools import lru_cache

import psycopg
from psycopg.pq import Format

_MODIFIERS = re.compile(r" ?\([-0-9, ]*\)")
_LENGTH_ONE = {"bit": "bit varying", "character": "bpchar", "char": "bpchar"}
_PGVECTOR_BINARY = frozenset({"vector", "halfvec", "sparsevec"})


@lru_cache(maxsize=1024)
def cast_type(type_text: str) -> str:
    """The type to cast a parameter to: without modifiers, since an explicit cast cuts what an assignment refuses.

    Source: PostgreSQL 18 manual, 8.3 Character Types and 8.10 Bit String Types.
    """
    element = type_text.removesuffix("[]")
    if element.startswith('"'):
        return type_text
    bare = _MODIFIERS.sub("", element)
    return _LENGTH_ONE.get(bare, bare) + type_text[len(element) :]


@lru_cache(maxsize=1024)
def reads_binary(type_text: str) -> bool:
    """Whether the driver turns the type's binary form into a Python value; it gives bytes for types it doesn't know."""
    name = cast_type(type_text).removesuffix("[]")
    if name in _PGVECTOR_BINARY:
        return not type_text.endswith("[]")
    info = psycopg.adapters.types.get(name)
    return info is not None and psycopg.adapters.get_loader(info.oid, Format.BINARY) is not None
