"""The public port: how many clients it holds, how patiently, and how it closes without losing an answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import http_parser

from sidecar.edge.http.connection import SHUTDOWN, Connection
from sidecar.edge.http.handshake import Handshake
from sidecar.edge.http.request import Request

Guest = Connection | Handshake
Handler = Callable[[Request], Awaitable[None]]
"""Answers a request."""

LOOK_S: Final = 1.0
BACKLOG: Final = 1024
"""Connections that the system keeps for us until we take them in."""
_OTHER_PARSER: Final = "AIOHTTP_NO_EXTENSIONS"
"""aiohttp's own switch."""
MAX_HANDSHAKES: Final = 512
"""Clients that are agreeing with us on TLS at a time: each takes 72 KB, and nobody knows yet who it is."""
_MAX_LEAVING: Final = 128
"""Connections that are seen out beyond those that there is room for."""
_LAST_WORDS_S: Final = 2.0
"""How long what is broken off may take to let go of everything."""


def request_parser() -> str:
    """Name what parses requests.

    Raises:
        OSError: it is not llhttp, the hardened one, and nobody asked for that.
    """
    if http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy:
        return "llhttp"
    if os.environ.get(_OTHER_PARSER):
        return f"aiohttp's Python parser, as {_OTHER_PARSER} asks"
    raise OSError(
        "this aiohttp was installed without its C parser (llhttp), which is the hardened one: install a wheel for this "
        f"platform, or set {_OTHER_PARSER}=1 to serve with its Python parser"
    )


class Listener:
    """Makes the connections of a port and watches over them; call it for a new one.

    With `tls`, clients have to agree with us on that first; `bad_handshake` is told when one did not. When it is set,
    the next who connects is shown that one.

    `bad_head` is told, by the status of the answer, of requests that never became one. `now` is in seconds and never
    goes back.

    When all places are taken, a newcomer gets the place of who has waited longest without asking for anything: slow
    and silent clients can't keep others out. It is refused only where every place is a request that is being served.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        bad_head: Callable[[int], None],
        tls: ssl.SSLContext | None = None,
        bad_handshake: Callable[[], None] = lambda: None,
        max_connections: int = 1000,
        max_handshakes: int = MAX_HANDSHAKES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.handle = handler
        self.note_bad_head = bad_head
        self.note_bad_handshake = bad_handshake
        self.tls = tls
        self.now = now
        self.is_draining = self.is_closing = False
        self.connections: set[Guest] = set()
        self._max_connections, self._max_handshakes = max_connections, max_handshakes
        self._agreeing: dict[Guest, None] = {}
        """Those that have not agreed on TLS yet, the longest first."""
        self._waiting: dict[Guest, None] = {}
        """Those that wait for a request or the rest of one, the longest first."""
        self._leaving: set[Connection] = set()
        self._none_left = asyncio.Event()

    def __call__(self) -> Guest:
        if self.tls is None:
            return Connection(self, asyncio.get_running_loop())
        return Handshake(self, self.tls, lambda made: Connection(self, asyncio.get_running_loop(), made))

    def admits(self, connection: Guest) -> bool:
        """Take the connection in, for another one if need be."""
        if len(self.connections) >= self._max_connections:
            if not self._waiting:
                return False
            self._end_first(self._waiting)
        self.connections.add(connection)
        if isinstance(connection, Handshake):
            if len(self._agreeing) >= self._max_handshakes:
                self._end_first(self._agreeing)
            self._agreeing[connection] = None
        return True

    def _end_first(self, guests: dict[Guest, None]) -> None:
        longest = next(iter(guests))
        self.forget(longest)
        longest.give_up(503)

    def sees_out(self, connection: Connection) -> bool:
        """Take note of a connection that has had its last answer; there is room for so many."""
        self._waiting.pop(connection, None)
        if len(self._leaving) >= _MAX_LEAVING:
            return False
        self._leaving.add(connection)
        return True

    def counts(self, connection: Connection) -> bool:
        """Tell whether a connection has a place, be it among those that are seen out."""
        return connection in self.connections or connection in self._leaving

    def note_waiting(self, connection: Guest, *, waits: bool = True) -> None:
        """Take note of which connections wait for a request."""
        if waits:
            self._waiting[connection] = None
        else:
            self._waiting.pop(connection, None)

    def forget(self, connection: Guest) -> None:
        """Hear that a connection is no more."""
        self._waiting.pop(connection, None)
        self._agreeing.pop(connection, None)
        self._leaving -= {connection}
        self.connections.discard(connection)
        if not self.connections and not self._leaving:
            self._none_left.set()

    async def watch(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """End connections whose clients take too long, for as long as this runs."""
        while True:
            await sleep(LOOK_S)
            for connection in self.connections | self._leaving:
                try:
                    connection.end_if_overdue()
                except Exception as fault:  # a watch that stops would let all others take as long as they like
                    told = {"message": "a connection could not be judged", "exception": fault}
                    asyncio.get_running_loop().call_exception_handler(told)

    async def close(self, port: asyncio.Server, timeout_s: float) -> None:
        """Take no new connections, answer what was asked, and return when every connection has ended.

        What has not ended after `timeout_s` is broken off.
        """
        self.is_draining = True
        await _take_in_all(port)
        port.close()
        self.is_closing = True
        for connection in tuple(self._waiting):
            connection.close_if_silent()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._until_empty()
        for connection in self.connections | self._leaving:
            connection.abort(SHUTDOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._until_empty()

    async def _until_empty(self) -> None:
        while self.connections or self._leaving:
            self._none_left.clear()
            await self._none_left.wait()


async def _take_in_all(port: asyncio.Server) -> None:
    """Accept whom the system has let in already: closing the port would reset them. The loop takes one at a turn."""
    poll = select.poll()
    for bound in port.sockets:
        poll.register(bound.fileno(), select.POLLIN)
    for _ in range(BACKLOG):
        if not poll.poll(0):
            break
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # the last of them is made known in the next turn
