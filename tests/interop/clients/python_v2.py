"""Drive the official Python client 2.x: over HTTP, or over the stdio of another program (`mcp-remote`).

`python_v2.py MODE URL [HEADER VALUE]` or `python_v2.py MODE -- COMMAND…`; prints what happened as one JSON object.
With `CONFIRM` in the environment it does as `python_v1.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from typing import Any

from mcp import Client, types
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

WHOLE_S = 40
Seen = dict[str, Any]


HOW = os.environ.get("CONFIRM")


async def answer(context: Any, params: Any) -> types.ElicitResult:
    if HOW == "leave":
        print(json.dumps({"left": True}), flush=True)  # noqa: T201 - its one line of output
        os._exit(0)
    if HOW == "late":
        await asyncio.sleep(3)
    if HOW is not None:
        action: Any = "accept" if HOW == "late" else HOW
        return types.ElicitResult(action=action, content={"confirm": True} if action == "accept" else None)
    return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})


def said(result: types.CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text


async def walk(client: Client, seen: Seen) -> None:
    seen["version"] = client.protocol_version
    if HOW is not None:
        result = await client.call_tool("write_note", {"note": "x"})
        seen["said"], seen["is_error"] = said(result), result.is_error
        return
    seen["tools"] = [tool.name for tool in (await client.list_tools()).tools]
    seen["read"] = said(await client.call_tool("test_simple_text", {}))

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen["progress"].append(progress)

    await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
    seen["elicited"] = said(await client.call_tool("test_elicitation", {"message": "Who?"}))
    try:
        seen["written"] = said(await client.call_tool("write_note", {"note": "x"}))
    except Exception as refused:
        seen["refused"] = str(refused)
    seen["after"] = said(await client.call_tool("test_simple_text", {}))


async def main(mode: str, target: list[str]) -> Seen:
    seen: Seen = {"progress": []}
    try:
        async with asyncio.timeout(WHOLE_S), AsyncExitStack() as stack:
            if target[0] == "--":
                server: Any = StdioServerParameters(command=target[1], args=target[2:], env=dict(os.environ))
            else:
                headers = {target[1]: target[2]} if target[1:] else {}
                http = await stack.enter_async_context(create_mcp_http_client(headers=headers))
                server = streamable_http_client(target[0], http_client=http)
            client = await stack.enter_async_context(
                Client(
                    server,
                    mode="2026-07-28" if mode == "modern" else "legacy",
                    elicitation_callback=None if HOW == "none" else answer,
                )
            )
            await walk(client, seen)
    except BaseException as fatal:
        seen["died"] = repr(fatal)
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2:]))))  # noqa: T201 - its one line of output
