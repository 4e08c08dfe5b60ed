"""Streams: piece by piece, no faster than they are read, and gone as soon as nobody wants them."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.denials import BadGateway, GatewayTimeout
from tests.edge.scripted_upstream import CHUNKED, OK, Peer, client_of, once_then_wait, scripted

EVENTS = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")
POST = ("POST", "/mcp", (), b"{}")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_an_event_is_yielded_while_the_next_is_withheld() -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS)
        for number in range(3):
            await peer.send(chunk(b"data: %d\n\n" % number))
            await seen.wait()
            seen.clear()
        await peer.send(b"0\r\n\r\n")

    async with scripted(script) as upstream, client_of(upstream) as client:
        answer = await client.send("GET", "/mcp", (), None)
        assert answer.complete() is None
        events = []
        async for piece in answer:
            events.append(piece)
            seen.set()
        assert events == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_the_head_is_returned_before_there_is_any_body() -> None:
    async with scripted(once_then_wait(EVENTS, asyncio.Event())) as upstream, client_of(upstream) as client:
        assert (await client.send("GET", "/mcp", (), None)).status == 200


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 16000000\r\n\r\n", b"", id="content-length"),
        pytest.param(CHUNKED + b"f42400\r\n", b"\r\n0\r\n\r\n", id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"", id="until-close"),
    ],
)
async def test_an_upstream_that_floods_is_not_read_ahead_of_the_client(head: bytes, tail: bytes) -> None:
    unsent = 0

    async def script(peer: Peer) -> None:
        nonlocal unsent
        await peer.request()
        peer.writer.write(head + bytes(16_000_000) + tail)
        for _ in range(200):
            await asyncio.sleep(0)
            unsent = peer.writer.transport.get_write_buffer_size()
        settled.set()
        await peer.writer.drain()

    settled = asyncio.Event()
    async with scripted(script) as upstream, client_of(upstream) as client:
        answer = await client.send(*POST)
        await settled.wait()
        assert answer.buffered <= 2 * 262_144
        assert unsent > 0
        assert sum([len(piece) async for piece in answer]) == 16_000_000


async def test_silence_between_two_pieces_is_bounded() -> None:
    closed = asyncio.Event()
    async with (
        scripted(once_then_wait(EVENTS + chunk(b"data: 0\n\n"), closed)) as upstream,
        client_of(upstream) as client,
    ):
        pieces = aiter(await client.send(*POST, idle_timeout_s=0.02))
        assert await anext(pieces) == b"data: 0\n\n"
        with pytest.raises(GatewayTimeout) as caught:
            await anext(pieces)
        assert caught.value.reason == "upstream_idle_timeout"
        await closed.wait()


async def test_a_slow_reader_is_not_a_silent_upstream() -> None:
    async with (
        scripted(once_then_wait(EVENTS + chunk(b"1") + b"0\r\n\r\n", asyncio.Event())) as upstream,
        client_of(upstream) as client,
    ):
        answer = await client.send(*POST, idle_timeout_s=0.01)
        await asyncio.sleep(0.03)
        assert await answer.read(100) == b"1"


async def test_a_client_that_leaves_before_the_head_closes_the_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        closed.set()

    async with scripted(script) as upstream, client_of(upstream) as client:
        sending = asyncio.ensure_future(client.send(*POST))
        await asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await closed.wait()


async def test_a_client_that_leaves_while_its_body_is_sent_closes_the_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        asked.set()
        await left.wait()
        await peer.gone()
        closed.set()

    left = asyncio.Event()
    async with scripted(script) as upstream, client_of(upstream) as client:
        sending = asyncio.ensure_future(client.send("POST", "/mcp", (), bytes(32_000_000)))
        await asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        left.set()
        await closed.wait()


async def test_a_client_that_leaves_a_stream_closes_the_connection_and_wakes_its_reader() -> None:
    closed = asyncio.Event()
    async with scripted(once_then_wait(EVENTS + chunk(b"1"), closed)) as upstream, client_of(upstream) as client:
        answer = await client.send("GET", "/mcp", (), None)
        pieces = aiter(answer)
        assert await anext(pieces) == b"1"
        reading = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        answer.close()
        answer.close()
        with pytest.raises(BadGateway, match="upstream_closed"):
            await reading
        await closed.wait()


async def test_a_reader_that_gives_up_on_a_piece_may_come_back_for_it() -> None:
    """Who sends keep-alive comments bounds its wait for a piece and goes on."""
    going_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS)
        await going_on.wait()
        await peer.send(chunk(b"1") + b"0\r\n\r\n")

    async with scripted(script) as upstream, client_of(upstream) as client:
        pieces = aiter(await client.send("GET", "/mcp", (), None))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(pieces)
        going_on.set()
        assert await anext(pieces) == b"1"


async def test_an_early_refusal_is_returned_and_the_rest_of_the_body_never_sent() -> None:
    """RFC 9112 section 9.5."""
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await answered.wait()
        try:
            while data := await peer.reader.read(65536):
                received += len(data)
        except ConnectionError:
            pass
        closed.set()

    answered, closed = asyncio.Event(), asyncio.Event()
    async with scripted(script) as upstream, client_of(upstream) as client:
        answer = await client.send("POST", "/mcp", (), bytes(64_000_000))
        assert (answer.status, await answer.read(10)) == (413, b"no")
        answered.set()
        await closed.wait()
        assert received < 64_000_000
        assert upstream.accepted == 1
        await client.send("POST", "/mcp", (), bytes(64_000_000))
        assert upstream.accepted == 2


async def test_an_upstream_that_answers_while_it_reads_gets_the_whole_body() -> None:
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(CHUNKED)
        while received < 32_000_000:
            received += len(await peer.reader.read(1_000_000))
        await peer.send(b"0\r\n\r\n")
        assert await peer.request()
        await peer.send(OK)

    async with scripted(script) as upstream, client_of(upstream) as client:
        answer = await client.send("POST", "/mcp", (), bytes(32_000_000))
        assert await answer.read(10) == b""
        assert received == 32_000_000
        await client.send(*POST)
        assert upstream.accepted == 1
