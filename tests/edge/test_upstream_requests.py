"""Requests as they reach the upstream."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.edge.upstream import UpstreamClient
from sidecar.model import Headers
from tests.edge.scripted_upstream import OK, Peer, Script, always, client_of, scripted
from tests.edge.test_upstream_socket import listening

if TYPE_CHECKING:
    from sidecar.ports import Upstream

    _conforms: type[Upstream] = UpstreamClient

HEADERS: Headers = ((b"Accept", b"text/event-stream"), (b"X-Account-Id", b"a1"))


def recording(requests: list[bytes]) -> Script:
    async def script(peer: Peer) -> None:
        while request := await peer.request():
            requests.append(request)
            await peer.send(OK)

    return script


async def test_a_request_is_sent_as_given_between_host_and_framing() -> None:
    requests: list[bytes] = []
    async with scripted(recording(requests)) as upstream, client_of(upstream) as client:
        await client.send("POST", "/mcp?a=%2F", HEADERS, b'{"id":1}')
    assert requests == [
        b"POST /mcp?a=%2F HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(upstream.port).encode() + b"\r\n"
        b"Accept: text/event-stream\r\n"
        b"X-Account-Id: a1\r\n"
        b"Content-Length: 8\r\n\r\n"
        b'{"id":1}'
    ]


@pytest.mark.parametrize(
    ("method", "framing"), [("POST", b"\r\nContent-Length: 0\r\n\r\n"), ("GET", b"\r\n\r\n"), ("DELETE", b"\r\n\r\n")]
)
@pytest.mark.parametrize("headers", [(), HEADERS])
async def test_without_a_body_only_post_has_a_length(method: str, framing: bytes, headers: Headers) -> None:
    """RFC 9110 section 8.6."""
    requests: list[bytes] = []
    async with scripted(recording(requests)) as upstream, client_of(upstream) as client:
        await client.send(method, "/mcp", headers, None)
    last = headers[-1][1] if headers else str(upstream.port).encode()
    assert requests[0].endswith(last + framing)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM/mcp", b"example.com"),
        ("http://example.com:80/mcp", b"example.com"),
        ("http://example.com:443/mcp", b"example.com:443"),
        ("http://[::1]/mcp", b"[::1]"),
        ("http://[::1]:3000/mcp", b"[::1]:3000"),
        ("http://bücher.example/mcp", b"xn--bcher-kva.example"),
    ],
)
async def test_host_is_the_upstreams_own(url: str, host: bytes, tmp_path: Path) -> None:
    """Whatever is connected to: here a socket, since nobody has these names."""
    where = tmp_path / "s"
    client = UpstreamClient(url, socket_path=str(where), connect_timeout_s=5, response_timeout_s=5)
    async with listening(where) as server, contextlib.aclosing(client):
        assert client.authority == host.decode()
        await client.send("POST", "/mcp", (), b"{}")
    assert server.heads == [b"POST /mcp HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 2\r\n\r\n"]


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com/", "http://", "http:///mcp", "http://a:x/"])
def test_only_an_http_origin_can_be_an_upstream(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - that it is refused is all there is to say
        UpstreamClient(url, connect_timeout_s=1, response_timeout_s=1)


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("HEAD", "/mcp", ()),
        ("CONNECT", "/mcp", ()),
        ("get", "/mcp", ()),
        ("GET ", "/mcp", ()),
        ("GET", "", ()),
        ("GET", "mcp", ()),
        ("GET", "http://other/mcp", ()),
        ("GET", "/mcp HTTP/1.1\r\nX: y", ()),
        ("GET", "/mcp\n", ()),
        ("GET", "/m cp", ()),
        ("GET", "/m\tcp", ()),
        ("GET", "/m\0cp", ()),
        ("GET", "/\ud800", ()),
        ("GET", "/mcp", ((b"A", b"b\r\nX: y"),)),
        ("GET", "/mcp", ((b"A", b"b\n"),)),
        ("GET", "/mcp", ((b"A", b"b\r"),)),
        ("GET", "/mcp", ((b"A", b"\0"),)),
        ("GET", "/mcp", ((b"A\r\nB", b"c"),)),
        ("GET", "/mcp", ((b"A\n", b"c"),)),
        ("GET", "/mcp", ((b"", b"\r\n"), (b"A", b"b"))),
        ("GET", "/mcp", ((b"Host", b"other"),)),
        ("POST", "/mcp", ((b"A", b"b"), (b"content-length", b"3"))),
        ("POST", "/mcp", ((b"Transfer-Encoding ", b"chunked"),)),
        ("POST", "/mcp", ((b"Connection", b"X-Account-Id"),)),
        ("POST", "/mcp", ((b"Expect", b"100-continue"),)),
    ],
)
async def test_what_would_not_be_one_request_is_never_sent(method: str, target: str, headers: Headers) -> None:
    async with scripted(always(OK)) as upstream, client_of(upstream) as client:
        with pytest.raises(ValueError):  # noqa: PT011 - that it is refused is all there is to say
            await client.send(method, target, headers, None)
        assert upstream.accepted == 0


async def test_bytes_of_the_query_that_are_not_utf_8_arrive_as_they_came() -> None:
    requests: list[bytes] = []
    async with scripted(recording(requests)) as upstream, client_of(upstream) as client:
        await client.send("GET", b"/mcp?q=\xff\xc3\xbc".decode("utf-8", "surrogateescape"), (), None)
    assert requests[0].startswith(b"GET /mcp?q=\xff\xc3\xbc HTTP/1.1\r\n")


async def test_a_large_body_arrives_whole_at_an_upstream_that_takes_its_time() -> None:
    body = bytes(range(256)) * 32_768
    taken = bytearray()

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        while len(taken) < len(body):
            taken.extend(await peer.reader.read(50_000))
            await asyncio.sleep(0)
        await peer.send(OK)
        assert await peer.request()
        await peer.send(OK)

    async with scripted(script) as upstream, client_of(upstream) as client:
        assert (await client.send("POST", "/mcp", (), body)).complete() == b"ok"
        assert taken == body
        await client.send("POST", "/mcp", (), b"{}")
        assert upstream.accepted == 1
