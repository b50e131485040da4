"""Values and bounds of partitions: written as PostgreSQL would print them, and checked against each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

from ..model.schema import HashBound, ListBound, Partition
from .source import Place

_TRUE, _FALSE = ("t", "true", "y", "yes", "on", "1"), ("f", "false", "n", "no", "off", "0")
_INTEGERS = {"smallint": 15, "integer": 31, "bigint": 63}
_DAY = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\Z")

HASHABLE = frozenset(
    {
        *_INTEGERS,
        "boolean",
        "text",
        "character varying",
        "character",
        "bpchar",
        "bytea",
        "uuid",
        "date",
        "interval",
        "numeric",
    }
    | {"real", "double precision", "time", "timestamp"}
)
"""Types whose partition hash is the same on every server; an enum's is made from its oid, which is not."""


def base_type(type_: str) -> str:
    """A type without its modifiers and time zone."""
    return "" if type_.endswith("]") else re.sub(r"\(.*\)| with(out)? time zone", "", type_)


def list_value(value: str, type_: str, labels: tuple[str, ...], place: Place) -> str:
    """A partition's value as a column of this type prints it; ``labels`` are the type's, if it is an enum."""
    if labels:
        if value not in labels:
            raise place.bad(f"{value!r} is no label of type {type_}", hint=f"labels: {', '.join(labels)}")
        return value
    base, _, modifier = type_.partition("(")
    if base == "character":
        return value.rstrip(" ").ljust(int(modifier.rstrip(")") or 1)) if modifier else value
    if base == "bpchar":
        return value.rstrip(" ")
    if base in ("text", "character varying", "name"):
        return value
    if type_ == "boolean":
        return _boolean(value, place)
    if type_ in _INTEGERS:
        if not re.fullmatch(r"\s*[+-]?\d+\s*", value) or int(value).bit_length() > _INTEGERS[type_]:
            raise place.bad(f"{value!r} is no {type_}", hint=f"write a value of type {type_}")
        return str(int(value))
    if type_ == "date":
        if not _DAY.match(value):
            raise place.bad(f"{value!r} is no date", hint="write it as YYYY-MM-DD")
        return value
    if type_ == "uuid":
        try:
            return str(UUID(value))
        except ValueError as e:
            raise place.bad(f"{value!r} is no uuid", hint="write 32 hexadecimal digits") from e
    raise place.bad(
        f"PARTITION BY LIST over a column of type {type_}",
        hint="use text, an enum, an integer type, boolean, date or uuid",
    )


def _boolean(value: str, place: Place) -> str:
    low = value.strip().lower()
    if low in _TRUE or low in _FALSE:
        return "true" if low in _TRUE else "false"
    raise place.bad(f"{value!r} is no boolean", hint="write true or false")


def check_siblings(partitions: Sequence[Partition], place_of: Callable[[Partition], Place]) -> None:
    """Partitions of one parent: no value twice, one DEFAULT, hash remainders complete. Raises BadSchema."""
    lists = [(p, p.bound) for p in partitions if isinstance(p.bound, ListBound)]
    hashes = [(p, p.bound) for p in partitions if isinstance(p.bound, HashBound)]
    seen: dict[str | None, Partition] = {}
    default: Partition | None = None
    for part, bound in lists:
        if bound.default and default is not None:
            raise place_of(part).bad(f"a second DEFAULT partition beside {default.name}", hint="keep one of the two")
        default = part if bound.default else default
        for value in bound.values:
            if value in seen:
                shown = "NULL" if value is None else repr(value)
                other = "this partition twice" if seen[value] is part else f"partition {seen[value].name} too"
                raise place_of(part).bad(f"value {shown} is in {other}", hint="a value belongs to one partition")
            seen[value] = part
    if hashes:
        _check_hashes(hashes, place_of)


def _check_hashes(parts: list[tuple[Partition, HashBound]], place_of: Callable[[Partition], Place]) -> None:
    for part, bound in parts:
        if not 0 <= bound.remainder < bound.modulus:
            raise place_of(part).bad(
                f"remainder {bound.remainder} with modulus {bound.modulus}",
                hint=f"a remainder is 0 to {max(bound.modulus - 1, 0)}",
            )
    moduli = sorted({b.modulus for _, b in parts})
    for small, large in pairwise(moduli):
        if large % small:
            part = next(p for p, b in parts if b.modulus == large)
            raise place_of(part).bad(
                f"modulus {large} is no multiple of modulus {small}", hint="use one modulus, or multiples of it"
            )
    for n, (part, bound) in enumerate(parts):
        for other, there in parts[:n]:
            if (bound.remainder - there.remainder) % min(bound.modulus, there.modulus) == 0:
                raise place_of(part).bad(f"it overlaps partition {other.name}", hint="give each its own remainder")
    if sum(Fraction(1, b.modulus) for _, b in parts) < 1:
        top = moduli[-1]
        missing = [r for r in range(top) if all(r % b.modulus != b.remainder for _, b in parts)]
        shown = ", ".join(str(r) for r in missing[:8]) + (" …" if len(missing) > 8 else "")
        raise place_of(parts[-1][0]).bad(
            f"rows have no partition: of modulus {top} the remainders {shown} are missing",
            hint="add the missing partitions, or leave all out and let pgherd choose",
        )
