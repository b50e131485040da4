"""wordllama's bundled model: averaged token vectors, 256 dimensions, about 16 MB, no network.

Source: https://github.com/dleemiller/WordLlama, model l2_supercat. The vectors are those of its ``embed(norm=True)``;
the averaging is done here because wordllama's own pads a batch to its longest text: one long document among short ones
would take gigabytes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, BadRow
from .check import Vectors, check_texts, check_vectors

_INSTALL = "pip install 'pgherd[embed]'"
_BATCH_TEXTS = 512
_LONG_TOKENS = 512
"""Longer texts are summed by counting their tokens, which takes the same memory for any length."""


class WordLlamaEmbedder:
    """The model, loaded at its first use. Its vectors have length 1.

    Raises:
        BadInput: wordllama is not installed.
    """

    name = "wordllama"
    dim = 256

    def __init__(self) -> None:
        if find_spec("wordllama") is None:
            raise BadInput("the model wordllama is not installed", hint=_INSTALL)
        self._lock = Lock()
        self._loaded: tuple[Any, Vectors] | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors; (n, 256) float32, each of length 1.

        Raises:
            BadRow: a text is empty, or nothing but tokens that the model gives no meaning.
            BadInput: the installed wordllama is broken.
        """
        check_texts(texts)
        tokenizer, weights = self._model()
        out = np.empty((len(texts), self.dim), np.float32)
        for at in range(0, len(texts), _BATCH_TEXTS):
            batch = list(texts[at : at + _BATCH_TEXTS])
            tokens = [e.ids for e in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
            out[at : at + len(batch)] = _sums(tokens, weights)
        lengths = np.linalg.norm(out, axis=1, keepdims=True)
        if not lengths.all():
            raise BadRow(
                f"text {int(np.argmin(lengths))} has no vector: the model knows nothing in it",
                hint="leave the vector NULL for such rows",
            )
        out /= lengths
        return check_vectors(out, self.dim, self.name)

    def _model(self) -> tuple[Any, Vectors]:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load()
            return self._loaded


def _load() -> tuple[Any, Vectors]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import wordllama
    except ImportError as e:
        raise BadInput("the model wordllama can't be loaded", hint=_INSTALL) from e
    finally:  # importing it sets up logging for the whole process
        root.handlers[:], root.level = handlers, level
        logging.getLogger("wordllama").setLevel(logging.WARNING)
    try:
        # the package's own folder as its cache: there it finds its tokenizer, and has no reason to download one
        model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    except FileNotFoundError as e:
        raise BadInput("the installed wordllama lacks its bundled model", hint=_INSTALL) from e
    model.tokenizer.no_padding()
    return model.tokenizer, np.ascontiguousarray(model.embedding, np.float32)


def _sums(tokens: Sequence[Sequence[int]], weights: Vectors) -> Vectors:
    """The sum of each text's token vectors; an average but for its length, which is made 1 in the end."""
    out = np.zeros((len(tokens), weights.shape[1]), np.float32)
    counts = np.array([len(t) for t in tokens])
    for i in np.flatnonzero(counts > _LONG_TOKENS).tolist():
        out[i] = np.bincount(tokens[i], minlength=len(weights)).astype(np.float32) @ weights
    # longest first: the texts that have a token at a position are then always a prefix
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] <= _LONG_TOKENS]
    short = [tokens[i] for i in order.tolist()]
    flat: NDArray[np.intp] = np.array([t for text in short for t in text], np.intp)
    counts = counts[order]
    starts = np.cumsum(counts) - counts
    sums = np.zeros((len(short), weights.shape[1]), np.float32)
    for position in range(int(counts[0]) if len(short) else 0):
        live = int(np.searchsorted(-counts, -position))
        sums[:live] += weights[flat[starts[:live] + position]]
    out[order] = sums
    return out
