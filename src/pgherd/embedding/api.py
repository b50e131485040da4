"""Endpoints that speak OpenAI's API (OpenAI, vLLM, Ollama, TEI, LiteLLM …): one call, with its retries, by httpx.

Guards an invariant: neither the key nor a text is ever in an error or a log line, so answers' bodies are not quoted.
Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import ipaddress
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from ..errors import BadInput, HerdError

_REQUEST_TIMEOUT_S = 30.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class _Transient(Exception):
    """One attempt failed in a way that another may not; ``wait_s`` is what the server asked for."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Service:
    """What is asked of an endpoint: under which path, with which key, and the words for when it fails.

    ``keys`` are names of environment variables, of which the first that is set counts; ``again`` ends a hint.
    """

    noun: str
    path: str
    gives: str
    keys: tuple[str, ...]
    failed: type[HerdError]
    hints: Mapping[int, str]
    again: str = ""


class Api:
    """One endpoint. One connection pool, usable from several threads.

    ``deadline_s`` is for one call with all its retries, ``request_s`` for one of those; ``sleep`` waits between them.
    Raises BadInput: the URL is unusable or unencrypted beyond this machine, or httpx is not installed.
    """

    def __init__(
        self,
        service: Service,
        model: str,
        base_url: str,
        *,
        deadline_s: float,
        request_s: float = _REQUEST_TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self.base_url = _checked(base_url, service)
        self.url = self.base_url + service.path
        self._service, self._deadline_s, self._request_s, self._sleep = service, deadline_s, request_s, sleep
        self._client = _client(self.url)

    def post(self, body: dict[str, Any]) -> Any:
        """The decoded answer to ``body`` and the model's name; the service's own error when there is none."""
        end = time.monotonic() + self._deadline_s
        attempts = 0
        while True:
            try:
                return self._attempt(body, max(0.001, end - time.monotonic()))
            except _Transient as e:
                wait_s = _back_off_s(attempts, e.wait_s)
                attempts += 1
                if time.monotonic() + wait_s >= end:
                    raise self._gave_up(e, attempts) from e
                self._sleep(wait_s)

    def malformed(self, what: str) -> HerdError:
        """The error for an answer that is not what the API promises."""
        hint = "is this the base URL of an OpenAI-compatible API?"
        return self._service.failed(f"{self.url}: {what}", hint=hint)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _attempt(self, body: dict[str, Any], left_s: float) -> Any:
        """One request; the decoded answer, or _Transient if trying again may help."""
        import httpx

        timeout_s = min(self._request_s, left_s)
        headers = _authorization(self._service.keys)
        try:
            answer = self._client.post(self.url, json={"model": self.model, **body}, headers=headers, timeout=timeout_s)
        except httpx.RequestError as e:
            raise _Transient(type(e).__name__) from None  # the error holds the request, and so the key and the texts
        if answer.status_code in _RETRYABLE:
            raise _Transient(f"status {answer.status_code}", _retry_after_s(answer.headers.get("retry-after")))
        if answer.status_code != 200:
            raise self._service.failed(
                f"{self.url} answered with status {answer.status_code} for model {self.model}",
                hint=self._service.hints.get(answer.status_code, "check the base URL, the model and the key"),
            )
        try:
            return answer.json()
        except ValueError:
            raise self.malformed("its answer is not JSON") from None

    def _gave_up(self, last: _Transient, attempts: int) -> HerdError:
        what = f"{self.url} gave no {self._service.gives}"
        return self._service.failed(
            f"{what} in {self._deadline_s:g} s and {attempts} attempts; the last: {last}",
            hint=f"is the endpoint up, and within its rate limit?{self._service.again}",
        )


def _checked(base_url: str, service: Service) -> str:
    """The URL without a trailing slash; BadInput if it has a password in it, or is unencrypted beyond this machine."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as e:
        raise BadInput(f"the {service.noun} endpoint's URL is not valid", hint="write https://host[:port]/v1") from e
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise BadInput(f"the {service.noun} endpoint's URL is not usable", hint="write https://host[:port]/v1")
    if parts.username is not None or parts.password is not None:
        raise BadInput(
            f"the URL of the {service.noun} endpoint at {host} holds a user or password",
            hint=f"leave them out, and set ${service.keys[0]}",
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


def _authorization(keys: tuple[str, ...]) -> dict[str, str]:
    """The header with the key, if one is set: local endpoints often need none."""
    for name in keys:
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
