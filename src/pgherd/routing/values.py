"""One Python value as the datum that PostgreSQL would store: what is hashed, and what is compared with list bounds.

Equal datums are values that PostgreSQL's ``=`` finds equal; that is why a datum is not simply the value:
- integers, booleans: int; dates: days since 2000-01-01; timestamps: microseconds since then; times, intervals: theirs
- text, varchar, bpchar, bytea: bytes (UTF-8; bpchar without trailing blanks); uuid: its 16 bytes
- real, double precision: the 8 bytes of the double, -0 and NaN made one with 0 and the standard NaN
- numeric: Decimal
A value is cut and rounded to the type's modifiers as an assignment does. Anything ambiguous is refused with BadRow
rather than guessed: a wrong guess would send the row to the wrong home, where PostgreSQL refuses it with less to say.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Any
from uuid import UUID

import numpy as np

from ..errors import BadInput, BadRow
from .types import SqlType

Datum = int | bytes | Decimal | str

INTEGER_BITS = {"smallint": 16, "integer": 32, "bigint": 64}
EPOCH = datetime(2000, 1, 1)
EPOCH_UTC = EPOCH.replace(tzinfo=UTC)
EPOCH_DAY = EPOCH.date().toordinal()
NAN_BYTES = struct.pack("<Q", 0x7FF8000000000000)

_NAN = Decimal("NaN")
"""The one NaN: a dictionary finds it by its identity, for it equals nothing."""
_MICROSECOND = timedelta(microseconds=1)
_TIMESTAMP = re.compile(
    r"\s*(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))?\s*(Z|z|UTC|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?\s*"
)
_TRUE = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"})
_FALSE = frozenset({"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"})


def datum(kind: SqlType, value: Any) -> Datum:
    """``value`` (not None) as a column of type ``kind`` would store it.

    Raises:
        BadRow: the value doesn't fit the type, or which value PostgreSQL would store depends on the session.
        BadInput: equality of the type depends on the server (citext).
    """
    if isinstance(value, np.generic):
        value = _plain(kind, value)
    try:
        return _CONVERT.get(kind.name, _opaque)(kind, value)
    except (ValueError, TypeError, AttributeError, OverflowError, InvalidOperation) as e:
        raise BadRow(f"{shown(value)} is not a {kind}", hint=f"give a value of type {kind}") from e


def is_null(value: Any) -> bool:
    """Whether a value stands for NULL: None, or numpy's not-a-time."""
    return value is None or (isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value)))


def shown(value: Any) -> str:
    """A value for a message, cut to a length that a reader will read."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(kind: SqlType, value: np.generic) -> Any:
    if isinstance(value, np.datetime64 | np.timedelta64):
        exact = value.astype("M8[us]" if isinstance(value, np.datetime64) else "m8[us]")
        if exact != value:
            raise BadRow(f"{value} is not a {kind}", hint="PostgreSQL keeps microseconds: round the value first")
        return exact.item()
    return value.item()


def _integer(kind: SqlType, value: Any) -> int:
    if isinstance(value, float | Decimal) and value != int(value):
        raise ValueError(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise TypeError(type(value))
    number = int(value)
    if not -(1 << INTEGER_BITS[kind.name] - 1) <= number < 1 << INTEGER_BITS[kind.name] - 1:
        raise BadRow(f"{shown(value)} is out of range for {kind}", hint="change the value or the column's type")
    return number


def _boolean(kind: SqlType, value: Any) -> int:
    if isinstance(value, str):
        word = value.strip().lower()
        if word not in _TRUE and word not in _FALSE:
            raise ValueError(value)
        return int(word in _TRUE)
    if not isinstance(value, bool):
        raise TypeError(type(value))
    return int(value)


def _text(value: Any) -> str:
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(type(value))
    if "\0" in value:
        raise BadRow(f"{shown(value)} holds a NUL character", hint="PostgreSQL's text cannot store NUL: remove it")
    return value


def _character(kind: SqlType, value: Any) -> bytes:
    text = _text(value)
    if kind.modifiers and len(text) > kind.modifiers[0]:
        cut, rest = text[: kind.modifiers[0]], text[kind.modifiers[0] :]
        if rest.strip(" "):
            raise BadRow(f"{shown(value)} is too long for {kind}", hint="shorten it or widen the column")
        text = cut  # SQL lets an assignment drop blanks that don't fit
    return (text.rstrip(" ") if kind.name == "bpchar" else text).encode()


def _bytea(kind: SqlType, value: Any) -> bytes:
    if isinstance(value, str):
        if not value.startswith("\\x"):
            raise ValueError(value)
        return bytes.fromhex(value[2:])
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(type(value))
    return bytes(value)


def _uuid(kind: SqlType, value: Any) -> bytes:
    return value.bytes if isinstance(value, UUID) else UUID(value).bytes


def _date(kind: SqlType, value: Any) -> int:
    if isinstance(value, str):
        value = date.fromisoformat(value.strip())
    if isinstance(value, datetime) and value.tzinfo is not None:
        raise BadRow(
            f"{shown(value)} as a date depends on the session's time zone",
            hint="give a date: value.date() where it counts",
        )
    return int(value.toordinal()) - EPOCH_DAY


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        parts = _TIMESTAMP.fullmatch(value)
        if parts is None:
            raise ValueError(value)
        zone = "+00:00" if parts[3] in ("Z", "z", "UTC") else parts[3] or ""
        return datetime.fromisoformat(f"{parts[1]}T{parts[2] or '00:00'}{zone}")
    if isinstance(value, datetime):
        if getattr(value, "nanosecond", 0):
            raise BadRow(f"{shown(value)} has nanoseconds", hint="PostgreSQL keeps microseconds: round the value first")
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    raise TypeError(type(value))


def _timestamp(kind: SqlType, value: Any) -> int:
    moment = _moment(value)
    if isinstance(value, str):
        moment = moment.replace(tzinfo=None)  # as PostgreSQL reads it: a zone in the text is skipped
    if moment.tzinfo is not None:
        raise BadRow(
            f"{shown(value)} as a {kind} depends on the session's time zone",
            hint="give a datetime without tzinfo, or make the column timestamptz",
        )
    return _rounded((moment - EPOCH) // _MICROSECOND, kind)


def _timestamptz(kind: SqlType, value: Any) -> int:
    moment = _moment(value)
    if moment.tzinfo is None:
        raise BadRow(
            f"{shown(value)} as a {kind} depends on the session's time zone",
            hint="give it a time zone: datetime(..., tzinfo=timezone.utc), or +00 at the end of the text",
        )
    return _rounded((moment - EPOCH_UTC) // _MICROSECOND, kind)


def _time(kind: SqlType, value: Any) -> int:
    if isinstance(value, str):
        value = time.fromisoformat(value.strip())
    if not isinstance(value, time) or value.tzinfo is not None:
        raise TypeError(type(value))
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return _rounded(seconds * 1_000_000 + value.microsecond, kind)


def _interval(kind: SqlType, value: Any) -> int:
    if not isinstance(value, timedelta):
        raise TypeError(type(value))
    return _rounded(value // _MICROSECOND, kind)


def _rounded(microseconds: int, kind: SqlType) -> int:
    """Halves away from zero, counted from the epoch, as AdjustTimestampForTypmod does."""
    if not kind.modifiers or kind.modifiers[0] >= 6:
        return microseconds
    unit = int(10 ** (6 - kind.modifiers[0]))
    size = (abs(microseconds) + unit // 2) // unit * unit
    return size if microseconds >= 0 else -size


def _float(kind: SqlType, value: Any) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise TypeError(type(value))
    number = float(value)
    if kind.name == "real":
        with np.errstate(over="ignore"):
            narrow = float(np.float32(number))
        if math.isinf(narrow) != math.isinf(number) or (narrow == 0) != (number == 0):
            raise BadRow(f"{shown(value)} is out of range for {kind}", hint="change the value or the column's type")
        number = narrow
    return NAN_BYTES if math.isnan(number) else struct.pack("<d", number + 0.0)


def _numeric(kind: SqlType, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise TypeError(type(value))  # a float's digits are the server's choice
    number = Decimal(value.strip() if isinstance(value, str) else value)
    if number.is_nan():
        return _NAN
    if not kind.modifiers or number.is_infinite():
        return number
    scale = kind.modifiers[1] if len(kind.modifiers) > 1 else 0
    with localcontext(prec=200_000):
        number = number.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)
    if number and number.adjusted() >= kind.modifiers[0] - scale:
        raise BadRow(f"{shown(value)} is out of range for {kind}", hint="change the value or the column's type")
    return number


def _opaque(kind: SqlType, value: Any) -> str:
    if kind.name.rpartition(".")[2] == "citext":
        raise BadInput(
            "whether two citext values are equal depends on the server's collation",
            hint="partition by a text column, for example lower(name) stored in a column of its own",
        )
    return _text(value)


_CONVERT: dict[str, Callable[[SqlType, Any], Datum]] = {
    "smallint": _integer,
    "integer": _integer,
    "bigint": _integer,
    "boolean": _boolean,
    "text": _character,
    "varchar": _character,
    "bpchar": _character,
    "bytea": _bytea,
    "uuid": _uuid,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "interval": _interval,
    "real": _float,
    "double precision": _float,
    "numeric": _numeric,
}
