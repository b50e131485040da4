"""What must hold of texts before they are embedded, and of vectors before they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRow, DimensionMismatch

Vectors = NDArray[np.float32]


def check_texts(texts: Sequence[str]) -> None:
    """Raise BadRow, naming the first, if a text is empty or not a text: no meaning can be searched for in it."""
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadRow(f"text {i} is a {type(text).__name__}", hint="embed texts only; leave rows without one out")
        if not text or text.isspace():
            raise BadRow(
                f"text {i} is empty: it has no vector",
                hint="leave the vector NULL for rows without text, or give them some",
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRow(
                f"text {i} is not valid Unicode", hint="it holds half of a surrogate pair: decode it again"
            ) from None


def check_vectors(vectors: Any, dim: int | None, where: str) -> Vectors:
    """``vectors`` as (n, dim) float32, C-contiguous; ``dim`` None takes any width. ``where`` names them in an error.

    Raises:
        DimensionMismatch: their width is not ``dim``, or they differ in width.
        BadRow: a component is no number, or NaN or infinite (beyond float32 too).
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.ascontiguousarray(vectors, np.float32)
    except (ValueError, TypeError) as e:
        widths = _widths(vectors)
        if len(widths) > 1:
            raise DimensionMismatch(
                f"{where}: vectors of {' and '.join(map(str, widths))} dimensions", hint="use one model for a column"
            ) from e
        raise BadRow(f"{where}: not an array of numbers", hint="give an (n, dim) array of numbers") from e
    if array.ndim != 2:
        shape = "x".join(map(str, array.shape)) or "a single number"
        raise DimensionMismatch(f"{where}: an array of shape {shape} is not (n, dim)", hint="give one vector per row")
    if dim is not None and array.shape[1] != dim:
        raise DimensionMismatch(
            f"{where}: {array.shape[1]} dimensions, where {dim} are expected",
            hint="use the model that the column was made for, or make the column vector"
            f"({array.shape[1]}) and embed every row again",
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise BadRow(
            f"{where}: vector {int(np.argmin(finite))} holds NaN or infinity",
            hint="distances to it are not defined: mend the vector or leave it NULL",
        )
    return array


def _widths(vectors: Any) -> list[int]:
    try:
        return sorted({len(v) for v in vectors})[:3]
    except TypeError:
        return []
