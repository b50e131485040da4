"""Rows and questions: real descriptions, real embeddings, made many by a little noise; the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """``vectors`` is (n, 256) float32 of length 1; ``questions`` (200, 256), half unseen texts, half noisy rows."""

    ids: NDArray[np.int64]
    regions: list[str]
    codes: list[str]
    descriptions: list[str]
    vectors: Vectors
    questions: Vectors

    @property
    def n(self) -> int:
        """How many rows."""
        return len(self.ids)

    def arrow(self, start: int, stop: int) -> pa.Table:
        """Rows ``start`` to ``stop`` as an arrow table; the vectors are not copied."""
        flat = pa.array(self.vectors[start:stop].reshape(-1))
        return pa.table(
            {
                "id": pa.array(self.ids[start:stop]),
                "region": pa.array(self.regions[start:stop]),
                "code": pa.array(self.codes[start:stop]),
                "description": pa.array(self.descriptions[start:stop]),
                "embedding": pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1]),
            }
        )

    def nearest(self, k: int, region: str | None = None) -> list[set[int]]:
        """The ids of the k rows nearest to each question, by looking at all of them (of one region)."""
        chosen = np.flatnonzero([region in (None, own) for own in self.regions])
        vectors = self.vectors[chosen]
        found = []
        for question in self.questions:
            similarity = vectors @ question
            best = np.argpartition(similarity, -k)[-k:]
            found.append(set(self.ids[chosen[best]].tolist()))
        return found


def corpus(rows: int) -> Corpus:
    """``rows`` rows and their questions; the texts asked are not among the rows."""
    rng = np.random.default_rng(SEED)
    catalogue = treatments()
    order = rng.permutation(len(catalogue))
    asked, kept = order[: QUESTIONS // 2], order[QUESTIONS // 2 :]
    source = np.resize(kept, rows)
    model = model_from_spec("wordllama")
    used = kept[:rows]
    embedded = np.empty((len(catalogue), 256), np.float32)
    for part in (used, asked):
        embedded[part] = model.embed([catalogue[i]["description"] for i in part])
    vectors = _noisy(embedded[source], rng)
    questions = np.concatenate([embedded[asked], _noisy(embedded[rng.choice(used, QUESTIONS - len(asked))], rng)])
    return Corpus(
        ids=np.arange(1, rows + 1, dtype=np.int64),
        regions=[REGIONS[i] for i in rng.integers(0, len(REGIONS), rows).tolist()],
        codes=_texts(catalogue, source, "icd_code"),
        descriptions=_texts(catalogue, source, "description"),
        vectors=vectors,
        questions=questions[rng.permutation(QUESTIONS)],
    )


def _noisy(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    out = vectors + noise * np.float32(NOISE / np.sqrt(vectors.shape[1]))
    unit: Vectors = out / np.linalg.norm(out, axis=1, keepdims=True)
    return unit


def _texts(catalogue: Sequence[dict[str, str]], source: NDArray[np.intp], column: str) -> list[str]:
    return [catalogue[i][column] for i in source.tolist()]
