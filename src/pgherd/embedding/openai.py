"""Any endpoint that speaks OpenAI's embeddings API (OpenAI, vLLM, Ollama, TEI, LiteLLM …), called with httpx.

Guards an invariant: neither the key nor a text is ever in an error or a log line, so answers' bodies are not quoted.
Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import ipaddress
import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..errors import BadInput, EmbeddingFailed, HerdError
from .check import Vectors, check_texts, check_vectors

_KEYS = ("PGHERD_EMBED_API_KEY", "OPENAI_API_KEY")
_REQUEST_TIMEOUT_S = 30.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_HINTS = {
    400: "is the model an embedding model, and each text within its length?",
    401: f"set ${_KEYS[0]} or ${_KEYS[1]} to a valid key",
    403: "the key may not use this model",
    404: "check the model's name and the base URL (most end in /v1)",
    413: "make texts shorter, or batches smaller",
    422: "does the model take a number of dimensions?",
}


class _Transient(Exception):
    """One attempt failed in a way that another may not; ``wait_s`` is what the server asked for."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


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
        self.url = _checked(base_url) + "/embeddings"
        self.dim = dim
        self._asked_dim = dim
        self._batch_texts = batch_texts
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._client = _client(self.url)

    @property
    def asked_dim(self) -> int | None:
        """The number of dimensions that the endpoint is asked for; None takes what the model gives."""
        return self._asked_dim

    @property
    def name(self) -> str:
        """The spec that names it."""
        dim = f"?dim={self._asked_dim}" if self._asked_dim else ""
        return f"openai:{self.model}@{self.url.removesuffix('/embeddings')}{dim}"

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
        self._client.close()

    def _embed_batch(self, batch: list[str]) -> Vectors:
        end = time.monotonic() + self._deadline_s
        attempts = 0
        while True:
            try:
                answer = self._attempt(batch, max(0.001, end - time.monotonic()))
            except _Transient as e:
                wait_s = _back_off_s(attempts, e.wait_s)
                attempts += 1
                if time.monotonic() + wait_s >= end:
                    raise self._gave_up(e, attempts) from e
                self._sleep(wait_s)
            else:
                return self._vectors(answer, len(batch))

    def _attempt(self, batch: list[str], left_s: float) -> Any:
        """One request; the decoded answer, or _Transient if trying again may help."""
        import httpx

        body: dict[str, Any] = {"model": self.model, "input": batch}
        if self._asked_dim is not None:
            body["dimensions"] = self._asked_dim
        timeout_s = min(_REQUEST_TIMEOUT_S, left_s)
        try:
            answer = self._client.post(self.url, json=body, headers=_authorization(), timeout=timeout_s)
        except httpx.RequestError as e:
            raise _Transient(type(e).__name__) from None  # the error holds the request, and so the key and the texts
        if answer.status_code in _RETRYABLE:
            raise _Transient(f"status {answer.status_code}", _retry_after_s(answer.headers.get("retry-after")))
        if answer.status_code != 200:
            raise EmbeddingFailed(
                f"{self.url} answered with status {answer.status_code} for model {self.model}",
                hint=_HINTS.get(answer.status_code, "check the base URL, the model and the key"),
            )
        try:
            return answer.json()
        except ValueError:
            raise self._malformed("its answer is not JSON") from None

    def _vectors(self, answer: Any, count: int) -> Vectors:
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or not all(_is_embedding(d) for d in data):
            raise self._malformed("its answer holds no embeddings")
        if len(data) != count:
            raise self._malformed(f"it answered with {len(data)} vectors for {count} texts")
        by_index = {d["index"]: d["embedding"] for d in data}
        if by_index.keys() != set(range(count)):
            raise self._malformed("the indexes of its answer are not those of the texts")
        vectors = check_vectors([by_index[i] for i in range(count)], self.dim, f"{self.model} at {self.url}")
        if self.dim is None:
            self.dim = vectors.shape[1]
        return vectors

    def _gave_up(self, last: _Transient, attempts: int) -> HerdError:
        return EmbeddingFailed(
            f"{self.url} gave no embeddings in {self._deadline_s:g} s and {attempts} attempts; the last: {last}",
            hint="is the endpoint up, and within its rate limit? rows already written stay; run the same again",
        )

    def _malformed(self, what: str) -> EmbeddingFailed:
        return EmbeddingFailed(f"{self.url}: {what}", hint="is this the base URL of an OpenAI-compatible API?")


def _is_embedding(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("index"), int) and isinstance(item.get("embedding"), list)


def _checked(base_url: str) -> str:
    """The URL without a trailing slash; BadInput if it has a password in it, or is unencrypted beyond this machine."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as e:
        raise BadInput("the embedding endpoint's URL is not valid", hint="write https://host[:port]/v1") from e
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise BadInput("the embedding endpoint's URL is not usable", hint="write https://host[:port]/v1")
    if parts.username is not None or parts.password is not None:
        raise BadInput(
            f"the URL of the embedding endpoint at {host} holds a user or password",
            hint=f"leave them out, and set ${_KEYS[0]}",
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise BadInput(
            f"http://{host} would send texts and the key unencrypted",
            hint="use https; http is for endpoints on this machine",
        )
    return base_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authorization() -> dict[str, str]:
    """The header with the key, if one is set: local endpoints often need none."""
    for name in _KEYS:
        key = os.environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise BadInput(f"${name} is not usable as a key", hint="it must be plain ASCII, on one line")
        if key:
            return {"Authorization": f"Bearer {key}"}
    return {}


def _client(url: str) -> Any:
    try:
        import httpx
    except ImportError as e:
        raise BadInput("httpx is not installed", hint="pip install 'pgherd[embed]'") from e
    # a redirect could lead out of the region that the texts must stay in, and a proxy has no business on this machine
    return httpx.Client(follow_redirects=False, trust_env=not _is_loopback(urlsplit(url).hostname or ""))


def _back_off_s(attempts: int, asked_s: float) -> float:
    """Exponential with jitter, and never sooner than the server asked for."""
    ceiling_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempts)
    return asked_s + random.uniform(ceiling_s / 2, ceiling_s)  # noqa: S311


def _retry_after_s(header: str | None) -> float:
    """Seconds, or a date (RFC 9110, 10.2.3); 0 if absent or unreadable."""
    if not header:
        return 0.0
    if header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
