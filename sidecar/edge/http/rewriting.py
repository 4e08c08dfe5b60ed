"""An event stream on its way to the client, with the data of its events changed where that must be."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Final

from sidecar.policy.events import EventSplitter, data_of, with_data

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""As much of a list as the catalogue reads."""

Rewrite = Callable[[bytes], Awaitable[bytes]]
"""An event's data in, what the client gets for it out: the very same object when nothing is to be changed."""


async def rewritten(
    chunks: AsyncIterable[bytes],
    rewrite: Rewrite,
    *,
    hold: Callable[[int], None] = lambda _: None,
    max_event_bytes: int = MAX_EVENT_BYTES,
) -> AsyncIterator[bytes]:
    """Yield the stream event by event, each as soon as it is whole; unchanged events to the byte.

    Comments don't wait for the event that they stand before. An empty chunk, which stands for a silence, passes as it
    is: what was sent until then ends with an event or a comment. What no blank line has ended when the stream ends is
    rewritten too, because a lenient client might read it. `hold` is told how many bytes are held of events.

    Raises:
        BadGateway: ``upstream_event_too_large``, and whatever `chunks` and `rewrite` raise. Nothing of the event that
            was not whole has then been sent.
    """
    splitter = EventSplitter(max_event_bytes)
    async for chunk in chunks:
        for event in splitter.feed(chunk):
            hold(len(event) + splitter.waiting_bytes)
            yield await _passed(event, rewrite)
        if comments := splitter.comments():
            yield comments
        hold(splitter.waiting_bytes)
        if not chunk:
            yield b""  # a silence is passed on as one
    if rest := splitter.rest():
        yield await _passed(rest, rewrite)


async def _passed(event: bytes, rewrite: Rewrite) -> bytes:
    data = data_of(event)
    if data is None:
        return event
    answer = await rewrite(data)
    return event if answer is data else with_data(event, answer)
