"""Endpoints on this machine that keep all that reaches them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class StandIn:
    """An OpenAI-compatible endpoint on this machine: two dimensions, made of the text; and it answers questions."""

    url: str = ""
    bodies: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answer: object = None
    status: int = 200

    def has(self, marker: str) -> bool:
        return any(marker in body for body in self.bodies)


def _serving(stand_in: StandIn) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            stand_in.bodies.append(body)
            asked = json.loads(body)
            if self.path.endswith("/chat/completions"):
                stand_in.asked.append("\n".join(m["content"] for m in asked["messages"]))
                message = {"role": "assistant", "content": f"{asked['model']} says [1]"}
                answer = json.dumps(stand_in.answer or {"choices": [{"message": message}]}).encode()
            else:
                texts = asked["input"]
                stand_in.texts += texts
                data = [{"index": i, "embedding": [float(len(t)), 1.0]} for i, t in enumerate(texts)]
                answer = json.dumps({"data": data}).encode()
            self.send_response(stand_in.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def endpoints() -> Iterator[dict[str, StandIn]]:
    found = {name: StandIn() for name in ("nowhere", "us-east", "us-central", "us-west")}
    servers = [_serving(s) for s in found.values()]
    yield found
    for server in servers:
        server.shutdown()
        server.server_close()
