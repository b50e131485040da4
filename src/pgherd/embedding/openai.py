"""Any endpoint that speaks OpenAI's embeddings API (OpenAI, vLLM, Ollama, TEI, LiteLLM …); how is api.py's matter.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import EmbeddingFailed
from .api import Api, Service
from .check import Vectors, check_texts, check_vectors

_KEYS = ("PGHERD_EMBED_API_KEY", "OPENAI_API_KEY")
_SERVICE = Service(
    "embedding",
    "/embeddings",
    "embeddings",
    _KEYS,
    EmbeddingFailed,
    {
        400: "is the model an embedding model, and each text within its length?",
        401: f"set ${_KEYS[0]} or ${_KEYS[1]} to a valid key",
        403: "the key may not use this model",
        404: "check the model's name and the base URL (most end in /v1)",
        413: "make texts shorter, or batches smaller",
        422: "does the model take a number of dimensions?",
    },
    " rows already written stay; run the same again",
)


class OpenAIEmbedder:
    """A model behind an endpoint. One connection pool, usable from several threads.

    ``deadline_s`` is for each batch of ``batch_texts`` texts with all its retries; ``sleep`` waits between them.

    Raises:
        BadInput: the URL is unusable or unencrypted beyond this machine, or httpx is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        dim: int | None = None,
        batch_texts: int = 128,
        deadline_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self._api = Api(_SERVICE, model, base_url, deadline_s=deadline_s, sleep=sleep)
        self.url = self._api.url
        self.dim = dim
        self._asked_dim = dim
        self._batch_texts = batch_texts

    @property
    def asked_dim(self) -> int | None:
        """The number of dimensions that the endpoint is asked for; None takes what the model gives."""
        return self._asked_dim

    @property
    def name(self) -> str:
        """The spec that names it."""
        dim = f"?dim={self._asked_dim}" if self._asked_dim else ""
        return f"openai:{self.model}@{self._api.base_url}{dim}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors, in order; (n, dim) float32, as the endpoint gives them.

        Raises:
            BadRow: a text is empty (the message says which).
            DimensionMismatch: the vectors' length is not the one asked for, or not that of earlier ones.
            EmbeddingFailed: no answer within the deadline, retries included.
            EmbeddingFailed: the endpoint refuses the request, or its answer is not what the API promises.
        """
        check_texts(texts)
        if not texts:
            return np.empty((0, self.dim or 0), np.float32)
        batches = [list(texts[at : at + self._batch_texts]) for at in range(0, len(texts), self._batch_texts)]
        return np.concatenate([self._embed_batch(batch) for batch in batches])

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def _embed_batch(self, batch: list[str]) -> Vectors:
        asked = {} if self._asked_dim is None else {"dimensions": self._asked_dim}
        return self._vectors(self._api.post({"input": batch, **asked}), len(batch))

    def _vectors(self, answer: Any, count: int) -> Vectors:
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or not all(_is_embedding(d) for d in data):
            raise self._api.malformed("its answer holds no embeddings")
        if len(data) != count:
            raise self._api.malformed(f"it answered with {len(data)} vectors for {count} texts")
        by_index = {d["index"]: d["embedding"] for d in data}
        if by_index.keys() != set(range(count)):
            raise self._api.malformed("the indexes of its answer are not those of the texts")
        vectors = check_vectors([by_index[i] for i in range(count)], self.dim, f"{self.model} at {self.url}")
        if self.dim is None:
            self.dim = vectors.shape[1]
        return vectors


def _is_embedding(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("index"), int) and isinstance(item.get("embedding"), list)
