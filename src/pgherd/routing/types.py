"""SQL types as routing sees them: one name for each type that has many spellings, and its modifiers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

_SHAPE = re.compile(
    r"(?P<name>[a-z_][a-z0-9_ ]*?) ?(?:\((?P<modifiers>[-0-9, ]*)\))? ?(?P<zone>with(?:out)? time zone)?"
)

_NAMES = {
    "smallint": "smallint",
    "int2": "smallint",
    "smallserial": "smallint",
    "serial2": "smallint",
    "integer": "integer",
    "int": "integer",
    "int4": "integer",
    "serial": "integer",
    "serial4": "integer",
    "bigint": "bigint",
    "int8": "bigint",
    "bigserial": "bigint",
    "serial8": "bigint",
    "boolean": "boolean",
    "bool": "boolean",
    "text": "text",
    "character varying": "varchar",
    "varchar": "varchar",
    "character": "bpchar",
    "char": "bpchar",
    "bpchar": "bpchar",
    "bytea": "bytea",
    "uuid": "uuid",
    "date": "date",
    "time": "time",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "interval": "interval",
    "real": "real",
    "float4": "real",
    "double precision": "double precision",
    "float8": "double precision",
    "numeric": "numeric",
    "decimal": "numeric",
}

HASHABLE = frozenset(_NAMES.values())
"""The types whose partition hash does not depend on the server that computes it."""


@dataclass(frozen=True, slots=True)
class SqlType:
    """A type: ``name`` is one of ``HASHABLE``, or the text as it stands if routing doesn't know it (an enum, a domain).

    ``modifiers`` are what stands in parentheses: a length, a number of fractional digits, precision and scale.
    """

    name: str
    modifiers: tuple[int, ...] = ()

    @property
    def known(self) -> bool:
        """Whether routing knows how PostgreSQL stores and hashes it."""
        return self.name in HASHABLE

    @property
    def bare(self) -> SqlType:
        """What a value is read as in a comparison: nothing is cut or rounded, and any integer may be asked for."""
        if self.name in ("smallint", "integer"):
            return SqlType("bigint")
        return replace(self, modifiers=()) if self.known else self

    def __str__(self) -> str:
        return f"{self.name}({','.join(map(str, self.modifiers))})" if self.modifiers else self.name


@lru_cache(maxsize=1024)
def canonical_type(text: str) -> SqlType:
    """The type that SQL text such as ``varchar(20)``, ``int8`` or ``timestamp(3) with time zone`` names."""
    folded = " ".join(text.lower().split()).removeprefix("pg_catalog.")
    shape = _SHAPE.fullmatch(folded)
    if shape is None:
        return SqlType(text.strip())
    name, zone = shape["name"], shape["zone"]
    modifiers = tuple(int(m) for m in (shape["modifiers"] or "").split(",") if m.strip())
    if name == "float":  # SQL's float(p): p counts binary digits
        return SqlType("real" if modifiers and modifiers[0] <= 24 else "double precision")
    if name not in _NAMES or (zone and name not in ("time", "timestamp")) or (zone, name) == ("with time zone", "time"):
        return SqlType(text.strip())
    if name in ("character", "char") and not modifiers:
        modifiers = (1,)
    return SqlType("timestamptz" if zone == "with time zone" else _NAMES[name], modifiers)
