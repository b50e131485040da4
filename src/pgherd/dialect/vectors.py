"""What pgvector asks of an index: an operator class, a fixed dimension, and not too many of them.

Source: pgvector's README, sections HNSW, IVFFlat, Half-Precision Indexing and Binary Quantization (limits of 0.8).
"""

from __future__ import annotations

from ..model.names import quote_ident
from ..model.schema import Index, Table, VectorType
from ..model.vectors import MAX_INDEXED, metric_of_opclass, quantized, quantized_sql
from .source import Place

METHODS = ("hnsw", "ivfflat")


def check_vector_index(table: Table, index: Index, place: Place) -> None:
    """Raises BadSchema for a vector index that PostgreSQL would refuse, or that no search could use."""
    if index.method not in METHODS:
        return
    column = table.column(index.columns[0]) if index.columns else None
    kind = column.vector if column else None
    if index.opclass is None:
        name = kind[0] if kind else "vector"
        good = "bit_hamming_ops" if name == "bit" else f"{name}_cosine_ops"
        raise place.bad(
            f"a {index.method} index without an operator class",
            hint=f"write ({index.elements[0]} {good}): the class says which distance the index answers",
        )
    if column is None:
        _check_quantized(table, index, place)
        return
    if kind is None:
        raise place.bad(
            f"a {index.method} index on {column.name!r}, which is {column.type}", hint="index a vector column"
        )
    name, dimension = kind
    if dimension is None:
        raise place.bad(f"column {column.name!r} has no fixed dimension", hint=f"make it {name}(n)")
    _check_dimension(f"{name}({dimension})", name, dimension, place, quote_ident(column.name))


def _check_quantized(table: Table, index: Index, place: Place) -> None:
    found = quantized(index)
    if found is None:
        return
    text, dimension, stored = found
    column = next((c for c in table.vector_columns if quote_ident(c.name) == text), None)
    if column is None or column.vector is None:
        return
    if column.vector[1] is not None and column.vector[1] != dimension:
        raise place.bad(
            f"{stored}({dimension}) over column {column.name!r}, which has {column.vector[1]} dimensions",
            hint=f"write {stored}({column.vector[1]})",
        )
    if not (index.opclass or "").startswith(f"{stored}_") or metric_of_opclass(index.opclass) is None:
        good = "bit_hamming_ops" if stored is VectorType.BIT else "halfvec_cosine_ops"
        raise place.bad(f"operator class {index.opclass} on values that are {stored}", hint=f"write {good}")
    _check_dimension(f"{stored}({dimension})", stored, dimension, place, text)


def _check_dimension(what: str, stored: VectorType, dimension: int, place: Place, column: str) -> None:
    most = MAX_INDEXED.get(stored)
    if most is None or dimension <= most:
        return
    hint = "use a model with fewer dimensions"
    if dimension <= MAX_INDEXED[VectorType.HALFVEC]:
        smaller = quantized_sql(column, VectorType.HALFVEC, dimension)
        hint = f"make the column halfvec, or index ({smaller} halfvec_cosine_ops)"
    elif dimension <= MAX_INDEXED[VectorType.BIT] and stored is not VectorType.BIT:
        hint = f"index ({quantized_sql(column, VectorType.BIT, dimension)} bit_hamming_ops): hits are ranked exactly"
    raise place.bad(f"{what} has more than the {most} dimensions that an index takes", hint=hint)
