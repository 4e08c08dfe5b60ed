"""The official MCP client against the real MCP server, through both routes and in both eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, Bed, tool_call
from tests.e2e.conftest import Start

Mode = Literal["legacy", "auto", "2026-07-28"]
READS = {"list_accounts", "get_balance", "list_transactions", "slow_report"}
WRITES = {"add_transaction", "delete_transaction"}

pytestmark = pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])


@pytest.fixture
async def bed(start: Start, finance_url: str) -> Bed:
    """A sidecar in front of the finance server, which knows its tools from their annotations alone."""
    tools: dict[str, Any] = {"read": [], "write": [], "destructive": []}
    bed = await start(upstream={"url": finance_url}, access={"tools": tools}, confirmation={"tools": "never"})
    await bed.post_when_catalogued(tool_call("add_transaction"), token=bed.token("mcp:read"))
    return bed


@asynccontextmanager
async def connected(bed: Bed, mode: Mode, path: str, headers: dict[str, str]) -> AsyncIterator[Client]:
    """Connect the official client with these headers."""
    http_client = create_mcp_http_client(headers=headers)
    transport = streamable_http_client(bed.sidecar.public_url_bound + path, http_client=http_client)
    async with asyncio.timeout(20), http_client, Client(transport, mode=mode) as client:
        yield client


async def by_token(bed: Bed, scope: str, account: str) -> tuple[str, dict[str, str]]:
    return JWT_ROUTE, {"Authorization": f"Bearer {bed.token(scope, sub=account)}"}


async def by_key(bed: Bed, scope: str, account: str) -> tuple[str, dict[str, str]]:
    return KEY_ROUTE, {"X-API-Key": await bed.key(scope, account=account)}


async def by_bearer_key(bed: Bed, scope: str, account: str) -> tuple[str, dict[str, str]]:
    return KEY_ROUTE, {"Authorization": f"Bearer {await bed.key(scope, account=account)}"}


ways = pytest.mark.parametrize("way", [by_token, by_key])


@ways
async def test_tools_are_listed_and_called(bed: Bed, mode: Mode, way: Any) -> None:
    async with connected(bed, mode, *await way(bed, "mcp:full", f"{way.__name__}-{mode}")) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READS | WRITES
        before = await client.call_tool("get_balance", {})
        added = await client.call_tool("add_transaction", {"description": "Lottery", "amount_cents": 100})
        after = await client.call_tool("get_balance", {"account": "checking"})
        assert before.structured_content is not None
        assert after.structured_content is not None
        assert added.structured_content is not None
        assert after.structured_content["balance_cents"] - before.structured_content["balance_cents"] == 100
        gone = await client.call_tool("delete_transaction", {"id": added.structured_content["id"]})
        assert not gone.is_error


@ways
async def test_progress_arrives_while_the_call_runs(bed: Bed, mode: Mode, way: Any) -> None:
    steps, running = list[float](), list[bool]()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)
        running.append(not call.done())

    async with connected(bed, mode, *await way(bed, "mcp:read", "carol")) as client:
        call = asyncio.create_task(
            client.call_tool("slow_report", {"steps": 4, "pause_ms": 20}, progress_callback=on_progress)
        )
        result = await call
    assert not result.is_error
    assert steps == [1, 2, 3, 4]
    assert all(running)


@pytest.mark.parametrize("way", [by_token, by_bearer_key])
async def test_accounts_are_kept_apart(bed: Bed, mode: Mode, way: Any) -> None:
    writer, reader = f"{way.__name__}-{mode}-writer", f"{way.__name__}-{mode}-reader"
    async with connected(bed, mode, *await way(bed, "mcp:full", writer)) as client:
        await client.call_tool("add_transaction", {"description": "Private", "amount_cents": -1})
    async with connected(bed, mode, *await way(bed, "mcp:full", reader)) as client:
        shown = await client.call_tool("list_transactions", {})
    assert "Private" not in str(shown.structured_content)


@ways
async def test_a_refused_call_is_an_error_and_the_connection_lives(bed: Bed, mode: Mode, way: Any) -> None:
    async with connected(bed, mode, *await way(bed, "mcp:read", "dave")) as client:
        for tool, arguments in (
            ("add_transaction", {"description": "x", "amount_cents": 1}),
            ("delete_transaction", {"id": "t1"}),
        ):
            with pytest.raises(MCPError):
                await client.call_tool(tool, arguments)
        assert not (await client.call_tool("get_balance", {})).is_error


@pytest.mark.parametrize("way", [by_token])
async def test_resources_and_prompts_pass(bed: Bed, mode: Mode, way: Any) -> None:
    async with connected(bed, mode, *await way(bed, "mcp:read", "erin")) as client:
        assert [resource.name for resource in (await client.list_resources()).resources] == ["categories"]
        assert "groceries" in str(await client.read_resource("finance://categories"))
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["monthly_review"]
        assert "May" in str(await client.get_prompt("monthly_review", {"month": "May"}))


async def test_a_stranger_does_not_get_in(bed: Bed, mode: Mode) -> None:
    for path, headers in ((JWT_ROUTE, {}), (KEY_ROUTE, {"X-API-Key": bed.secret("mcp_" + "0" * 46)})):
        with pytest.raises((MCPError, ExceptionGroup)):
            async with connected(bed, mode, path, headers) as client:
                await client.list_tools()
