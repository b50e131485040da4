"""One column as a file gives it, as values that COPY takes: each is read, or named as bad with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.wire import HALF_MAX
from ..errors import BadInput, BadRow
from ..model.schema import Column, VectorType
from ..routing.columns import column_datums
from ..routing.types import SqlType, canonical_type
from ..routing.values import datum
from ..rows.batch import Values

Problem = tuple[str, str]
"""Error code and message."""
Problems = dict[int, Problem]
"""By row."""

_TEXT = SqlType("text")


def convert(column: Column, values: Values, *, json_values: bool) -> tuple[Values, Problems]:
    """The values of ``column``, and what is wrong with those that can't be stored (None stands in their place).

    ``json_values``: a string for a JSON column is a string, not JSON text. Texts are read as PostgreSQL reads them,
    except that dates and times must be ISO 8601, and a timestamp without an offset is UTC in a timestamptz column.
    """
    if column.vector:
        if column.vector[0] in (VectorType.VECTOR, VectorType.HALFVEC):
            return _vectors(column, values)
        return _each(column, values, _text_or_none)
    kind = canonical_type(column.type)
    if kind.name in ("json", "jsonb"):
        return _each(column, values, _json_string if json_values else _json_text)
    read = _READ.get(kind.name)
    if not kind.known or kind.name == "interval":
        read = _opaque
    problems: Problems = {}
    if read is not None and not isinstance(values, np.ndarray):
        values, problems = _each(column, values, read)
    if kind.known and kind.name != "interval":
        values, more = _stored(kind, column, values)
        problems |= more
    return values, problems


def _each(column: Column, values: Values, read: Callable[[Any], Any]) -> tuple[Values, Problems]:
    try:
        return [None if v is None else read(v) for v in values], {}
    except (ValueError, TypeError, ArithmeticError, BadRow):
        pass
    found: list[Any] = []
    problems: Problems = {}
    for i, value in enumerate(values):
        try:
            found.append(None if value is None else read(value))
        except (ValueError, TypeError, ArithmeticError, BadRow) as error:
            found.append(None)
            reason = error.message if isinstance(error, BadRow) else f"not a value of type {column.type}"
            problems[i] = ("bad_row", f"column {column.name}: {reason}")
    return found, problems


def _stored(kind: SqlType, column: Column, values: Values) -> tuple[Values, Problems]:
    """Let routing, which knows what PostgreSQL stores, look at every value."""
    try:
        column_datums(kind, values)
    except BadInput:
        pass
    else:
        return values, {}
    problems: Problems = {}
    kept = list(values)
    for i, value in enumerate(kept):
        try:
            if value is not None:
                datum(kind, value)
        except BadInput as error:
            kept[i] = None
            problems[i] = ("bad_row", f"column {column.name}: {error.message}")
    return kept, problems


# one value


def _integer(value: Any) -> Any:
    if isinstance(value, str):
        if "_" in value:  # Python's own spelling
            raise ValueError
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _float(value: Any) -> Any:
    if isinstance(value, str) and "_" in value:
        raise ValueError
    return value if isinstance(value, bool) else float(value)


def _decimal(value: Any) -> Any:
    if isinstance(value, str) and "_" in value:
        raise ValueError
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value) if isinstance(value, str) else value


def _boolean(value: Any) -> Any:
    return datum(SqlType("boolean"), value) == 1 if isinstance(value, str) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _timestamp(value: Any) -> Any:
    return datetime.fromisoformat(value.strip()).replace(tzinfo=None) if isinstance(value, str) else value


def _timestamptz(value: Any) -> Any:
    moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) and moment.tzinfo is None else moment


def _opaque(value: Any) -> Any:
    """Of a type that only the server knows."""
    if isinstance(value, dict):
        raise TypeError
    return _text_or_none(value) if isinstance(value, str) else value


def _text_or_none(value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError
    datum(_TEXT, value)
    return value


def _json_text(value: Any) -> str:
    if not isinstance(value, str):
        return _json_string(value)
    json.loads(value, parse_constant=_no_constant)
    return value


def _json_string(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _no_constant(name: str) -> None:
    raise ValueError(name)


_READ: dict[str, Callable[[Any], Any]] = {
    "smallint": _integer,
    "integer": _integer,
    "bigint": _integer,
    "real": _float,
    "double precision": _float,
    "numeric": _decimal,
    "boolean": _boolean,
    "text": _text,
    "varchar": _text,
    "bpchar": _text,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}


# vectors


def _vectors(column: Column, values: Values) -> tuple[Values, Problems]:
    assert column.vector is not None
    kind, dim = column.vector
    limit = HALF_MAX if kind is VectorType.HALFVEC else float(np.finfo(np.float32).max)
    problems: Problems = {}
    if not isinstance(values, np.ndarray):
        values, problems = _each(column, values, _vector)
        if not problems and len({len(v) if v is not None else 0 for v in values}) == 1 and values[0] is not None:
            values = np.stack(values)  # type: ignore[arg-type]
    if isinstance(values, np.ndarray) and values.ndim == 2:
        if dim is not None and values.shape[1] != dim:
            wrong = _wrong_length(column, values.shape[1])
            return [None] * len(values), dict.fromkeys(range(len(values)), wrong)
        if not values.size or (values.max() <= limit and values.min() >= -limit):  # takes no room; false for NaN
            return values, {}
        bad = np.flatnonzero(~_usable(values, limit)).tolist()
        return values, {i: _not_finite(column) for i in bad}
    for i, vector in enumerate(values):
        if vector is None:
            continue
        if not len(vector) or (dim is not None and len(vector) != dim):
            problems[i] = _wrong_length(column, len(vector))
        elif not _usable(vector, limit):
            problems[i] = _not_finite(column)
    return [None if i in problems else v for i, v in enumerate(values)], problems


def _usable(array: NDArray[np.float32], limit: float) -> Any:
    # One comparison finds NaN and infinity too, and reads a vector once.
    return (np.abs(array) <= limit).all(axis=-1)


def _wrong_length(column: Column, length: int) -> Problem:
    wanted = column.vector[1] if column.vector else None
    return "dimension_mismatch", f"column {column.name}: {length} dimensions, the column has {wanted or 'at least 1'}"


def _not_finite(column: Column) -> Problem:
    half = " or a number beyond halfvec" if column.vector and column.vector[0] is VectorType.HALFVEC else ""
    return "bad_row", f"column {column.name}: the vector holds NaN or infinity{half}"


def _vector(value: Any) -> NDArray[np.float32]:
    if isinstance(value, str):
        text = value.strip()
        if not (text.startswith("[") and text.endswith("]")):
            raise ValueError
        try:
            value = json.loads(text)
        except ValueError:  # numbers that PostgreSQL reads and JSON doesn't: .5, +1
            value = [float(number) for number in text[1:-1].split(",")]
    with np.errstate(over="ignore"):
        array = np.asarray(value, np.float32)
    if array.ndim != 1 or isinstance(value, dict):
        raise ValueError
    return array
