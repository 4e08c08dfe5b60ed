"""Which address of a name is connected to, and how often connecting is tried."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.denials import BadGateway, GatewayTimeout
from sidecar.edge.upstream import UpstreamClient
from tests.edge.scripted_upstream import OK, Peer, always, black_hole, once_then_wait, scripted

POST = ("POST", "/mcp", (), b"{}")
OTHER = "127.0.0.2"
needs_a_second_loopback = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 unasked")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Have every name stand for these addresses, in this order; return the names that will have been asked for."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


@contextlib.asynccontextmanager
async def client_at(
    port: int, *, host: str = "server.test", connect_timeout_s: float = 5
) -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(f"http://{host}:{port}", connect_timeout_s=connect_timeout_s, response_timeout_s=5)
    try:
        yield client
    finally:
        await client.aclose()


@needs_a_second_loopback
async def test_an_address_that_swallows_everything_does_not_hide_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(always(OK)) as upstream:
        with black_hole(OTHER, upstream.port):
            resolve_to(monkeypatch, OTHER, "127.0.0.1")
            async with client_at(upstream.port) as client:
                assert (await client.send(*POST)).complete() == b"ok"


@needs_a_second_loopback
async def test_however_many_swallow_everything_the_last_is_tried_within_the_connect_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holes = [f"127.0.0.{number}" for number in range(2, 8)]
    async with scripted(always(OK)) as upstream, client_at(upstream.port, connect_timeout_s=1) as client:
        with contextlib.ExitStack() as stack:
            for hole in holes:
                stack.enter_context(black_hole(hole, upstream.port))
            resolve_to(monkeypatch, *holes, "127.0.0.1")
            assert (await client.send(*POST)).complete() == b"ok"


@needs_a_second_loopback
async def test_an_address_that_refuses_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(always(OK)) as upstream, client_at(upstream.port) as client:
        resolve_to(monkeypatch, OTHER, "127.0.0.1")
        assert (await client.send(*POST)).complete() == b"ok"
        assert upstream.accepted == 1


async def test_a_name_of_which_no_address_answers_is_a_gateway_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as port:
        resolve_to(monkeypatch, "127.0.0.1")
        async with client_at(port, connect_timeout_s=0.05) as client:
            with pytest.raises(GatewayTimeout, match="upstream_connect_timeout"):
                await client.send(*POST)


async def test_a_name_that_cannot_be_resolved_is_a_bad_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with client_at(1) as client:
        with pytest.raises(BadGateway, match="upstream_connect"):
            await client.send(*POST)


async def test_a_connection_that_comes_second_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both addresses answer in the very same turn of the event loop."""
    loop = asyncio.get_running_loop()
    create_connection, both = loop.create_connection, asyncio.Barrier(2)

    async def together(factory: Any, address: str, *args: Any, **kwargs: Any) -> Any:
        created = await create_connection(factory, "127.0.0.1", *args, **kwargs)
        await both.wait()
        return created

    closed = asyncio.Event()
    async with scripted(once_then_wait(b"", closed)) as upstream, client_at(upstream.port) as client:
        resolve_to(monkeypatch, OTHER, "127.0.0.1")
        monkeypatch.setattr(loop, "create_connection", together)
        assert await client.reachable()
        await closed.wait()
        assert upstream.accepted == 2


async def test_a_literal_address_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve_to(monkeypatch)
    async with scripted(always(OK)) as upstream, client_at(upstream.port, host="127.0.0.1") as client:
        assert (await client.send(*POST)).complete() == b"ok"
    assert asked == []


def listening_after_the_first_refusal(monkeypatch: pytest.MonkeyPatch, server: socket.socket) -> list[str]:
    """Have a bound socket listen once a connection was refused; return what will have become of each attempt."""
    loop = asyncio.get_running_loop()
    create_connection, attempts = loop.create_connection, list[str]()

    async def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            created = await create_connection(*args, **kwargs)
        except ConnectionRefusedError:
            attempts.append("refused")
            server.listen()
            raise
        attempts.append("taken")
        return created

    monkeypatch.setattr(loop, "create_connection", watched)
    return attempts


async def test_a_connection_that_is_refused_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        attempts = listening_after_the_first_refusal(monkeypatch, server)
        async with client_at(server.getsockname()[1], host="127.0.0.1") as client:
            assert await client.reachable()
    assert attempts == ["refused", "taken"]


async def test_and_not_a_third_time(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    async def refused(*_: Any, **__: Any) -> Any:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refused)
    async with client_at(1, host="127.0.0.1") as client:
        with pytest.raises(BadGateway, match="upstream_connect"):
            await client.send(*POST)
    assert attempts == 2


async def test_a_connection_that_is_closed_before_anything_is_sent_is_asked_for_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    create_connection, opened = loop.create_connection, 0

    async def closed_at_first(*args: Any, **kwargs: Any) -> Any:
        nonlocal opened
        opened += 1
        created = await create_connection(*args, **kwargs)
        if opened == 1:
            created[0].close()
        return created

    monkeypatch.setattr(loop, "create_connection", closed_at_first)
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        if request := await peer.request():
            requests.append(request)
            await peer.send(OK)

    async with scripted(script) as upstream, client_at(upstream.port, host="127.0.0.1") as client:
        assert (await client.send(*POST)).complete() == b"ok"
    assert (opened, len(requests)) == (2, 1)


async def test_a_connection_that_is_closed_after_the_request_is_not() -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.request())

    async with scripted(script) as upstream, client_at(upstream.port, host="127.0.0.1") as client:
        with pytest.raises(BadGateway, match="upstream_closed"):
            await client.send(*POST)
    assert (upstream.accepted, len(requests)) == (1, 1)
