# mypy: ignore-errors
# The types are those of mcp 1.x, which lives in a virtual environment of its own.
"""Drive the official Python client 1.x: `python_v1.py URL [HEADER VALUE]`; prints what happened as one JSON object.

With `CONFIRM` in the environment it only calls a tool that writes, and its person says that: accept, decline or cancel,
accept too late, or the client leaves, or can't ask (none).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client

HOW = os.environ.get("CONFIRM")


async def answer(context, params):
    if HOW == "leave":
        print(json.dumps({"left": True}), flush=True)  # noqa: T201 - its one line of output
        os._exit(0)
    if HOW == "late":
        await asyncio.sleep(3)
    if HOW is not None:
        action = "accept" if HOW == "late" else HOW
        return types.ElicitResult(action=action, content={"confirm": True} if action == "accept" else None)
    return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})


async def confirm(session, seen):
    result = await session.call_tool("write_note", {"note": "x"})
    seen["said"], seen["is_error"] = result.content[0].text, result.isError


async def walk(session, seen):
    begun = await session.initialize()
    seen["version"] = begun.protocolVersion
    if HOW is not None:
        await confirm(session, seen)
        return
    seen["tools"] = [tool.name for tool in (await session.list_tools()).tools]
    seen["read"] = (await session.call_tool("test_simple_text", {})).content[0].text

    async def on_progress(progress, total, message):
        seen["progress"].append(progress)

    await session.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
    seen["elicited"] = (await session.call_tool("test_elicitation", {"message": "Who?"})).content[0].text
    try:
        seen["written"] = (await session.call_tool("write_note", {"note": "x"})).content[0].text
    except Exception as refused:
        seen["refused"] = str(refused)
    seen["after"] = (await session.call_tool("test_simple_text", {})).content[0].text


async def main(url, headers):
    seen = {"progress": []}
    try:
        async with (
            asyncio.timeout(20),
            streamablehttp_client(url, headers=headers) as (read, write, _),
            ClientSession(read, write, elicitation_callback=None if HOW == "none" else answer) as session,
        ):
            await walk(session, seen)
    except BaseException as fatal:
        seen["died"] = repr(fatal)
    print(json.dumps(seen))  # noqa: T201 - its one line of output


asyncio.run(main(sys.argv[1], dict([sys.argv[2:4]] if sys.argv[2:] else [])))
