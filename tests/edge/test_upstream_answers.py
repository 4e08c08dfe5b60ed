"""What comes of every kind of answer: whole, broken, truncated, too large."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.denials import BadGateway
from sidecar.model import Headers
from tests.edge.scripted_upstream import CHUNKED, OK, Peer, Script, always, client_of, once, once_then_wait, scripted


async def answer_to(script: Script, method: str = "POST", *, max_head_bytes: int = 65536) -> tuple[int, Headers, bytes]:
    async with scripted(script) as upstream, client_of(upstream, max_head_bytes=max_head_bytes) as client:
        answer = await client.send(method, "/mcp", (), b"{}" if method == "POST" else None)
        return answer.status, answer.headers, b"".join([piece async for piece in answer])


async def refusal_of(script: Script, *, max_head_bytes: int = 65536) -> BadGateway:
    with pytest.raises(BadGateway) as caught:
        await answer_to(script, max_head_bytes=max_head_bytes)
    return caught.value


ANSWERS = [
    pytest.param(OK, 200, b"ok", id="content-length"),
    pytest.param(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", id="no-reason"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", id="empty"),
    pytest.param(CHUNKED + b"2;x=y\r\nok\r\n1\r\n!\r\n0\r\n\r\n", 200, b"ok!", id="chunked"),
    pytest.param(CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: no\r\n\r\n", 200, b"ok", id="trailers-are-dropped"),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end", id="until-close"),
    pytest.param(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end", id="http-1.0"),
    pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 200, b"", id="until-close-empty"),
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="204"),
    pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", id="304"),
    pytest.param(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, b"", id="202"),
    pytest.param(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno", 503, b"no", id="503"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok", id="100"),
    pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 2 + OK, 200, b"ok", id="103-twice"),
]


@pytest.mark.parametrize(("wire", "status", "body"), ANSWERS)
async def test_every_framing_of_an_answer_is_understood(wire: bytes, status: int, body: bytes) -> None:
    assert (await answer_to(once(wire)))[::2] == (status, body)


@pytest.mark.parametrize(("wire", "status", "body"), ANSWERS)
async def test_so_it_is_when_it_comes_byte_by_byte(wire: bytes, status: int, body: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.drip(wire)

    assert (await answer_to(script))[::2] == (status, body)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_get_and_delete_are_answered_like_post(method: str) -> None:
    assert (await answer_to(once(OK), method))[::2] == (200, b"ok")


async def test_header_lines_come_as_received_without_the_white_space_around_values() -> None:
    """RFC 9112 section 5.1; the lines of a 103 belong to nobody."""
    wire = (
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nX-a: \t 1 \t \r\nX-A: 2\r\nX-Empty:\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    _, headers, _ = await answer_to(once(wire))
    assert headers == ((b"X-a", b"1"), (b"X-A", b"2"), (b"X-Empty", b""), (b"Content-Length", b"0"))


BROKEN = [
    pytest.param(b"SSH-2.0-OpenSSH_9\r\n", id="not-http"),
    pytest.param(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", id="http-2"),
    pytest.param(b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", id="http-0.9"),
    pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="two-digits"),
    pytest.param(b"HTTP/1.1 099 Odd\r\n\r\n", id="status-099"),
    pytest.param(b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", id="status-600"),
    pytest.param(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81", id="101"),
    pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", id="101-without-upgrade"),
    pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", id="bare-lf"),
    pytest.param(b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", id="bare-cr"),
    pytest.param(b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", id="nul"),
    pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", id="folded"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", id="space-before-colon"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", id="two-lengths"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", id="length-list"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="negative-length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="cl-te"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", id="te-cl"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", id="te-gzip"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="te-gzip-chunked"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", id="te-chunked-gzip"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="te-xchunked"),
    pytest.param(CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="te-twice"),
    pytest.param(CHUNKED + b"zz\r\n", id="chunk-size"),
    pytest.param(CHUNKED + b"fffffffffffffffff\r\n", id="chunk-size-overflow"),
    pytest.param(CHUNKED + b"2\nok\r\n0\r\n\r\n", id="chunk-bare-lf"),
]


@pytest.mark.parametrize("wire", BROKEN)
async def test_what_is_not_strictly_http_1_1_is_a_bad_gateway_and_the_connection_is_closed(wire: bytes) -> None:
    closed = asyncio.Event()
    async with scripted(once_then_wait(wire, closed)) as upstream, client_of(upstream) as client:
        with pytest.raises(BadGateway) as caught:
            await (await client.send("POST", "/mcp", (), b"{}")).read(1000)
        assert caught.value.reason == "upstream_protocol"
        await closed.wait()


async def test_what_came_before_a_bad_chunk_is_still_yielded() -> None:
    async with scripted(once(CHUNKED + b"2\r\nok\r\nzz\r\n")) as upstream, client_of(upstream) as client:
        answer = await client.send("POST", "/mcp", (), b"{}")
        pieces = aiter(answer)
        assert await anext(pieces) == b"ok"
        with pytest.raises(BadGateway, match="upstream_protocol"):
            await anext(pieces)
        assert answer.complete() is None


def endless(start: bytes, more: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(start)
        while True:
            await peer.send(more)

    return script


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 50), id="many-headers"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 500), id="one-long-header"),
        pytest.param(endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), id="only-103"),
        pytest.param(endless(CHUNKED + b"2;a=", b"b" * 500), id="chunk-extension"),
        pytest.param(endless(CHUNKED + b"0\r\n", b"A: b\r\n" * 50), id="trailers"),
        pytest.param(once(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 5000 + OK[15:]), id="at-once"),
    ],
)
async def test_a_head_larger_than_allowed_is_a_bad_gateway(script: Script) -> None:
    assert (await refusal_of(script, max_head_bytes=4096)).reason == "upstream_too_large"


async def test_a_body_does_not_count_as_head() -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000
    assert (await answer_to(once(wire), max_head_bytes=4096))[2] == b"x" * 9000


async def test_an_upstream_that_closes_before_the_head_is_a_bad_gateway() -> None:
    assert (await refusal_of(once(b""))).reason == "upstream_closed"
    assert (await refusal_of(once(OK[:20]))).reason == "upstream_closed"
    assert (await refusal_of(once(b"HTTP/1.1 103 Early Hints\r\n\r\n"))).reason == "upstream_closed"


async def reset_before_the_head(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def test_so_is_one_that_resets() -> None:
    assert (await refusal_of(reset_before_the_head)).reason == "upstream_closed"


@pytest.mark.parametrize(
    ("wire", "by_reset"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nso far", False, id="content-length-fin"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nso far", True, id="content-length-rst"),
        pytest.param(CHUNKED + b"6\r\nso far\r\n", False, id="between-chunks-fin"),
        pytest.param(CHUNKED + b"9\r\nso far", False, id="inside-chunk-fin"),
        pytest.param(CHUNKED + b"6\r\nso far\r\n0\r\n", False, id="before-the-last-line-fin"),
        pytest.param(CHUNKED + b"6\r\nso far\r\n", True, id="between-chunks-rst"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nso far", True, id="until-close-rst"),
    ],
)
async def test_a_truncated_body_yields_what_came_and_then_says_so(wire: bytes, by_reset: bool) -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(wire)
        await seen.wait()
        if by_reset:
            peer.reset()

    async with scripted(script) as upstream, client_of(upstream) as client:
        pieces = aiter(await client.send("POST", "/mcp", (), b"{}"))
        assert await anext(pieces) == b"so far"
        seen.set()
        with pytest.raises(BadGateway, match="upstream_truncated"):
            await anext(pieces)


async def test_complete_gives_the_whole_body_once_it_is_here_and_only_once() -> None:
    rest = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(OK[:-1])
        await rest.wait()
        await peer.send(OK[-1:])

    async with scripted(script) as upstream, client_of(upstream) as client:
        answer = await client.send("POST", "/mcp", (), b"{}")
        assert answer.complete() == b"ok"
        assert answer.complete() is None
        assert [piece async for piece in answer] == []
        answer = await client.send("POST", "/mcp", (), b"{}")
        assert answer.complete() is None
        rest.set()
        assert await answer.read(2) == b"ok"
        assert answer.complete() is None


@pytest.mark.parametrize("wire", [OK, CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", CHUNKED + b"2\r\nok\r\n"])
async def test_read_takes_no_more_than_its_limit(wire: bytes) -> None:
    async with scripted(once(wire)) as upstream, client_of(upstream) as client:
        answer = await client.send("POST", "/mcp", (), b"{}")
        with pytest.raises(BadGateway, match="upstream_too_large"):
            await answer.read(1)


async def test_a_closed_answer_never_looks_whole() -> None:
    async with scripted(always(OK)) as upstream, client_of(upstream) as client:
        answer = await client.send("POST", "/mcp", (), b"{}")
        answer.close()
        answer.close()
        assert answer.complete() is None
        with pytest.raises(BadGateway):
            await answer.read(100)
