"""What pgvector asks of an index: an operator class, a fixed dimension, and not too many of them.

Source: pgvector's README, sections HNSW and IVFFlat (limits of 0.8).
"""

from __future__ import annotations

from ..model.schema import Index, Table, VectorType
from .source import Place

_MOST = {VectorType.VECTOR: 2000, VectorType.HALFVEC: 4000, VectorType.BIT: 64000}


def check_vector_index(table: Table, index: Index, place: Place) -> None:
    """Raises BadSchema for a vector index that PostgreSQL would refuse."""
    if index.method not in ("hnsw", "ivfflat"):
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
        return
    if kind is None:
        raise place.bad(
            f"a {index.method} index on {column.name!r}, which is {column.type}", hint="index a vector column"
        )
    name, dimension = kind
    if dimension is None:
        raise place.bad(f"column {column.name!r} has no fixed dimension", hint=f"make it {name}(n)")
    most = _MOST.get(name)
    if most is not None and dimension > most:
        hint = "make the column halfvec, or index (column::halfvec(n)) halfvec_cosine_ops"
        raise place.bad(
            f"{name}({dimension}) has more than the {most} dimensions that an index takes",
            hint=hint if name is VectorType.VECTOR and dimension <= 4000 else "use a model with fewer dimensions",
        )
