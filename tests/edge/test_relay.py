"""What a client gets of a stream: the upstream's bytes, and a comment where nothing came for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import aiohttp
import pytest

from sidecar.edge.http.listener import Listener
from sidecar.edge.http.relay import relay
from sidecar.edge.http.request import Request


async def relayed(pieces: Iterable[bytes], content_type: str = "text/event-stream; charset=utf-8") -> bytes:
    """Relay these pieces through a real connection; an empty one is a silence."""

    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def handle(request: Request) -> None:
        lines = [(b"Content-Type", content_type.encode())]
        await relay(request, 200, lines, source(), length=None, ended=lambda: False)

    server = await asyncio.get_running_loop().create_server(Listener(handle, bad_head=lambda _: None), "127.0.0.1", 0)
    async with server, aiohttp.ClientSession() as client:
        port = server.sockets[0].getsockname()[1]
        async with client.get(f"http://127.0.0.1:{port}/") as answer:
            return await answer.read()


KEEP_ALIVE = b": keep-alive\n\n"


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
async def test_between_two_events_a_silence_is_a_comment(end: bytes) -> None:
    assert await relayed([b"", b"data: 1" + end, b"", b"", b"data: 2" + end]) == (
        KEEP_ALIVE + b"data: 1" + end + KEEP_ALIVE * 2 + b"data: 2" + end
    )


@pytest.mark.parametrize(
    "event", [b"data: 1\n\n", b"id: 7\r\ndata: a\r\ndata: b\r\n\r\n", b": c\n\nretry: 5\ndata:\n\n"]
)
async def test_within_an_event_nothing_is_added_however_it_is_cut(event: bytes) -> None:
    for cut in range(1, len(event)):
        whole = await relayed([event[:cut], b"", event[cut:]])
        assert whole.replace(KEEP_ALIVE, b"") == event
        added_in_between = whole.find(KEEP_ALIVE)
        assert added_in_between == -1 or event[:cut].endswith((b"\n\n", b"\r\n\r\n"))


async def test_what_is_no_event_stream_gets_no_comments() -> None:
    assert await relayed([b'{"a":', b"", b"1}"], "application/json") == b'{"a":1}'
