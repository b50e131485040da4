from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgherd.embedding.base import model_from_spec
from pgherd.embedding.check import check_vectors
from pgherd.embedding.openai import OpenAIEmbedder
from pgherd.embedding.wordllama import WordLlamaEmbedder
from pgherd.errors import BadInput, BadRow, DimensionMismatch, EmbeddingFailed, HerdError

KEY = "sk-very-secret-0123456789"
TEXT = "the patient's most private words"


class Endpoint(ThreadingHTTPServer):
    """OpenAI's endpoint, as small as can be; ``misbehave`` makes the answer of its items, ``statuses`` come before."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dim = 4
        self.statuses: list[tuple[int, dict[str, str]]] = []
        self.always: int | None = None
        self.misbehave: Callable[[list[dict[str, Any]]], Any] = lambda items: {"object": "list", "data": items}
        self.requests: list[tuple[dict[str, Any], str | None]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def vector(self, text: str, dim: int) -> list[float]:
        return [float(len(text)), *[float(sum(text.encode()) % (i + 7)) for i in range(dim - 1)]]


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append((body, self.headers["authorization"]))
            status, headers = self.server.statuses.pop(0) if self.server.statuses else (self.server.always or 200, {})
        if self.path != "/v1/embeddings":
            status = 404
        if status == 200:
            dim = body.get("dimensions", self.server.dim)
            items = [{"index": i, "embedding": self.server.vector(t, dim)} for i, t in enumerate(body["input"])]
            answer = self.server.misbehave(items)
        else:  # as real ones do, it echoes what it was sent
            answer = {"error": {"message": f"bad key {self.headers['authorization']} for {body['input']}"}}
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHERD_EMBED_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def model(endpoint: Endpoint, waits: list[float]) -> Iterator[OpenAIEmbedder]:
    made = OpenAIEmbedder("small", endpoint.url, batch_texts=3, deadline_s=20, sleep=waits.append)
    yield made
    made.close()


def assert_keeps_secrets(error: HerdError) -> None:
    told = "".join(traceback.format_exception(error)) + json.dumps(error.as_json()) + repr(error)
    assert KEY not in told
    assert TEXT not in told
    assert error.hint


def test_texts_are_sent_in_batches_and_come_back_in_order(endpoint: Endpoint, model: OpenAIEmbedder) -> None:
    texts = [f"text {'x' * i}" for i in range(8)]
    assert model.dim is None
    vectors = model.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [endpoint.vector(t, 4) for t in texts]
    assert model.dim == 4
    assert [len(body["input"]) for body, _ in endpoint.requests] == [3, 3, 2]
    assert {key for _, key in endpoint.requests} == {f"Bearer {KEY}"}
    assert all(body["model"] == "small" and "dimensions" not in body for body, _ in endpoint.requests)


def test_no_texts_no_request(endpoint: Endpoint, model: OpenAIEmbedder) -> None:
    assert len(model.embed([])) == 0
    assert not endpoint.requests


def test_items_in_any_order_are_put_back(endpoint: Endpoint, model: OpenAIEmbedder) -> None:
    endpoint.misbehave = lambda items: {"data": items[::-1]}
    assert model.embed(["a", "bb", "ccc"])[:, 0].tolist() == [1, 2, 3]


def test_the_dimension_asked_for_is_sent_and_expected(endpoint: Endpoint) -> None:
    model = model_from_spec(f"openai:small@{endpoint.url}?dim=6")
    assert isinstance(model, OpenAIEmbedder)
    assert model.name == f"openai:small@{endpoint.url}?dim=6"
    assert model.embed(["a"]).shape == (1, 6)
    assert endpoint.requests[0][0]["dimensions"] == 6
    endpoint.misbehave = lambda items: {"data": [{**i, "embedding": i["embedding"][:5]} for i in items]}
    with pytest.raises(DimensionMismatch, match="5 dimensions, where 6") as e:
        model.embed([TEXT])
    assert_keeps_secrets(e.value)
    model.close()


def test_a_dimension_that_changes_is_refused(endpoint: Endpoint, model: OpenAIEmbedder) -> None:
    model.embed(["a"])
    endpoint.dim = 5
    with pytest.raises(DimensionMismatch, match="5 dimensions, where 4"):
        model.embed(["a"])


def test_too_many_requests_is_waited_out(endpoint: Endpoint, model: OpenAIEmbedder, waits: list[float]) -> None:
    endpoint.statuses = [
        (429, {"retry-after": "7"}),
        (503, {}),
        (429, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    ]
    assert len(model.embed(["a"])) == 1
    assert len(endpoint.requests) == 4
    assert len(waits) == 3
    assert waits[0] >= 7
    assert 0.5 <= waits[1] <= 1 <= waits[2] <= 2


def test_a_server_that_stays_broken_is_given_up(endpoint: Endpoint) -> None:
    endpoint.always = 500
    model = OpenAIEmbedder("small", endpoint.url, deadline_s=0.3)
    with pytest.raises(EmbeddingFailed, match="status 500") as e:
        model.embed([TEXT])
    assert endpoint.url in e.value.message
    assert e.value.retryable
    assert_keeps_secrets(e.value)
    model.close()


def test_a_wait_beyond_the_deadline_is_not_begun(endpoint: Endpoint, model: OpenAIEmbedder, waits: list[float]) -> None:
    endpoint.statuses = [(429, {"retry-after": "100000"})]
    with pytest.raises(EmbeddingFailed, match="status 429"):
        model.embed(["a"])
    assert not waits


def test_nobody_listening(waits: list[float]) -> None:
    with socket.socket() as s:  # bound, but not listening
        s.bind(("127.0.0.1", 0))
        model = OpenAIEmbedder("small", f"http://127.0.0.1:{s.getsockname()[1]}/v1", deadline_s=0.2)
        with pytest.raises(EmbeddingFailed, match="ConnectError") as e:
            model.embed([TEXT])
        assert_keeps_secrets(e.value)
        model.close()


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "OPENAI_API_KEY"), (404, "/v1"), (400, "length"), (302, "base URL"), (307, "base URL")]
)
def test_a_refusal_is_not_retried(endpoint: Endpoint, model: OpenAIEmbedder, status: int, hint: str) -> None:
    endpoint.always = status
    with pytest.raises(EmbeddingFailed, match=f"{endpoint.url}/embeddings answered with status {status}") as e:
        model.embed([TEXT])
    assert hint in e.value.hint
    assert len(endpoint.requests) == 1
    assert_keeps_secrets(e.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda items: {"data": items[:-1]}, "1 vectors for 2 texts"),
        (lambda items: {"data": [items[0], items[0]]}, "indexes"),
        (lambda items: {"data": [{"embedding": i["embedding"]} for i in items]}, "no embeddings"),
        (lambda items: {"data": [{**i, "embedding": "AAAA"} for i in items]}, "no embeddings"),
        (lambda items: {"data": [{**i, "index": []} for i in items]}, "no embeddings"),
        (lambda items: items, "no embeddings"),
        (lambda items: b"<html>" + TEXT.encode(), "not JSON"),
    ],
)
def test_an_answer_that_breaks_the_api_is_refused(
    endpoint: Endpoint, model: OpenAIEmbedder, answer: Callable[[Any], Any], says: str
) -> None:
    endpoint.misbehave = answer
    with pytest.raises(EmbeddingFailed, match=says) as e:
        model.embed([TEXT, "b"])
    assert_keeps_secrets(e.value)


@pytest.mark.parametrize(
    ("vector", "error"), [([1.0, float("nan")], BadRow), ([1.0, float("inf")], BadRow), ([1.0], DimensionMismatch)]
)
def test_vectors_that_cannot_be_stored_are_refused(
    endpoint: Endpoint, model: OpenAIEmbedder, vector: list[float], error: type[HerdError]
) -> None:
    endpoint.misbehave = lambda items: {
        "data": [{"index": 0, "embedding": [1.0, 2.0]}, {"index": 1, "embedding": vector}]
    }
    with pytest.raises(error) as e:
        model.embed([TEXT, "b"])
    assert_keeps_secrets(e.value)


def test_the_key_is_read_anew_and_may_be_absent(
    endpoint: Endpoint, model: OpenAIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHERD_EMBED_API_KEY", " other\n")
    model.embed(["a"])
    monkeypatch.setenv("PGHERD_EMBED_API_KEY", "")
    monkeypatch.delenv("OPENAI_API_KEY")
    model.embed(["a"])
    assert [key for _, key in endpoint.requests] == ["Bearer other", None]
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Evil: 1")
    with pytest.raises(BadInput, match="OPENAI_API_KEY is not usable") as e:
        model.embed(["a"])
    assert_keeps_secrets(e.value)


def test_neither_key_nor_text_is_logged(
    endpoint: Endpoint, model: OpenAIEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        model.embed([TEXT])
    assert KEY not in caplog.text
    assert TEXT not in caplog.text
    assert KEY not in repr(vars(model))


def test_several_threads_share_a_model(endpoint: Endpoint, model: OpenAIEmbedder) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: model.embed(["x" * i, "y"])[0, 0], range(1, 20)))
    assert found == list(range(1, 20))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://api.example.com/v1", "unencrypted"),
        ("http://10.0.0.1/v1", "unencrypted"),
        ("http://localhost.example.com/v1", "unencrypted"),
        ("https://me:s3cret@api.example.com/v1", "user or password"),
        ("http://me:s3cret@localhost/v1", "user or password"),
        ("https://:443/v1", "not usable"),
        ("https://host:notaport/v1", "not valid"),
    ],
)
def test_unsafe_urls_are_refused(url: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as e:
        model_from_spec(f"openai:small@{url}")
    assert "s3cret" not in json.dumps(e.value.as_json())
    assert e.value.hint


@pytest.mark.parametrize("url", ["https://api.example.com/v1/", "http://localhost:11434/v1", "http://[::1]:8080/v1"])
def test_urls_that_are_fine(url: str) -> None:
    model = model_from_spec(f"openai:small@{url}")
    assert model is model_from_spec(f" openai:small@{url} ")
    assert isinstance(model, OpenAIEmbedder)
    assert model.url == url.rstrip("/") + "/embeddings"
    model.close()


@pytest.mark.parametrize(
    "spec", ["", "bert", "openai", "openai:small", "openai:small@ftp://x", "openai:small@https://x?dim=0", "openai:s@https://u:s3cret@x?y=1"]
)  # fmt: skip
def test_unknown_models_are_refused(spec: str) -> None:
    with pytest.raises(BadInput, match="not an embedding model") as e:
        model_from_spec(spec)
    assert "wordllama" in e.value.hint
    assert "s3cret" not in e.value.message


@pytest.fixture(scope="module")
def llama() -> WordLlamaEmbedder:
    return WordLlamaEmbedder()


def test_wordllama_never_uses_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    vectors = WordLlamaEmbedder().embed(["hello"])
    assert vectors.shape == (1, 256)
    with socket.socket() as s, pytest.raises(AssertionError, match="network"):
        s.connect(("127.0.0.1", 9))


def test_wordllamas_vectors_are_its_own(llama: WordLlamaEmbedder) -> None:
    import wordllama

    texts = [
        "chest pain",
        "a",
        "é 𝄞 ünï",
        "shortness of breath on exertion, " * 90,
        "x " * 5000,
        "\n.",
        "again",
        "again",
    ]
    texts += [f"note {i}: " + "word " * (i % 40) for i in range(1100)]
    original = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    vectors = llama.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), llama.dim)
    np.testing.assert_allclose(vectors, original.embed(texts, norm=True, batch_size=8), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_wordllama_finds_what_is_alike(llama: WordLlamaEmbedder) -> None:
    question, near, far = llama.embed(["chest pain on exertion", "angina, pain in the chest", "quarterly tax report"])
    assert question @ near > question @ far


def test_wordllama_in_threads(llama: WordLlamaEmbedder) -> None:
    texts = [f"text number {i}" for i in range(40)]
    together = llama.embed(texts)
    fresh = WordLlamaEmbedder()
    with ThreadPoolExecutor(4) as pool:
        apart = list(pool.map(lambda t: fresh.embed([t])[0], texts))
    np.testing.assert_allclose(np.array(apart), together, atol=1e-6)


def test_wordllama_leaves_logging_alone() -> None:
    import subprocess

    code = (
        "import logging; from pgherd.embedding.wordllama import WordLlamaEmbedder as W; W().embed(['x']);"
        "root = logging.getLogger(); print(len(root.handlers), root.level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", str(logging.WARNING)]


def test_wordllama_absent_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgherd.embedding.wordllama.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="not installed") as e:
        WordLlamaEmbedder()
    assert e.value.hint == "pip install 'pgherd[embed]'"


def test_no_texts_no_vectors(llama: WordLlamaEmbedder) -> None:
    assert llama.embed([]).shape == (0, 256)
    assert model_from_spec("wordllama") is model_from_spec(" wordllama")


@pytest.mark.parametrize("bad", ["", "  \n", "\ud800", None, 5])
def test_a_text_without_meaning_is_named(llama: WordLlamaEmbedder, model: OpenAIEmbedder, bad: Any) -> None:
    for embedder in (llama, model):
        with pytest.raises(BadRow, match="text 1 is") as e:
            embedder.embed(["fine", bad])
        assert e.value.hint


def test_check_vectors_takes_what_is_one_vector_a_row() -> None:
    checked = check_vectors([[1, 2], [3, 4]], 2, "here")
    assert checked.dtype == np.float32
    assert checked.flags.c_contiguous
    assert check_vectors(np.asfortranarray(np.ones((3, 2))), None, "here").flags.c_contiguous
    assert check_vectors(np.empty((0, 2)), 2, "here").shape == (0, 2)


@pytest.mark.parametrize(
    ("vectors", "error", "says"),
    [
        ([[1.0, 2.0, 3.0]], DimensionMismatch, "here: 3 dimensions, where 2"),
        ([[1.0, 2.0], [3.0]], DimensionMismatch, "here: vectors of 1 and 2 dimensions"),
        ([1.0, 2.0], DimensionMismatch, "here: an array of shape 2 "),
        ([[1.0, 2.0], [1.0, float("nan")]], BadRow, "here: vector 1 holds NaN"),
        ([[1e300, 2.0]], BadRow, "here: vector 0 holds NaN or infinity"),
        ([["a", "b"]], BadRow, "here: not an array of numbers"),
        (None, BadRow, "here"),
    ],
)
def test_check_vectors_refuses(vectors: Any, error: type[BadRow], says: str) -> None:
    with pytest.raises(error, match=says):
        check_vectors(vectors, 2, "here")
