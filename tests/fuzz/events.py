"""Event streams: cut anywhere they have the same events, and what is rewritten reaches every reader rewritten.

An input is a byte that says how many lengths follow, those lengths, and the stream. The stream is cut into chunks of
these lengths, over and over; a length of 0 is a silence, and no length at all leaves the stream whole.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

from sidecar.denials import BadGateway
from sidecar.edge.http.rewriting import rewritten
from sidecar.policy.events import EventSplitter
from tests.fuzz.target import Target, at_once

BOM: Final = b"\xef\xbb\xbf"
LARGE: Final = 1_000_000
MARK: Final = b"{\n}"
"""What takes the place of all data: two lines, so that it needs two fields."""


def check(data: bytes) -> bool:
    chunks, stream = chunks_of(data)
    judge_splitting(chunks, stream)
    out = pieces(chunks, unchanged)
    assert b"".join(out) == stream
    assert [piece for piece in out if not piece] == [chunk for chunk in chunks if not chunk]
    judge_rewriting(b"".join(pieces(chunks, marked)), stream)
    return True


def chunks_of(data: bytes) -> tuple[list[bytes], bytes]:
    count = data[0] % 16 if data else 0
    lengths, stream = list(data[1 : 1 + count]), data[1 + count :]
    if not any(lengths):
        return [stream], stream
    chunks, at = list[bytes](), 0
    for length in itertools.cycle(lengths):
        if at >= len(stream):
            return chunks, stream
        chunks.append(stream[at : at + length])
        at += length
    raise AssertionError("a cycle ended")


def judge_splitting(chunks: list[bytes], stream: bytes) -> None:
    whole = split([stream], LARGE)
    assert whole is not None
    assert split(chunks, LARGE) == whole
    assert b"".join(whole) == stream
    longest = max(map(len, whole))
    for limit in {8, longest, longest - 1} - {0, -1}:
        assert (split(chunks, limit) is None) == (split([stream], limit) is None) == (longest > limit)


def split(chunks: list[bytes], limit: int) -> list[bytes] | None:
    """Return the events and what is left; None when something is too large."""
    splitter, events = EventSplitter(limit), list[bytes]()
    try:
        for chunk in chunks:
            events += splitter.feed(chunk)
    except BadGateway:
        return None
    return [*events, splitter.rest()]


def pieces(chunks: list[bytes], rewrite: Callable[[bytes], Awaitable[bytes]]) -> list[bytes]:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collected() -> list[bytes]:
        return [piece async for piece in rewritten(source(), rewrite, max_event_bytes=LARGE)]

    return at_once(collected())


async def unchanged(data: bytes) -> bytes:
    return data


async def marked(data: bytes) -> bytes:
    return MARK


class Event(NamedTuple):
    """What a browser's EventSource gives out."""

    data: bytes
    name: bytes
    last_id: bytes


def dispatched(stream: bytes, *, careless: bool) -> list[Event]:
    """Read a stream as HTML 9.2.6 says; or as one to whom its end is a blank line, and a byte order mark nothing.

    Kept apart from how the code does it: lines first, then fields.
    """
    text = stream + b"\n\n" if careless else stream.removeprefix(BOM)
    found, data, name, last_id = list[Event](), list[bytes](), b"", b""
    *lines, _ = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in [line.removeprefix(BOM) for line in lines] if careless else lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            found += [Event(b"\n".join(data), name, last_id)] if data else []
            data, name = [], b""
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"id" and b"\0" not in value:
            last_id = value
    return found


def judge_rewriting(out: bytes, stream: bytes) -> None:
    for careless in (False, True):
        seen = dispatched(out, careless=careless)
        assert {event.data for event in seen} <= {MARK}, "data of the upstream's has passed"
        if BOM not in stream.removeprefix(BOM):
            assert seen == [event._replace(data=MARK) for event in dispatched(stream, careless=careless)]


WORDS: Final = (
    *(b"data:", b"data: ", b"data\n", b"\ndata: a", b"id: 1\n", b"event: message\n", b"retry: 5\n", b": c\n", b":\r\n"),
    *(
        b"\r\n\r\n",
        b"\n\n",
        b"\r\r",
        b"\r",
        b"\n",
        b"\n\r",
        b"\r\r\n",
        BOM,
        b"\0",
        b"\x0b",
        b"\xe2\x80\xa8",
        b" data: x",
    ),
)
EVENTS: Final = Target("events", check, WORDS)
