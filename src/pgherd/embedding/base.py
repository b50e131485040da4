"""The port: what an embedding model is to the rest of pgherd, and how one is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from threading import Lock
from typing import Protocol

from ..errors import BadInput
from .check import Vectors

_OPENAI = re.compile(r"openai:(?P<model>[^?\s]+?)@(?P<url>https?://[^?#\s]+)(?:\?dim=(?P<dim>[1-9]\d*))?")
_HINT = "write wordllama, or openai:MODEL@BASE_URL[?dim=N] (openai:text-embedding-3-small@https://api.openai.com/v1)"

_models: dict[str, Embedder] = {}
_lock = Lock()


class Embedder(Protocol):
    """An embedding model. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """The spec that names it."""
        ...

    @property
    def dim(self) -> int | None:
        """The vectors' length; None until it is known."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors, in order; (n, dim) float32.

        Raises:
            BadRow: a text is empty (the message says which).
            DimensionMismatch: the model answers with vectors of another length than it should.
        """
        ...


def model_from_spec(spec: str) -> Embedder:
    """The model of that name; always the same object for the same spec.

    ``wordllama``: 256 dimensions, in this process, no network. ``openai:MODEL@BASE_URL[?dim=N]``: any endpoint that
    speaks OpenAI's API; its key is read from $PGHERD_EMBED_API_KEY or $OPENAI_API_KEY at each call.

    Raises:
        BadInput: no such model, or what it needs is not installed.
    """
    spec = spec.strip()
    with _lock:
        if spec not in _models:
            _models[spec] = _made(spec)
        return _models[spec]


def _made(spec: str) -> Embedder:
    if spec == "wordllama":
        from .wordllama import WordLlamaEmbedder

        return WordLlamaEmbedder()
    found = _OPENAI.fullmatch(spec)
    if found is None:
        raise BadInput(f"{_without_secrets(spec)!r} is not an embedding model", hint=_HINT)
    from .openai import OpenAIEmbedder

    return OpenAIEmbedder(found["model"], found["url"], dim=int(found["dim"]) if found["dim"] else None)


def _without_secrets(spec: str) -> str:
    """What may be shown of a spec: not a password in its URL, nor what follows the path."""
    return re.sub(r"//[^/@]*@", "//***@", spec.partition("?")[0])
