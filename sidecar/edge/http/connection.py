"""One client's connection: its requests, one after another, and the answers they get."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from sidecar.edge.http.request import CLOSE, Request
from sidecar.edge.http.response import Lines, head

HEAD_S: Final = 10.0
"""How long a request's head may take from its first byte on, and a new connection until its first request's."""
STALL_S: Final = 60.0
"""How long a client may leave an answer unread that waits for it: some 48 KiB within this time are enough."""
KEEP_ALIVE_S: Final = 75.0
"""Longer than the idle time of common load balancers (60 s), which must be the first to close."""
LINGER_S: Final = 2.0
"""How long a client that still sends is listened to after its last answer, which a reset would take from it."""
_READ_BYTES: Final = 65_536
_MAX_AHEAD: Final = 10
"""Requests that are parsed before the one that is served has its answer."""
_FULL: Final = 503


class House(Protocol):
    """What a connection belongs to."""

    is_draining: bool
    """Each answer is the last of its connection."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back."""

    def handle(self, request: Request) -> Awaitable[None]:
        """Answer a request."""

    def note_bad_head(self, status: int) -> None:
        """Hear of what never became a request, and of its answer."""

    def admits(self, connection: Connection) -> bool:
        """Take a connection in, unless there is no room."""

    def sees_out(self, connection: Connection) -> bool:
        """Tell whether a connection may stay for a moment after its last answer."""

    def note_waiting(self, connection: Connection, *, waits: bool = True) -> None:
        """Hear that a connection waits for a request, or no longer."""

    def forget(self, connection: Connection) -> None:
        """Hear that a connection is no more."""


class Connection(BaseProtocol):
    """The transport's protocol; aiohttp's hardened parser reads what comes.

    A client that leaves cancels what is done for its request, which closes the upstream's connection.
    """

    __slots__ = (
        *("_has_begun", "_house", "_is_leaving", "_messages", "_patience_s", "_serving", "_since"),
        *("_stalled_since", "_takes_more", "remote"),
    )

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._parser = HttpRequestParser(
            self,
            loop,
            _READ_BYTES,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=_MAX_AHEAD,
        )
        self._house = house
        self._messages: deque[tuple[RawRequestMessage | int, StreamReader]] = deque()
        """Requests that wait for their turn; a status stands for one that never became one."""
        self._serving: asyncio.Task[None] | None = None
        self._since = 0.0
        """When it began to wait for a request, for the rest of a head, or for the client's end."""
        self._patience_s = HEAD_S
        self._has_begun = False
        """A head has begun to arrive."""
        self._stalled_since: float | None = None
        self._takes_more = True
        self._is_leaving = False
        self.remote = ""

    @property
    def is_serving(self) -> bool:
        return self._serving is not None

    @property
    def is_last_answer(self) -> bool:
        """Whether the answer that is sent now is the last one."""
        return self._house.is_draining

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if peer else ""
        self._since = self._house.now()
        if self._house.admits(self):
            self._house.note_waiting(self)
        else:
            self._refuse(503)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._takes_more = False
        self._parser = None  # it and this object hold each other
        self._house.forget(self)
        if self._serving is not None:
            self._serving.cancel()

    def data_received(self, data: bytes) -> None:
        if not self._takes_more or self._parser is None:
            return  # nothing that follows the last request is looked at
        switches = False
        messages: Sequence[tuple[RawRequestMessage | int, StreamReader]]
        try:
            messages, switches, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._takes_more = False
            messages = ((_status_of(error), EMPTY_PAYLOAD),)
        if switches:  # CONNECT, or an upgrade: what follows is no HTTP, and nobody here speaks anything else
            self._takes_more = False
        self._messages.extend(messages)
        if len(self._messages) >= _MAX_AHEAD and not self._buffer_paused:
            self._pause_reading_for_buffer()
        if self._serving is not None:
            return
        if self._messages:
            self._serve_next()
        elif data and not self._has_begun:
            self._has_begun, self._since, self._patience_s = True, self._house.now(), HEAD_S

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_since = self._house.now()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_since = None

    def write(self, *pieces: bytes | memoryview) -> None:
        """Send, or raise ConnectionError when the client has left."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)

    async def drained(self) -> None:
        """Return when the client has room for more."""
        if self._paused:
            await self._drain_helper()

    def close(self) -> None:
        """Close when what was written is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        """Close so that what was written arrives: a client that still sends must not get a reset for it.

        What it sends from now on is thrown away (RFC 9112 section 9.6).
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._is_leaving:
            return
        if not transport.can_write_eof() or not self._house.sees_out(self):
            transport.close()
            return
        self._takes_more, self._is_leaving, self._since = False, True, self._house.now()
        self._reading_paused = False
        self._resume_reading_for_buffer()
        transport.write_eof()

    def close_if_silent(self) -> None:
        """Close if nothing was asked, also nothing that has come and was not read yet.

        Who has only just connected is about to ask, and gets a moment for it.
        """
        if self._patience_s == HEAD_S:
            self._patience_s, self._since = LINGER_S, self._house.now()
        elif self.transport is not None:
            poll = select.poll()
            poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
            if not poll.poll(0):
                self.close()

    def end_if_overdue(self) -> None:
        """Close if the client takes too long: over a head, to read, or to ask for anything more."""
        transport, now = self.transport, self._house.now()
        if transport is None:
            return
        if self._stalled_since is not None:
            if now - self._stalled_since > STALL_S:
                transport.abort()
        elif self._is_leaving:
            if now - self._since > (STALL_S if transport.get_write_buffer_size() else LINGER_S):
                transport.abort()
        elif self._serving is None and now - self._since > self._patience_s:
            self.give_up(408)

    def give_up(self, status: int) -> None:
        """End a connection that waits for a request; one whose head has begun to arrive hears why."""
        if self._has_begun:
            self._refuse(status)
        else:
            self.close()

    def _serve_next(self) -> None:
        message, payload = self._messages.popleft()
        if isinstance(message, int):
            self._refuse(message)
            return
        self._house.note_waiting(self, waits=False)
        self._serving = self._loop.create_task(self._serve(Request(message, payload, self)))
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused:
            self.data_received(b"")  # what the parser has kept back while the queue was full
            if len(self._messages) < _MAX_AHEAD:
                self._resume_reading_for_buffer()

    async def _serve(self, request: Request) -> None:
        try:
            await self._house.handle(request)
        except ConnectionError:
            self.close()
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception as fault:
            self.abort()
            told = {"message": "a request could not be served", "exception": fault}
            self._loop.call_exception_handler(told)
        finally:
            self._serving = None
        self._go_on(request)

    def _go_on(self, request: Request) -> None:
        """Serve the next request, wait for it, or end the connection."""
        if self.transport is None or self.transport.is_closing():
            return
        if request.closes or not request.is_read or self.is_last_answer:
            self.leave()
        elif self._messages:
            self._serve_next()
        else:
            self._has_begun, self._since, self._patience_s = False, self._house.now(), KEEP_ALIVE_S
            self._house.note_waiting(self)

    def _refuse(self, status: int) -> None:
        """Answer what never became a request, with an empty body and nothing of what it held."""
        self._house.note_bad_head(status)
        lines: Lines = [(b"Server", b"sidecar")]
        if status == _FULL:
            lines.append((b"Retry-After", b"1"))
        self.write(head(status, lines, b"Content-Length: 0\r\n" + CLOSE))
        self.leave()


def _status_of(error: HttpProcessingError) -> int:
    return 431 if isinstance(error, LineTooLong) or "Too many headers" in str(error) else 400
