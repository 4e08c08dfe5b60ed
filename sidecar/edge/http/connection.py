"""One client's connection: its requests, one after another, and the answers they get."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aiohttp.base_protocol import BaseProtocol

from sidecar.edge.http.intake import Intake
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import answer_to_bad_head
from sidecar.sockets import has_unread, has_unsent, reset_when_closed

HEAD_S: Final = 10.0
"""How long a request's head may take from its first byte on, and a new connection until its first request's."""
STALL_S: Final = 60.0
"""How long a client may leave an answer unread that waits for it: some 48 KiB within this time are enough."""
KEEP_ALIVE_S: Final = 75.0
"""Longer than the idle time of common load balancers (60 s), which must be the first to close."""
LINGER_S: Final = 2.0
"""How long a client that still sends is listened to after its last answer, which a reset would take from it."""
STALLED: Final = "stalled"
SHUTDOWN: Final = "shutdown"


class House(Protocol):
    """What a connection belongs to.

    `is_draining`: each answer is the last of its connection. `is_closing`: who asks nothing is to leave. `now` is in
    seconds and never goes back. `admits` takes a connection in, unless there is no room; `sees_out` tells whether it
    may stay for a moment after its last answer, `counts` whether it still has a place, be it there.
    """

    is_draining: bool
    is_closing: bool

    def now(self) -> float: ...

    def handle(self, request: Request) -> Awaitable[None]: ...

    def note_bad_head(self, status: int) -> None: ...

    def admits(self, connection: Connection) -> bool: ...

    def sees_out(self, connection: Connection) -> bool: ...

    def counts(self, connection: Connection) -> bool: ...

    def note_waiting(self, connection: Connection, *, waits: bool = True) -> None: ...

    def forget(self, connection: Connection) -> None: ...


class Connection(BaseProtocol):
    """The transport's protocol. `agreed` is called when it is made, if it is one by TLS.

    A client that leaves cancels what is done for its request, which closes the upstream's connection.
    """

    __slots__ = (
        *("_agreed", "_has_begun", "_house", "_intake", "_is_leaving", "_patience_s", "_serving", "_since"),
        *("_stalled_since", "abandoned_because", "is_encrypted", "remote"),
    )

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop, agreed: Callable[[], None] | None = None) -> None:
        super().__init__(loop)
        self._intake = Intake(self, loop)
        self._parser = self._intake.parser
        self._house = house
        self._serving: asyncio.Task[None] | None = None
        self._since = 0.0
        """When it began to wait for a request, for the rest of a head, or for the client's end."""
        self._patience_s = HEAD_S
        self._has_begun = False
        """A head has begun to arrive."""
        self._stalled_since: float | None = None
        self._is_leaving = False
        self.remote = ""
        self.is_encrypted = agreed is not None
        self._agreed = agreed
        self.abandoned_because: str | None = None

    @property
    def is_serving(self) -> bool:
        return self._serving is not None

    @property
    def waiting_bytes(self) -> int:
        """How much was written that the system has not taken."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    @property
    def _has_more_to_send(self) -> bool:
        """Whether closing at once takes something from the client; a transport doesn't tell what is below TLS."""
        if self.waiting_bytes or self.transport is None or not self.is_encrypted:
            return bool(self.waiting_bytes)
        connected = self.transport.get_extra_info("socket")
        return connected is not None and has_unsent(connected)

    @property
    def is_last_answer(self) -> bool:
        """Whether the answer that is sent now is the last one."""
        return self._house.is_draining

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if peer else ""
        self._since = self._house.now()
        if self._agreed is not None:
            self._agreed()
            self._agreed = None
        if self._house.admits(self):
            self._house.note_waiting(self)
        else:
            self._refuse(503)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._intake.close()
        self._parser = None
        self._house.forget(self)
        if self._serving is not None:
            self._serving.cancel()

    def data_received(self, data: bytes) -> None:
        intake = self._intake
        intake.feed(data)
        if intake.is_full and not self._buffer_paused:
            self._pause_reading_for_buffer()
        if self._serving is not None:
            return
        if intake.has_next:
            self._serve_next()
        elif intake.part_of_head_bytes and not self._has_begun:
            self._wait_for_head()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on where reading was paused: when a body is read, not at its end, of which aiohttp tells too."""
        if resume_parser and self._reading_paused:
            super().resume_reading()

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
        """Close when what was written is sent.

        TLS waits for the client's last word (RFC 8446 section 6.1), which may never come: only where that is counted.
        """
        if self.transport is None:
            return
        if self.is_encrypted and not self._house.counts(self):
            self.transport.abort()
        elif not self.transport.is_closing():
            self._intake.takes_more, self._is_leaving, self._since = False, True, self._house.now()
            self.transport.close()

    def abort(self, because: str | None = None) -> None:
        """Close at once."""
        self.abandoned_because = self.abandoned_because or because
        if self.transport is not None:
            self.transport.abort()

    def reset(self) -> None:
        """Close at once, so that the client can't take it for the end of an answer."""
        if self.transport is not None:
            reset_when_closed(self.transport.get_extra_info("socket"))
            self.transport.abort()

    def leave(self) -> None:
        """Close so that what was written arrives: a client that still sends must not get a reset for it.

        What it sends from now on is thrown away (RFC 9112 section 9.6).
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._is_leaving:
            return
        if not self._house.sees_out(self) or not transport.can_write_eof():
            self.close()
            return
        self._intake.takes_more, self._is_leaving, self._since = False, True, self._house.now()
        self._reading_paused = False
        self._resume_reading_for_buffer()
        transport.write_eof()

    def close_if_silent(self) -> None:
        """Close if nothing was asked, also nothing that has come and was not read yet.

        Who has only just connected is about to ask, and gets a moment for it.
        """
        if self._patience_s == HEAD_S:
            self._patience_s, self._since = LINGER_S, self._house.now()
        elif self.transport is not None and not has_unread(self.transport.get_extra_info("socket")):
            self.close()

    def end_if_overdue(self) -> None:
        """Close if the client takes too long: over a head, to read, or to ask for anything more."""
        transport, now = self.transport, self._house.now()
        if transport is None:
            return
        if self._stalled_since is not None:
            if now - self._stalled_since > STALL_S:
                self.abort(STALLED)
        elif self._is_leaving:
            if now - self._since > (STALL_S if self._has_more_to_send else LINGER_S):
                transport.abort()
        elif self._serving is None and now - self._since > self._patience_s:
            self.give_up(408)

    def give_up(self, status: int) -> None:
        """End a connection that waits for a request; one whose head has begun to arrive hears why.

        One that has not even read the answers it got would only hold its place longer.
        """
        if self.waiting_bytes:
            self.abort(STALLED)
        elif self._has_begun and not self._is_leaving:
            self._refuse(status)
        else:
            self.close()

    def _wait_for_head(self) -> None:
        self._has_begun, self._since, self._patience_s = True, self._house.now(), HEAD_S

    def _serve_next(self) -> None:
        message, payload = self._intake.take()
        if isinstance(message, int):
            self._refuse(message)
            return
        self._house.note_waiting(self, waits=False)
        self._serving = self._loop.create_task(self._serve(Request(message, payload, self)))
        if self._buffer_paused:
            self.data_received(b"")  # what the parser has kept back while there was no room
            if not self._intake.is_full:
                self._resume_reading_for_buffer()

    async def _serve(self, request: Request) -> None:
        try:
            await self._house.handle(request)
            await self.drained()  # who does not read gets no further answers
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
        if request.closes or not request.is_read:
            self.leave()
        elif self._intake.has_next:
            self._serve_next()
        else:
            self._house.note_waiting(self)
            if self._intake.part_of_head_bytes:
                self._wait_for_head()
                return
            self._has_begun, self._since, self._patience_s = False, self._house.now(), KEEP_ALIVE_S
            if self._house.is_closing:
                self.close_if_silent()

    def _refuse(self, status: int) -> None:
        """Answer what never became a request."""
        self._house.note_bad_head(status)
        self.write(answer_to_bad_head(status))
        self.leave()
