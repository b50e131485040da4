"""The MCP server, started by its command and talked to by the official client: over stdio, and HTTP with a token."""

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import pgherd
from hostile import hostile, make_hospitals
from pgherd.llm.accesslog import read_log

pytestmark = pytest.mark.timeout(600)
COMMAND = [sys.executable, "-m", "pgherd", "mcp", "--region", "us-east"]
TOOLS = {"list_tables", "describe", "search", "query", "explain"}


async def conversation(client: Any) -> None:
    """What any client may say, whatever the transport."""
    listed = (await client.list_tools()).tools
    assert {t.name for t in listed} == TOOLS
    assert all(t.annotations.read_only_hint and t.description for t in listed)
    assert "ctx" not in str([t.input_schema for t in listed])
    tables = (await client.call_tool("list_tables", {})).structured_content
    assert [t["name"] for t in tables["tables"]] == ["hospital", "treatment"]
    answer = await client.call_tool("query", {"sql": "SELECT id, hospital_location FROM treatment ORDER BY id LIMIT 2"})
    assert not answer.is_error
    assert answer.structured_content["rows"] == [
        {"id": 1, "hospital_location": "New York"},
        {"id": 2, "hospital_location": "New York"},
    ]
    assert answer.structured_content["missing"] == ["us-central", "us-west"]
    assert (
        "treatment_new_york"
        in (await client.call_tool("explain", {"sql": "TABLE treatment"})).structured_content["plan"]
    )
    assert (await client.call_tool("describe", {"table": "hospital"})).structured_content["primary_key"] == ["location"]
    for tool, arguments, said in (
        ("query", {"sql": "DELETE FROM hospital"}, "query_refused"),
        ("query", {"sql": "SELECT no FROM hospital"}, "server_refused"),
        ("describe", {"table": "treatment_chicago"}, "unknown_name"),
        ("search", {"table": "treatment", "question": "", "k": 3}, "bad_input"),
        ("search", {"table": "treatment", "question": "x", "k": 1_000_000}, "k"),
        ("query", {}, "sql"),
        ("drop_table", {"table": "hospital"}, "drop_table"),
    ):
        refused = await client.call_tool(tool, arguments)
        assert refused.is_error, tool
        assert said in refused.content[0].text


async def refusals(client: Any) -> list[str]:
    """The hostile statements that the query tool has answered."""
    through = []
    for one in hostile(reader="r", scribe="s", link="l", db="d"):
        answer = await client.call_tool("query", {"sql": one.text})
        if not answer.is_error or "query_refused" not in answer.content[0].text:
            through.append(one.text)
    return through


def test_over_stdio(fleet_db: Path) -> None:
    reader, _ = asyncio.run(make_hospitals(fleet_db, "us-east"))

    async def story() -> list[dict[str, Any]]:
        server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "--home", str(fleet_db)])
        async with Client(server) as client:
            await conversation(client)
            assert await refusals(client) == []
        async with pgherd.connect_async(home=fleet_db) as herd:
            return await read_log(herd, "us-east", 3600, 10_000)

    entries = asyncio.run(story())
    assert {e["client"] for e in entries} == {"stdio"}
    assert {e["role"] for e in entries} == {reader.role}
    assert len([e for e in entries if (e["refused"] or "").startswith("refused: ")]) > 300


def test_over_http_with_a_token(fleet_db: Path, tmp_path: Path) -> None:
    asyncio.run(make_hospitals(fleet_db, "us-east"))
    token = secrets.token_urlsafe(32)
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--transport", "http", "--port", str(port), "--token-file", str(file), "--home", str(fleet_db)]
    log = tmp_path / "log"
    with log.open("wb") as out, subprocess.Popen([*COMMAND, *options], stdout=out, stderr=out) as process:
        try:
            url = f"http://127.0.0.1:{port}/mcp"
            wait_for(lambda: listening(port) or process.poll() is not None)
            asyncio.run(with_token(url, token, conversation))
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            shown = [{}, *({"Authorization": a} for a in ("Bearer", token, f"Bearer {token}x", f"Basic {token}"))]
            for headers in shown:
                assert httpx2.post(url, json=body, headers=headers).status_code == 401
                assert httpx2.get(f"http://127.0.0.1:{port}/", headers=headers).status_code == 401
            headers = {"Authorization": f"Bearer {token}", "Host": "evil.example"}
            assert (
                httpx2.post(url, json=body, headers=headers).status_code == 421
            )  # a page that was led to this address
        finally:
            process.terminate()
            process.wait(30)
    assert token not in log.read_text()


async def with_token(url: str, token: str, talk: Callable[[Any], Awaitable[None]]) -> None:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}))
        await talk(await stack.enter_async_context(Client(streamable_http_client(url, http_client=http))))


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(what: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
