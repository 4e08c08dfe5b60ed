"""aiohttp's server as we run it, in production and in tests alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_KEEP_ALIVE_S: Final = 75.0
"""Longer than the idle time of common load balancers (60 s), which must be the first to close."""
_LINGER_S: Final = 2.0


class Listener(web.Server):
    """A low-level server with one handler.

    `handler_cancellation` is on: a client that leaves cancels its handler, which closes the upstream's connection.
    Bodies are not decompressed behind our back. `bad_head` is told of requests that never became one.
    """

    def __init__(self, handler: Handler, *, bad_head: Callable[[int], None]) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            lingering_time=_LINGER_S,
            auto_decompress=False,
            access_log=None,
        )
        self.bad_head = bad_head

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ("_bad_head",)

    def __init__(self, server: Listener, **options: Any) -> None:
        super().__init__(server, **options)
        self._bad_head = server.bad_head

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
        self._bad_head(status)
        response = web.Response(status=status, headers={"Server": "sidecar"})
        response.force_close()
        return response
