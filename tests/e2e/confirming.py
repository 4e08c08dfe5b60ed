"""Calls that wait for a person, as clients make them and people answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.bed import JWT_ROUTE, Bed, credentials, request, tool_call
from tests.mcp_server import Received, StubUpstream, reply

ASKS: dict[str, Any] = {"elicitation": {}}
YES = {"action": "accept", "content": {"confirm": True}}
UNTICKED = {"action": "accept", "content": {"confirm": False}}
NO = {"action": "decline"}
CLOSED = {"action": "cancel"}
DROP = tool_call("drop", id=7, table="users")


def at(session_id: str, version: str = "2025-11-25") -> tuple[tuple[str, str], ...]:
    """Return what a client sends with every request of a session."""
    return (("Mcp-Session-Id", session_id), ("MCP-Protocol-Version", version))


async def begin(
    bed: Bed,
    stub: StubUpstream,
    session_id: str = "s-1",
    *,
    capabilities: Mapping[str, Any] | None = None,
    version: str = "2025-11-25",
    **credential: Any,
) -> None:
    """Initialize as a client that can ask people, unless other capabilities are given."""
    hello = {"protocolVersion": version, "clientInfo": {"name": "test", "version": "1"}}
    hello["capabilities"] = ASKS if capabilities is None else capabilities
    answer, stub.answer = (
        stub.answer,
        reply(200, {"jsonrpc": "2.0", "id": 1, "result": hello}, Mcp_Session_Id=session_id),
    )
    try:
        assert (await bed.post(request("initialize", hello), **credential)).status_code == 200
    finally:
        stub.answer = answer
    stub.received.pop()


@dataclass
class HeldCall:
    """A call whose answer is an event stream, read as it comes."""

    response: httpx.Response
    _lines: AsyncIterator[str]
    comments: list[str] = field(default_factory=list)

    async def message(self) -> dict[str, Any]:
        """Return the next message; the test fails when none comes within 10 s."""
        async with asyncio.timeout(10):
            data = []
            async for line in self._lines:
                if line.startswith("data:"):
                    data.append(line.removeprefix("data:").removeprefix(" "))
                elif line.startswith(":"):
                    self.comments.append(line)
                elif not line and data:
                    message: dict[str, Any] = json.loads("\n".join(data))
                    return message
        raise AssertionError("the answer ended without a message")

    async def ends(self) -> None:
        """Return when the answer is over, with no further message."""
        async with asyncio.timeout(10):
            rest = [line async for line in self._lines if not line.startswith(":")]
        assert not [line for line in rest if line]


@asynccontextmanager
async def calling(
    bed: Bed,
    message: Mapping[str, Any] = DROP,
    *,
    headers: tuple[tuple[str, str], ...] = at("s-1"),
    path: str = JWT_ROUTE,
    **credential: Any,
) -> AsyncIterator[HeldCall]:
    """Make a call, and read its answer as it comes."""
    lines = [("Accept", "application/json, text/event-stream"), ("Content-Type", "application/json")]
    lines += [*credentials(**credential), *headers]
    async with bed.client.stream("POST", path, content=json.dumps(message).encode(), headers=lines) as response:
        yield HeldCall(response, response.aiter_lines())


def answer_to(question: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": question["id"], "result": dict(result)}


def calls(stub: StubUpstream) -> list[Received]:
    """Return the calls of tools that the upstream has got."""
    return [one for one in stub.received if b"tools/call" in one.body]


def text_of(message: Mapping[str, Any]) -> str:
    """Return what the model reads of a result that is an error."""
    assert message["result"]["isError"] is True
    (content,) = message["result"]["content"]
    assert content["type"] == "text"
    return str(content["text"])


def able(message: Mapping[str, Any], capabilities: Mapping[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    """Return a message of a client of 2026-07-28 that can ask people, unless other capabilities are given."""
    meta = {"io.modelcontextprotocol/clientCapabilities": ASKS if capabilities is None else dict(capabilities)}
    return {**message, "params": {**message["params"], "_meta": meta, **params}}


def retry(
    asked: Mapping[str, Any], said: Mapping[str, Any] = YES, message: Mapping[str, Any] = DROP, **params: Any
) -> Any:
    """Return the call that comes back with an answer to what was asked."""
    result = asked["result"]
    answers = {key: dict(said) for key in result["inputRequests"]}
    again = able(message, inputResponses=answers, requestState=result["requestState"])
    return {**again, "id": 8, "params": {**again["params"], **params}}
