"""Events are changed on their way through, each as soon as it is whole; all else passes to the byte and at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.denials import BadGateway
from sidecar.edge.http.rewriting import rewritten
from sidecar.policy.listing import ListAnswer

LIST = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get"},{"name":"drop"}]}}'
FILTERED = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get"}]}}'
NOTE = b'event: message\r\nid: 4\r\ndata: {"jsonrpc":"2.0",\r\ndata: "method":"notifications/message"}\r\n\r\n'


async def rewrite(data: bytes) -> bytes:
    """Do what a caller does: filter the list, and say so where it is none."""
    try:
        answer = ListAnswer.parse(data, 1, "tools")
    except BadGateway:
        return b"refused"
    return data if answer is None else answer.keep({"get"}, era="legacy")


async def stream_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def passed(*chunks: bytes) -> list[bytes]:
    return [piece async for piece in rewritten(stream_of(*chunks), rewrite)]


async def test_only_the_data_of_the_list_is_changed() -> None:
    before = b": hi\r\n\r\nid: 1\ndata:\n\n" + NOTE
    stream = before + b"id: 9\r\nretry: 5\r\ndata: " + LIST + b"\r\n: c\r\n\r\n"

    assert b"".join(await passed(stream)) == before + b"id: 9\r\nretry: 5\r\ndata: " + FILTERED + b"\r\n: c\r\n\r\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_a_split_at_any_byte_hides_nothing_from_the_filter(end: bytes) -> None:
    def events(*lines: bytes) -> bytes:
        return b"".join(line + end for line in lines)

    stream = events(b": c", b"id: 1", b"data:" + LIST, b"", b": d", b"data: " + LIST, b"id: 2", b"")
    expected = events(b": c", b"id: 1", b"data: " + FILTERED, b"", b": d", b"data: " + FILTERED, b"id: 2", b"")

    for at in range(len(stream) + 1):
        assert b"".join(await passed(stream[:at], stream[at:])) == expected
    assert b"".join(await passed(*[stream[i : i + 1] for i in range(len(stream))])) == expected


async def test_a_list_on_several_data_lines_is_one_list() -> None:
    lines = b"data: " + LIST.replace(b",", b",\ndata: ") + b"\n\n"

    assert await passed(lines) == [b"data: " + FILTERED.replace(b",", b",\ndata: ", 2) + b"\n\n"]


@pytest.mark.parametrize(
    "event",
    [
        b"data: " + LIST + b"\ndata: " + LIST + b"\n\n",
        b"data: " + LIST[:-1] + b"\n\n",
        b'data: {"id":1,"id":2,"result":{"tools":[]}}\n\n',
        b"event: other\ndata: " + LIST + b" {}\n\n",
    ],
)
async def test_what_makes_no_one_list_does_not_pass(event: bytes) -> None:
    out = b"".join(await passed(event))

    assert b"data: refused\n" in out
    assert b"drop" not in out


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"data: " + LIST, b"data: " + FILTERED),
        (b"data: " + LIST + b"\n", b"data: " + FILTERED + b"\n"),
        (b"data: " + LIST + b"\n\r", b"data: " + FILTERED + b"\n\r"),
        (b"data: " + LIST[:50], b"data: refused"),
        (b"\xef\xbb\xbfdata: " + LIST, b"data: " + FILTERED),
        (b": bye", b": bye"),
        (b"id: 5\n", b"id: 5\n"),
    ],
)
async def test_what_no_blank_line_ended_goes_the_same_way(rest: bytes, expected: bytes) -> None:
    assert b"".join(await passed(NOTE, rest)) == NOTE + expected


class Wire:
    """A stream whose chunks come when the test says so."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.pieces = rewritten(self._stream(), rewrite)

    async def _stream(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.chunks.get()

    async def after(self, chunk: bytes) -> bytes:
        """Return the next piece that comes once this chunk is there, with nothing behind it."""
        self.chunks.put_nowait(chunk)
        async with asyncio.timeout(5):
            return await anext(self.pieces)


async def test_events_and_comments_pass_before_anything_follows_them() -> None:
    wire = Wire()

    assert await wire.after(b": ping\n") == b": ping\n"
    assert await wire.after(b"\n") == b"\n"
    assert await wire.after(b": ping\n\n") == b": ping\n\n"
    assert await wire.after(NOTE) == NOTE
    assert await wire.after(b": ping\r\ndata: " + LIST) == b": ping\r\n"
    assert await wire.after(b"\r\n\r\n") == b"data: " + FILTERED + b"\r\n\r\n"
    assert await wire.after(b"id: 3\rdata:\r\r") == b"id: 3\rdata:\r\r"


async def test_a_silence_passes_also_within_an_event() -> None:
    assert await passed(b"data: ", b"", b"x\n\n", b"") == [b"", b"data: refused\n\n", b""]


async def test_an_unchanged_event_is_not_written_anew() -> None:
    odd = b"data:  {}\rdata\n: c\r\n\ndata:{}\n\n"

    assert b"".join(await passed(odd)) == odd


async def test_of_a_stream_that_breaks_off_nothing_unfinished_passes() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield NOTE + b"data: " + LIST
        raise BadGateway("upstream_broke_off")

    pieces = rewritten(broken(), rewrite)

    assert await anext(pieces) == NOTE
    with pytest.raises(BadGateway) as refused:
        await anext(pieces)
    assert refused.value.reason == "upstream_broke_off"


async def test_an_event_beyond_the_limit_ends_the_stream() -> None:
    pieces = rewritten(stream_of(b": a\n\n", b"data: " + LIST), rewrite, max_event_bytes=50)

    assert await anext(pieces) == b": a\n\n"
    with pytest.raises(BadGateway) as refused:
        await anext(pieces)
    assert refused.value.reason == "upstream_event_too_large"
