"""An answer of the upstream while it arrives: what is here, what was taken, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from sidecar.denials import BadGateway, Denial, GatewayTimeout
from sidecar.model import Headers


class Source(Protocol):
    """Where an answer comes from: the connection that reads it."""

    def resume_reading(self) -> None: ...

    def drop(self) -> None: ...


class Answer:
    """One answer of the upstream; implements `ports.UpstreamAnswer`."""

    __slots__ = (
        "_idle_timeout_s",
        "_pieces",
        "_taken",
        "_waiter",
        "buffered",
        "ended",
        "error",
        "headers",
        "source",
        "status",
    )

    def __init__(self, source: Source, idle_timeout_s: float | None) -> None:
        self.status: int = 0
        """0 until the head of the final answer is here."""
        self.headers: Headers = ()
        self.source: Source | None = source
        """None once the answer has ended: the connection may then belong to another one."""
        self.ended: bool = False
        """The whole answer is here."""
        self.error: Denial | None = None
        """Why it never will be."""
        self.buffered: int = 0
        self._pieces: list[bytes] = []
        self._taken: bool = False
        self._waiter: asyncio.Future[bool] | None = None
        self._idle_timeout_s = idle_timeout_s

    async def head(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when status and headers are here, on the running `loop`: to ask which one it is costs a system call.

        Raises:
            Denial: they will not come.
        """
        while self.status == 0:
            if self.error is not None:
                raise self.error
            self._waiter = loop.create_future()  # as `wait` does, without its coroutine: every request comes by here
            try:
                await self._waiter
            finally:
                self._waiter = None

    def complete(self) -> bytes | None:
        if not self.ended or self._taken or self.error is not None:
            return None
        return self._take()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self.ended:
                raise StopAsyncIteration
            await self.wait(self._idle_timeout_s)
        return self._take()

    async def pieces(self, pause_s: float) -> AsyncIterator[bytes]:
        silent_s = 0.0
        while True:
            if self._pieces:
                silent_s = 0.0
                yield self._take()
            elif self.error is not None:
                raise self.error
            elif self.ended:
                return
            else:
                left_s = pause_s if self._idle_timeout_s is None else min(pause_s, self._idle_timeout_s - silent_s)
                if await self._changes_within(left_s):
                    continue
                silent_s += left_s
                if self._idle_timeout_s is not None and silent_s >= self._idle_timeout_s:
                    self._stall()
                else:
                    yield b""

    async def read(self, limit: int, hold: Callable[[int], None] | None = None) -> bytes:
        body = bytearray()
        async for piece in self:
            body += piece
            if hold is not None:
                hold(len(body))
            if len(body) > limit:
                self.close()
                raise BadGateway("upstream_too_large", detail=f"the answer is longer than {limit} bytes")
        return bytes(body)

    def close(self) -> None:
        if self._pieces or not self.ended:
            # What was thrown away must not look like the end of the body to whoever reads on.
            self._pieces.clear()
            self.ended = False
            self.fail(BadGateway("upstream_closed", detail="the answer was closed by this side"))

    def fail(self, denial: Denial) -> None:
        """End an answer that is not whole: its reader gets what is here, then the denial; the connection is gone."""
        if self.ended or self.error is not None:
            return
        self.error = denial
        source, self.source = self.source, None
        if source is not None:
            source.drop()
        self.wake()

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.buffered += len(piece)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    async def wait(self, timeout_s: float | None) -> None:
        """Return when anything has changed, or failed with ``upstream_idle_timeout`` after `timeout_s`."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, self._stall)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def _changes_within(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(seconds, _time_is_up, waiter)
        try:
            return bool(await waiter)
        finally:
            self._waiter = None
            timer.cancel()

    def _stall(self) -> None:
        self.fail(GatewayTimeout("upstream_idle_timeout"))

    def _take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self.buffered = 0
        self._taken = True
        if self.source is not None:
            self.source.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _time_is_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
