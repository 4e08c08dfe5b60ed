"""aiohttp's server as we run it, in production and in tests alike: how many clients it holds, and how patiently."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import http_parser, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_OTHER_PARSER: Final = "AIOHTTP_NO_EXTENSIONS"
"""aiohttp's own switch."""
HEAD_S: Final = 10.0
"""How long a request's head may take from its first byte on, and a new connection until its first request's."""
STALL_S: Final = 60.0
"""How long a client may leave an answer unread that waits for it: some 48 KiB within this time are enough."""
LOOK_S: Final = 1.0
_KEEP_ALIVE_S: Final = 75.0
"""Longer than the idle time of common load balancers (60 s), which must be the first to close."""
_LINGER_S: Final = 2.0
_CLOSING: Final = "HTTP/1.1 {}\r\nServer: sidecar\r\n{}Content-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_SLOW: Final = _CLOSING.format("408 Request Timeout", "").encode()
_FULL: Final = _CLOSING.format("503 Service Unavailable", "Retry-After: 1\r\n").encode()


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


class Listener(web.Server):
    """A low-level server with one handler.

    `handler_cancellation` is on: a client that leaves cancels its handler, which closes the upstream's connection.
    Bodies are not decompressed behind our back. `bad_head` is told, by the status, of requests that never became one.
    `now` is in seconds and never goes back.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        bad_head: Callable[[int], None],
        max_connections: int = 1000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            lingering_time=_LINGER_S,
            auto_decompress=False,
            access_log=None,
        )
        self.bad_head = bad_head
        self.now = now
        self._max_connections = max_connections
        self._open: set[_Connection] = set()

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def admits(self, connection: _Connection) -> bool:
        """Take the connection in, unless there are too many."""
        if len(self._open) >= self._max_connections:
            return False
        self._open.add(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        """Hear that a connection is no more."""
        self._open.discard(connection)

    async def watch(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """End connections whose clients take too long, for as long as this runs."""
        while True:
            await sleep(LOOK_S)
            for connection in tuple(self._open):
                try:
                    connection.end_if_overdue()
                except Exception as fault:  # a watch that stops would let all others take as long as they like
                    told = {"message": "a connection could not be judged", "exception": fault}
                    asyncio.get_running_loop().call_exception_handler(told)


class _Connection(RequestHandler):
    __slots__ = ("_has_begun", "_head_since", "_listener", "_stalled_since")

    def __init__(self, listener: Listener, **options: Any) -> None:
        super().__init__(listener, **options)
        self._listener = listener
        self._head_since: float | None = listener.now()
        self._has_begun = False
        self._stalled_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._listener.admits(self):
            super().connection_made(transport)
        else:
            self._listener.bad_head(503)
            cast(asyncio.Transport, transport).write(_FULL)
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._listener.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._awaits_head():
            self._head_since = None
        elif self._head_since is None or not self._has_begun:
            self._head_since, self._has_begun = self._listener.now(), True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_since = self._listener.now()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_since = None

    def end_if_overdue(self) -> None:
        """Close the connection if its client takes too long over a head, or to read."""
        transport, now = self.transport, self._listener.now()
        if transport is None:
            return
        if self._stalled_since is not None and now - self._stalled_since > STALL_S:
            transport.abort()
        elif self._head_since is not None and now - self._head_since > HEAD_S and self._awaits_head():
            if self._has_begun:
                self._listener.bad_head(408)
                transport.write(_TOO_SLOW)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a head that could not be parsed, with an empty body and nothing of what it held."""
        status = 431 if isinstance(exc, LineTooLong) or "Too many headers" in str(exc) else status
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun and cannot be taken back")
        self._listener.bad_head(status)
        response = web.Response(status=status, headers={"Server": "sidecar"})
        response.force_close()
        return response

    def _awaits_head(self) -> bool:
        """Tell whether no request is being served or waits to be: what comes now belongs to a head."""
        return self._waiter is not None and not self._waiter.done() and not self._messages
