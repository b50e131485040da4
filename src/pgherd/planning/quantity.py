"""Numbers as people write them: ``10M`` rows, ``64GiB``. Pure."""

from __future__ import annotations

import re

from ..errors import BadInput

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_COUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([kmgbt]?)", re.IGNORECASE)
_BYTES = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)


def count_of(text: str) -> int:
    """``10M`` as a number; k, M, G (or B) and T are powers of a thousand. Raises BadInput."""
    found = _COUNT.fullmatch(text.strip())
    if found is None:
        raise BadInput(f"{text!r} is not a number", hint="write for example 250k, 10M or 2B")
    return round(_plain(found[1]) * _UNITS[found[2].lower()])


def bytes_of(text: str) -> int:
    """``64GiB`` (or ``64 GB``, ``64g``) as bytes; KiB, MiB, GiB, TiB are powers of 1,024. Raises BadInput."""
    found = _BYTES.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise BadInput(f"{text!r} is not a size", hint="write for example 512MiB or 64GiB")
    power = " kmgt".index(found[2].lower() or " ")
    return round(_plain(found[1]) * (1024.0 if found[3] else 1000.0) ** power)


def _plain(digits: str) -> float:
    return float(digits.replace(",", "").replace("_", ""))
