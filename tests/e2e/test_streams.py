"""Streams: what ends them, how many there may be, and what a silent one looks like."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from sidecar.denials import Conflict, StoreUnavailable
from sidecar.edge.http import server
from sidecar.edge.redis.names import changes
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, Bed, assert_refused, credentials, request
from tests.e2e.conftest import Start, StoreName
from tests.mcp_server import Stream, StubUpstream
from tests.stores import redis_client

Pieces = AsyncIterator[bytes]


@asynccontextmanager
async def streaming(
    bed: Bed, stub: StubUpstream, method: str, **credential: Any
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open a stream and read its first event; then the upstream is silent."""
    stream = Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    path = KEY_ROUTE if "key" in credential else JWT_ROUTE
    body: dict[str, Any] = {"json": request("ping")} if method == "POST" else {}
    async with bed.client.stream(method, path, headers=credentials(**credential), **body) as answer:
        assert answer.status_code == 200
        assert answer.headers["X-Accel-Buffering"] == "no"
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: {}\n\n"
        yield pieces
    await stream.left.wait()


async def ends(pieces: Pieces) -> bool:
    """Tell whether the stream comes to a clean end soon."""
    async with asyncio.timeout(5):
        return [piece async for piece in pieces] == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_revoked_key_ends_its_streams(start: Start, stub: StubUpstream, store: StoreName, method: str) -> None:
    bed = await start(store)
    key, other = await bed.key("mcp:full"), await bed.key("mcp:full")
    async with streaming(bed, stub, method, key=other), streaming(bed, stub, method, key=key) as pieces:
        await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        assert await ends(pieces)
        assert [line["reason"] for line in bed.accesses() if line["principal"] == f"key_{key[4:16]}"] == ["revoked"]
        assert not [line for line in bed.accesses() if line["principal"] == f"key_{other[4:16]}"]


async def test_an_answer_that_is_no_stream_of_events_is_visibly_cut_short_with_its_key(
    start: Start, stub: StubUpstream
) -> None:
    bed, answer = await start(), Stream("application/json")
    key, stub.answer = await bed.key("mcp:full"), answer.answer
    answer.send(b'{"jsonrpc":"2.0","id":1,"result":[1,')
    body = {"json": request("ping"), "headers": credentials(key=key)}
    async with asyncio.timeout(5), bed.client.stream("POST", KEY_ROUTE, **body) as begun:  # type: ignore[arg-type]
        pieces = begun.aiter_raw()
        await anext(pieces)
        await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        with pytest.raises(httpx.RemoteProtocolError):
            [piece async for piece in pieces]
    await answer.left.wait()
    assert [(line["outcome"], line["reason"]) for line in bed.accesses()] == [("forwarded", "revoked")]


async def test_a_length_that_the_upstream_announced_for_its_events_is_not_kept_to(
    start: Start, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we add in a silence would not fit in, and the rest would be taken for the next answer."""
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    paused = asyncio.Event()
    event = b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'

    async def answer(asked: web.BaseRequest, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.content_length = 2 * len(event)
        await response.prepare(asked)
        await response.write(event)
        await paused.wait()
        await response.write(event)
        return response

    bed, stub.answer = await start(), answer
    headers = credentials(token=bed.token())
    async with asyncio.timeout(5):
        async with bed.client.stream("POST", JWT_ROUTE, json=request("ping"), headers=headers) as begun:
            assert "Content-Length" not in begun.headers
            received = b""
            async for piece in begun.aiter_raw():
                received += piece
                if b": keep-alive\n\n" in received:
                    paused.set()
    assert received.count(event) == 2


async def test_a_client_that_does_not_read_loses_its_connection_with_its_key(start: Start, stub: StubUpstream) -> None:
    """It would hold the stream open for as long as it likes."""
    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    key = await bed.key("mcp:full")
    for _ in range(256):
        stream.send(b"data: " + b"x" * 65_536 + b"\n\n")
    host, _, port = bed.sidecar.public_url_bound.removeprefix("http://").rpartition(":")
    async with asyncio.timeout(5):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads and writes
        writer.write(f"GET {KEY_ROUTE} HTTP/1.1\r\nHost: sidecar\r\nX-API-Key: {key}\r\n\r\n".encode())
        await stream.opened.wait()
        await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        await stream.left.wait()
        while not bed.accesses():  # noqa: ASYNC110 - the line comes when the client's side has ended too
            await asyncio.sleep(0.01)
        writer.close()
    assert [line["reason"] for line in bed.accesses()] == ["revoked"]


@pytest.mark.parametrize("part", [None, b'{"jsonrpc":'], ids=["no head", "half a list"])
async def test_a_revoked_key_is_refused_where_no_answer_was_sent_yet(
    start: Start, stub: StubUpstream, store: StoreName, part: bytes | None
) -> None:
    """A list is read whole before its client gets any of it."""
    bed, stream, asked, left = await start(store), Stream("application/json"), asyncio.Event(), asyncio.Event()

    async def hold(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        asked.set()
        try:
            if part is not None:
                stream.send(part)
                return await stream.answer(request, body)
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    stub.answer = hold
    key = await bed.key("mcp:full")
    async with asyncio.timeout(5):
        answer = asyncio.ensure_future(bed.post(request("tools/list"), key=key))
        await asked.wait()
        await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        assert_refused(await answer, 401, "INVALID_API_KEY")
        await left.wait()
    assert [(line["status"], line["outcome"]) for line in bed.accesses()] == [(401, "invalid_api_key")]


async def test_a_revoked_account_ends_the_streams_of_its_tokens(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store)
    async with streaming(bed, stub, "GET", token=bed.token()) as pieces:
        await bed.sidecar.keyring.revoke_account("alice")
        assert await ends(pieces)


async def test_a_rotated_key_ends_its_streams_when_its_grace_is_over(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    key = await bed.key("mcp:full")
    async with streaming(bed, stub, "GET", key=key) as pieces:
        await bed.sidecar.keyring.rotate("alice", f"key_{key[4:16]}", 0, created_by="x", origin="cli", granted=None)
        assert await ends(pieces)


async def test_a_credential_has_so_many_streams_and_no_more(start: Start, stub: StubUpstream) -> None:
    bed = await start(limits={"policies": [], "streams": {"per_credential": 1}})
    token = bed.token()
    async with streaming(bed, stub, "GET", token=token):
        refused = await bed.client.get(JWT_ROUTE, headers=credentials(token=token))
        assert_refused(refused, 429, "RATE_LIMIT_EXCEEDED", id=None)
        async with streaming(bed, stub, "POST", token=token), streaming(bed, stub, "GET", token=bed.token(sub="bob")):
            pass
    async with streaming(bed, stub, "GET", token=token):
        pass


async def test_a_client_that_leaves_gives_its_place_back(start: Start, stub: StubUpstream) -> None:
    bed = await start(limits={"policies": [], "streams": {"per_credential": 1}})
    token = bed.token()
    for _ in range(3):
        async with asyncio.timeout(5):
            while True:
                try:
                    async with streaming(bed, stub, "GET", token=token):
                        break
                except (AssertionError, httpx.HTTPError):
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("outcome", [None, Conflict("key_limit")])
async def test_a_revocation_that_has_begun_is_finished_though_its_client_leaves(
    start: Start, outcome: Exception | None
) -> None:
    bed, told = await start(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    key, revoke = await bed.key("mcp:full"), bed.sidecar.keyring.revoke
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(account: str, key_id: str) -> None:
        begun.set()
        await go.wait()
        await revoke(account, key_id)
        done.set()
        if outcome is not None:
            raise outcome

    bed.sidecar.keyring.revoke = slow  # type: ignore[method-assign]  # as a store that takes its time
    host, _, port = bed.sidecar.public_url_bound.removeprefix("http://").rpartition(":")
    path, token = f"{KEYS}/key_{key[4:16]}", bed.token()
    async with asyncio.timeout(5):
        _, writer = await asyncio.open_connection(host, int(port))
        lines = f"DELETE {path} HTTP/1.1\r\nHost: sidecar\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(lines.encode())
        await begun.wait()
        writer.close()
        while not bed.accesses():  # noqa: ASYNC110 - the line tells that the server has seen its client leave
            await asyncio.sleep(0.01)
        go.set()
        await done.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert [line["outcome"] for line in bed.accesses()] == ["client_closed"]
    assert told == []


async def test_a_lost_notice_ends_the_streams_with_the_next_try(start: Start, stub: StubUpstream) -> None:
    bed = await start("redis")
    key = await bed.key("mcp:full")
    async with streaming(bed, stub, "GET", key=key) as pieces, redis_client(bed.settings["store"]["url"]) as redis:
        await redis.set(changes(), "where no change can be written")
        with pytest.raises(StoreUnavailable):
            await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        await redis.delete(changes())
        await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        assert await ends(pieces)
