# mypy: ignore-errors
# The types are those of mcp 1.x, which lives in a virtual environment of its own.
"""Drive the official Python client 1.x: `python_v1.py URL [HEADER VALUE]`; prints what happened as one JSON object."""

from __future__ import annotations

import asyncio
import json
import sys

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client


async def answer(context, params):
    return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})


async def walk(session, seen):
    begun = await session.initialize()
    seen["version"] = begun.protocolVersion
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
            ClientSession(read, write, elicitation_callback=answer) as session,
        ):
            await walk(session, seen)
    except BaseException as fatal:
        seen["died"] = repr(fatal)
    print(json.dumps(seen))  # noqa: T201 - its one line of output


asyncio.run(main(sys.argv[1], dict([sys.argv[2:4]] if sys.argv[2:] else [])))
