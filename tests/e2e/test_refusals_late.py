"""Refusals that come after the upstream was asked, those of a used-up limit, and refusals in band."""

from __future__ import annotations

import asyncio

from aiohttp import web

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import JWT_ROUTE, assert_refused, notification, request, tool_call
from tests.e2e.conftest import Start
from tests.mcp_server import Stream, StubUpstream, reply

TOKEN_REFUSED = "Token does not have permission for this operation"
NOWHERE = "http://127.0.0.1:9"


async def test_a_used_up_limit_is_429_with_the_seconds_to_wait(start: Start) -> None:
    bed = await start(limits={"policies": [{"name": "one", "per": "account", "requests": 1, "window_s": 60}]})
    token = bed.token()
    assert (await bed.post(request("ping"), token=token)).status_code == 200
    answer = await bed.post(request("ping", id="late"), token=token)
    data = assert_refused(answer, 429, "RATE_LIMIT_EXCEEDED", id="late")
    assert 58 <= data["retryAfter"] <= 60
    assert "one" in data["message"]
    assert str(data["retryAfter"]) in data["message"]


async def test_an_upstream_that_redirects_or_refuses_is_502(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    lines = {"Location": "/other", "WWW_Authenticate": 'Bearer realm="up"'}
    for count, status in enumerate((301, 302, 303, 307, 308, 401, 403), 1):
        stub.answer = reply(status, {"secret": "of the upstream"}, **lines)
        answer = await bed.post(request("ping", id="r"), token=bed.token())
        assert_refused(answer, 502, "UPSTREAM_UNAVAILABLE", id="r")
        assert "WWW-Authenticate" not in answer.headers
        assert "Location" not in answer.headers
        assert len(stub.received) == count


async def test_an_upstream_that_is_not_there_is_502(start: Start) -> None:
    bed = await start(upstream={"url": NOWHERE})
    answer = await bed.post(request("ping", id="n"), token=bed.token())
    assert_refused(answer, 502, "UPSTREAM_UNAVAILABLE", id="n")


async def test_an_upstream_that_breaks_off_before_its_answer_is_502(start: Start, stub: StubUpstream) -> None:
    async def hang_up(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    bed = await start()
    stub.answer = hang_up
    answer = await bed.post(request("ping", id="b"), token=bed.token())
    assert_refused(answer, 502, "UPSTREAM_UNAVAILABLE", id="b")
    assert len(stub.received) == 1, "a POST that may have arrived is never sent twice"


async def test_an_upstream_that_does_not_answer_in_time_is_504(start: Start, stub: StubUpstream) -> None:
    async def never(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    bed = await start(upstream={"response_timeout_s": 0.1})
    stub.answer = never
    answer = await bed.post(request("ping", id="t"), token=bed.token())
    assert_refused(answer, 504, "UPSTREAM_TIMEOUT", id="t")


async def test_a_body_that_does_not_arrive_in_time_is_408(start: Start, stub: StubUpstream) -> None:
    bed = await start(body_timeout_s=0.05)
    head = f"POST {JWT_ROUTE} HTTP/1.1\r\nHost: sidecar\r\nAuthorization: Bearer {bed.token()}\r\n"
    framing = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    answer = await bed.raw(f'{head}{framing}{{"jsonrpc":"2.0","id":1,'.encode())
    assert_refused(answer, 408, "REQUEST_TIMEOUT", id=None)
    assert ("Connection", "close") in answer.headers
    assert stub.received == []


async def test_a_body_whose_framing_breaks_is_400(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    head = f"POST {JWT_ROUTE} HTTP/1.1\r\nHost: sidecar\r\nAuthorization: Bearer {bed.token()}\r\n"
    framing = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await bed.raw(f"{head}{framing}2\r\n{{}}\r\nnonsense\r\n".encode())
    assert answer.status == 400
    assert stub.received == []


IN_BAND = {"routes": [{"path": JWT_ROUTE, "credentials": ["jwt"], "denials": "in_band"}]}


async def test_in_band_a_refused_request_is_200_with_the_same_error(start: Start) -> None:
    bed = await start(**IN_BAND)
    answer = await bed.post(tool_call("put", id="x"), token=bed.token("mcp:read"))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert "WWW-Authenticate" not in answer.headers
    assert answer.json() == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {
            "code": 403,
            "message": "Forbidden",
            "data": {"errorType": "INSUFFICIENT_SCOPE", "message": TOKEN_REFUSED},
        },
    }


async def test_in_band_401_stays_401(start: Start) -> None:
    bed = await start(**IN_BAND)
    assert_refused(await bed.post(request("ping")), 401, "INVALID_TOKEN")


async def test_in_band_429_keeps_its_headers(start: Start) -> None:
    policy = {"name": "one", "per": "account", "requests": 1, "window_s": 60}
    bed = await start(**IN_BAND, limits={"policies": [policy]})
    token = bed.token()
    await bed.post(request("ping"), token=token)
    answer = await bed.post(request("ping"), token=token)
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == 429
    assert answer.json()["error"]["data"]["retryAfter"] == int(answer.headers["Retry-After"])
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    dropped = await bed.post(notification("notifications/initialized"), token=token)
    assert (dropped.status_code, dropped.content) == (202, b"")
    for method in ("GET", "DELETE"):
        refused = await bed.client.request(method, JWT_ROUTE, headers={"Authorization": f"Bearer {token}"})
        assert_refused(refused, 429, "RATE_LIMIT_EXCEEDED", id=None)


async def test_a_route_for_both_kinds_takes_either_and_challenges_with_bearer(start: Start, stub: StubUpstream) -> None:
    bed = await start(routes=[{"path": "/both", "credentials": ["jwt", "api_key"]}])
    refused = await bed.post(request("ping"), path="/both")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert stub.received == []


async def test_in_band_a_refused_notification_or_response_is_dropped_however_early_it_was_refused(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start(**IN_BAND)
    unusable, good = bed.token(sub="a!b"), bed.token()
    dropped = (notification("notifications/initialized"), {"jsonrpc": "2.0", "id": 3, "result": {}})
    for message in dropped:
        answers = [
            await bed.post(message, token=unusable),
            await bed.post(message, token=good, headers=(("X-API-Key", "mcp_x"),)),
            await bed.post(message, token=good, headers=(("Mcp-Session-Id", "a"), ("Mcp-Session-Id", "a"))),
        ]
        assert [(answer.status_code, answer.content) for answer in answers] == [(202, b"")] * 3
    asked = await bed.post(request("ping", id="q"), token=unusable)
    assert (asked.status_code, asked.json()["error"]["code"]) == (200, 403)
    assert stub.received == []


async def test_what_was_counted_says_so_even_when_the_upstream_fails(start: Start, stub: StubUpstream) -> None:
    policy = {"name": "few", "per": "account", "requests": 5, "window_s": 60}
    bed = await start(limits={"policies": [policy]})
    stub.answer = reply(401, {})
    answer = await bed.post(request("ping"), token=bed.token())
    assert_refused(answer, 502, "UPSTREAM_UNAVAILABLE")
    assert answer.headers["X-RateLimit-Remaining"] == "4"


async def test_an_expired_token_ends_its_streams_cleanly_and_not_its_running_call(
    start: Start, stub: StubUpstream, issuer: DevIssuer
) -> None:
    """The one real wait is the token's own second."""
    bed, stream = await start(jwt={"issuers": [{"issuer": issuer.url, "leeway_s": 0}]}), Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    headers = {"Authorization": f"Bearer {bed.token(expires_in_s=2)}"}
    call = {**headers, "Content-Type": "application/json"}
    async with asyncio.timeout(8):
        async with bed.client.stream("GET", JWT_ROUTE, headers=headers) as listening:
            pieces = listening.aiter_raw()
            await anext(pieces)
            running = Stream()
            running.send(b"data: 1\n\n")
            stub.answer = running.answer
            async with bed.client.stream("POST", JWT_ROUTE, headers=call, json=request("ping")) as answer:
                parts = answer.aiter_raw()
                await anext(parts)
                assert [piece async for piece in pieces] == []
                await stream.left.wait()
                running.send(b"data: 2\n\n")
                assert await anext(parts) == b"data: 2\n\n"
                running.end()
    assert [line["reason"] for line in bed.accesses() if line["method"] == "GET"] == ["expired"]
