"""What the client gets back: untouched, at once, without what the upstream may not say for us."""

from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest
from aiohttp import web

from tests.e2e.bed import JWT_ROUTE, Bed, credentials, request
from tests.e2e.conftest import Start
from tests.mcp_server import Stream, StubUpstream, reply

FIRST, SECOND = b"id: 1\r\nevent: message\r\ndata: {}\r\n\r\n", b": keep-alive\n\nretry: 5\ndata:\n\n"
BOUND_S = 5


def stream_post(bed: Bed, token: str) -> httpx.Request:
    lines = [("Accept", "text/event-stream"), *credentials(token=token)]
    return bed.client.build_request("POST", JWT_ROUTE, json=request("ping"), headers=lines)


async def test_the_first_event_arrives_while_the_second_is_withheld(start: Start, stub: StubUpstream) -> None:
    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    for build in (stream_post, stream_get):
        async with asyncio.timeout(BOUND_S):
            stream.send(FIRST)
            answer = await bed.client.send(build(bed, bed.token()), stream=True)
            pieces = answer.aiter_raw()
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert await anext(pieces) == FIRST
            stream.send(SECOND)
            assert await anext(pieces) == SECOND
            stream.end()
            assert [piece async for piece in pieces] == []
            await answer.aclose()


def stream_get(bed: Bed, token: str) -> httpx.Request:
    lines = [("Accept", "text/event-stream"), *credentials(token=token)]
    return bed.client.build_request("GET", JWT_ROUTE, headers=lines)


async def test_the_head_of_a_stream_arrives_before_its_first_event(start: Start, stub: StubUpstream) -> None:
    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    async with asyncio.timeout(BOUND_S):
        answer = await bed.client.send(stream_get(bed, bed.token()), stream=True)
        assert answer.status_code == 200
        await answer.aclose()


@pytest.mark.parametrize("after_first_event", [True, False])
async def test_a_client_that_leaves_takes_its_upstream_request_with_it(
    start: Start, stub: StubUpstream, after_first_event: bool
) -> None:
    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    async with asyncio.timeout(BOUND_S):
        answer = await bed.client.send(stream_post(bed, bed.token()), stream=True)
        if after_first_event:
            stream.send(FIRST)
            await anext(answer.aiter_raw())
        await answer.aclose()
        await stream.left.wait()


async def test_a_client_that_leaves_before_the_answer_takes_its_upstream_request_with_it(
    start: Start, stub: StubUpstream
) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def never(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return web.Response()

    bed = await start()
    stub.answer = never
    async with asyncio.timeout(BOUND_S):
        asking = asyncio.create_task(bed.post(request("ping"), token=bed.token()))
        await arrived.wait()
        asking.cancel()
        await left.wait()


async def test_an_answer_that_breaks_off_is_not_made_to_look_complete(start: Start, stub: StubUpstream) -> None:
    async def break_off(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(FIRST)
        assert request.transport is not None
        request.transport.close()
        return response

    bed = await start()
    stub.answer = break_off
    with pytest.raises(httpx.RemoteProtocolError):
        await bed.post(request("ping"), token=bed.token())
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}})
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200


async def test_the_upstreams_own_status_and_body_pass(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    document = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "mine"}}
    for status in (200, 201, 202, 400, 404, 405, 406, 409, 413, 429, 500, 503):
        stub.answer = reply(status, document)
        answer = await bed.post(request("ping"), token=bed.token())
        assert (answer.status_code, answer.json()) == (status, document)
    stub.answer = reply(204)
    answer = await bed.post(request("ping"), token=bed.token())
    assert (answer.status_code, answer.content) == (204, b"")


async def test_the_upstreams_headers_pass_except_those_that_would_speak_for_us(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start()
    dropped = {
        "Set-Cookie": "a=b",
        "Server": "upstream/1",
        "Signature": "x=:AAAA:",
        "Signature-Input": "x=()",
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "X-Secret",
        "WWW-Authenticate": "Basic",
        "X-RateLimit-Limit": "1",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1",
        "RateLimit": '"u";r=0',
        "RateLimit-Policy": '"u";q=1',
        "Keep-Alive": "timeout=1",
        "Connection": "X-Hop",
        "X-Hop": "hop",
    }
    kept = {
        "Mcp-Session-Id": "s1",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
        "X-Custom": "c",
        "ETag": '"e"',
        "Content-Language": "de",
    }
    names = {name.replace("-", "_"): value for name, value in (dropped | kept).items()}
    stub.answer = reply(200, {}, **names, X_Request_Id="the-upstreams")
    answer = await bed.post(request("ping"), token=bed.token())
    for name, value in dropped.items():
        assert value not in answer.headers.get_list(name), name
    for name, value in kept.items():
        assert answer.headers.get_list(name) == [value]
    assert answer.headers["X-Request-Id"] != "the-upstreams"
    assert len(answer.headers.get_list("Date")) == 1
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_an_encoded_answer_passes_byte_for_byte(start: Start, stub: StubUpstream) -> None:
    packed = gzip.compress(b"{}" * 1000)

    async def answer_gzip(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    bed = await start()
    stub.answer = answer_gzip
    answer = await bed.client.send(stream_post(bed, bed.token()), stream=True)
    assert b"".join([piece async for piece in answer.aiter_raw()]) == packed
    assert answer.headers["Content-Encoding"] == "gzip"


async def test_a_large_answer_passes_whole(start: Start, stub: StubUpstream) -> None:
    async def large(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        for number in range(256):
            await response.write(bytes([number]) * 65_536)
        return response

    bed = await start()
    stub.answer = large
    answer = await bed.post(request("ping"), token=bed.token())
    assert answer.content == b"".join(bytes([number]) * 65_536 for number in range(256))


async def test_many_streams_are_open_at_once(start: Start, stub: StubUpstream) -> None:
    streams: list[Stream] = []

    async def open_another(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        streams.append(Stream())
        return await streams[-1].answer(request, body)

    bed = await start()
    stub.answer = open_another
    token = bed.token()
    async with asyncio.timeout(BOUND_S):
        answers = [await bed.client.send(stream_get(bed, token), stream=True) for _ in range(150)]
        stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}})
        assert (await bed.post(request("ping"), token=token)).status_code == 200
        for answer in answers:
            await answer.aclose()
        for stream in streams:
            await stream.left.wait()
