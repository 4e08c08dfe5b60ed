"""How long anything is waited for, and what cannot be reached."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sidecar.denials import BadGateway, GatewayTimeout
from sidecar.edge.upstream import Deadlines, UpstreamClient
from tests.edge.scripted_upstream import OK, Peer, black_hole, client_of, once_then_wait, scripted

POST = ("POST", "/mcp", (), b"{}")


async def test_no_head_in_time_is_a_gateway_timeout_and_the_connection_is_closed() -> None:
    closed = asyncio.Event()
    async with (
        scripted(once_then_wait(OK[:20], closed)) as upstream,
        client_of(upstream, response_timeout_s=0.02) as client,
    ):
        with pytest.raises(GatewayTimeout) as caught:
            await client.send(*POST)
        assert caught.value.reason == "upstream_timeout"
        await closed.wait()


async def test_so_is_an_upstream_that_does_not_take_a_large_body() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await ended.wait()

    async with scripted(script) as upstream, client_of(upstream, response_timeout_s=0.02) as client:
        with pytest.raises(GatewayTimeout, match="upstream_timeout"):
            await client.send("POST", "/mcp", (), bytes(32_000_000))
        ended.set()


async def test_the_time_for_the_head_does_not_bound_the_body() -> None:
    waited = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK[:-1])
        await waited.wait()
        await peer.send(OK[-1:])

    async with scripted(script) as upstream, client_of(upstream, response_timeout_s=0.1) as client:
        answer = await client.send(*POST)
        asyncio.get_running_loop().call_later(0.15, waited.set)
        assert await answer.read(2) == b"ok"


async def test_a_handshake_that_takes_too_long_is_a_gateway_timeout() -> None:
    closed = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.gone()
        closed.set()

    async with scripted(silent) as upstream, client_of(upstream, scheme="https", connect_timeout_s=0.02) as client:
        with pytest.raises(GatewayTimeout) as caught:
            await client.send(*POST)
        assert caught.value.reason == "upstream_connect_timeout"
        assert not await client.reachable()
        await closed.wait()


async def test_a_refused_connection_is_a_bad_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    client = UpstreamClient(url, connect_timeout_s=5, response_timeout_s=5)
    with pytest.raises(BadGateway) as caught:
        await client.send(*POST)
    assert caught.value.reason == "upstream_connect"
    assert not await client.reachable()
    await client.aclose()


async def test_whether_it_is_reachable_is_told_soon_however_long_a_connection_may_take() -> None:
    with black_hole() as port:
        client = UpstreamClient(f"http://127.0.0.1:{port}", connect_timeout_s=3600, response_timeout_s=5)
        async with asyncio.timeout(10):
            assert not await client.reachable()
        await client.aclose()


async def test_one_timer_ends_many_waits_in_the_order_in_which_they_began() -> None:
    ended: list[str] = []
    done = asyncio.Event()

    def end(name: str) -> None:
        ended.append(name)
        if name == "last":
            done.set()

    deadlines: Deadlines[str] = Deadlines(0.01, end)
    for name in ("first", "stopped", "second", "later"):
        deadlines.start(name)
    deadlines.stop("stopped")
    deadlines.restart("second")
    asyncio.get_running_loop().call_later(0.005, deadlines.start, "last")
    async with asyncio.timeout(10):
        await done.wait()
    assert ended == ["first", "later", "second", "last"]
    deadlines.start("cleared")
    deadlines.clear()
    assert not deadlines.due
