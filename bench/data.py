"""Rows and questions: real descriptions, real embeddings, made many by a little noise; the same for the same seed.

The one text model that a package ships has 256 dimensions. More of them are its vectors of several texts about one
code, side by side, as of title, section and document: the description, then what it is a kind of (parent, grandparent,
block, chapter), then all of these as one text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pgherd.demo.catalogue import treatments
from pgherd.embedding.base import model_from_spec

REGIONS = ("us-east", "us-west")
QUESTIONS = 200
SEED = 20_240_501
NOISE = 0.1
"""Length of what is added to a vector of length 1: a copy is at a cosine distance of about 0.005 from its origin."""
BATCH_ROWS = 20_000

_MODEL_DIM = 256
_VIEWS: tuple[Callable[[list[str]], str], ...] = (
    lambda texts: texts[0],
    lambda texts: texts[min(1, len(texts) - 1)],
    lambda texts: texts[min(2, len(texts) - 1)],
    lambda texts: texts[max(0, len(texts) - 2)],
    lambda texts: texts[-1],
    lambda texts: "; ".join(texts),
)
"""From a code's description and its ancestors' (nearest first) to the text that is embedded."""
MAX_DIM = _MODEL_DIM * len(_VIEWS)

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """``vectors`` is (n, dim) float32 of length 1; ``questions`` (200, dim), half unseen texts, half noisy rows.

    ``practice`` are as many more of their kind, to tune with: none of them is among ``questions``.
    """

    ids: NDArray[np.int64]
    regions: list[str]
    codes: list[str]
    descriptions: list[str]
    vectors: Vectors
    questions: Vectors
    practice: Vectors

    @property
    def n(self) -> int:
        """How many rows."""
        return len(self.ids)

    @property
    def dim(self) -> int:
        """How many dimensions."""
        return int(self.vectors.shape[1])

    def arrow(self, start: int, stop: int) -> pa.Table:
        """Rows ``start`` to ``stop`` as an arrow table; the vectors are not copied."""
        flat = pa.array(self.vectors[start:stop].reshape(-1))
        return pa.table(
            {
                "id": pa.array(self.ids[start:stop]),
                "region": pa.array(self.regions[start:stop]),
                "code": pa.array(self.codes[start:stop]),
                "description": pa.array(self.descriptions[start:stop]),
                "embedding": pa.FixedSizeListArray.from_arrays(flat, self.dim),
            }
        )

    def batches(self) -> list[pa.Table]:
        """All rows as arrow tables of ``BATCH_ROWS``."""
        starts = range(0, self.n, BATCH_ROWS)
        return [self.arrow(start, min(start + BATCH_ROWS, self.n)) for start in starts]

    def nearest(self, k: int, region: str | None = None) -> list[set[int]]:
        """The ids of the k rows nearest to each question, by looking at all of them (of one region)."""
        chosen = slice(None) if region is None else np.flatnonzero([own == region for own in self.regions])
        vectors, ids = self.vectors[chosen], self.ids[chosen]
        found = []
        for question in self.questions:
            similarity = vectors @ question
            best = np.argpartition(similarity, -k)[-k:]
            found.append(set(ids[best].tolist()))
        return found


@lru_cache(maxsize=2)
def corpus(rows: int, dim: int = _MODEL_DIM) -> Corpus:
    """``rows`` rows and their questions; the texts asked are not among the rows."""
    rng = np.random.default_rng(SEED)
    catalogue = treatments()
    order = rng.permutation(len(catalogue))
    asked, kept = order[:QUESTIONS], order[QUESTIONS:]
    source = np.resize(kept, rows)
    used = kept[:rows]
    embedded = np.empty((len(catalogue), dim), np.float32)
    for part in (used, asked):
        embedded[part] = _embedded([catalogue[i] for i in part], dim)
    near = _noisy(embedded[rng.choice(used, QUESTIONS)], rng)
    questions, practice = (np.concatenate([embedded[asked[i::2]], near[i::2]]) for i in (0, 1))
    return Corpus(
        ids=np.arange(1, rows + 1, dtype=np.int64),
        regions=[REGIONS[i] for i in rng.integers(0, len(REGIONS), rows).tolist()],
        codes=_texts(catalogue, source, "icd_code"),
        descriptions=_texts(catalogue, source, "description"),
        vectors=_noisy(embedded[source], rng),
        questions=questions[rng.permutation(len(questions))],
        practice=practice,
    )


def stream(rows: int, dim: int) -> Iterator[pa.Table]:
    """The columns id, code, description and embedding of any number of rows, ``BATCH_ROWS`` at a time."""
    rng = np.random.default_rng(SEED)
    catalogue = treatments()
    embedded = _embedded(catalogue, dim)
    for start in range(0, rows, BATCH_ROWS):
        source = np.arange(start, min(start + BATCH_ROWS, rows)) % len(catalogue)
        flat = pa.array(_noisy(embedded[source], rng).reshape(-1))
        yield pa.table(
            {
                "id": pa.array(np.arange(start, start + len(source), dtype=np.int64)),
                "code": pa.array(_texts(catalogue, source, "icd_code")),
                "description": pa.array(_texts(catalogue, source, "description")),
                "embedding": pa.FixedSizeListArray.from_arrays(flat, dim),
            }
        )


def described(dim: int) -> str:
    """What vectors of so many dimensions are made of, for the reader of the results."""
    if dim == _MODEL_DIM:
        return "ICD-10-CM descriptions embedded with wordllama (256 dimensions)"
    return (
        f"{dim:,} dimensions: wordllama's vectors (256 each) of a code's description, its parent's, grandparent's,"
        f" block's, chapter's and all in one text, side by side, cut to {dim:,}"
    )


def _embedded(rows: Sequence[dict[str, str]], dim: int) -> Vectors:
    """(n, dim) float32 of length 1."""
    if not 0 < dim <= MAX_DIM:
        raise ValueError(f"1 to {MAX_DIM} dimensions")
    import simple_icd_10_cm as icd

    model = model_from_spec("wordllama")
    texts = [[r["description"], *map(icd.get_description, icd.get_ancestors(r["icd_code"]))] for r in rows]
    out = np.empty((len(rows), dim), np.float32)
    for view, start in zip(_VIEWS, range(0, dim, _MODEL_DIM), strict=False):
        wanted = [view(t) for t in texts]
        distinct = list(dict.fromkeys(wanted))
        place = {text: i for i, text in enumerate(distinct)}
        vectors = model.embed(distinct)[:, : dim - start]
        out[:, start : start + _MODEL_DIM] = vectors[[place[text] for text in wanted]]
    return _unit(out)


def _noisy(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    noise *= np.float32(NOISE / np.sqrt(vectors.shape[1]))
    noise += vectors
    return _unit(noise)


def _unit(vectors: Vectors) -> Vectors:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _texts(catalogue: Sequence[dict[str, str]], source: NDArray[np.intp], column: str) -> list[str]:
    return [catalogue[i][column] for i in source.tolist()]
