"""Sessions for tests: the stub upstream gives out the id that the test wants."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.bed import Bed, request
from tests.mcp_server import StubUpstream, reply

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


async def begin(bed: Bed, stub: StubUpstream, session_id: str, **credential: Any) -> httpx.Response:
    """Initialize with this credential; the request is not among what the stub has recorded afterwards."""
    answer, result = stub.answer, {"jsonrpc": "2.0", "id": 1, "result": HELLO}
    stub.answer = reply(200, result, Mcp_Session_Id=session_id)
    try:
        given = await bed.post(request("initialize", HELLO), **credential)
    finally:
        stub.answer = answer
    if given.status_code == 200:
        stub.received.pop()
    return given


def within(session_id: str) -> tuple[tuple[str, str], ...]:
    return (("Mcp-Session-Id", session_id),)
