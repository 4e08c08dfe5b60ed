"""One HTTP/1.1 connection to the upstream: one request at a time, its answer, and whether it may carry another."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from sidecar.denials import BadGateway, Denial
from sidecar.edge.upstream_answer import Answer

_WINDOW_BYTES: Final = 262_144
"""Unread body above which the upstream is not read from; one read of the socket may come on top."""
_SLICE_BYTES: Final = 65_536
"""How much of a large body is written at a time."""


class Connection(asyncio.Protocol):
    """The transport's protocol and the parser's callbacks.

    `freed` is called when an answer has ended and the connection can carry another request, `lost` when it is gone.
    """

    __slots__ = (
        "_answer",
        "_freed",
        "_headers",
        "_lost",
        "_max_head_bytes",
        "_open",
        "_overhead",
        "_parser",
        "_poll",
        "_reading",
        "_reusable",
        "_transport",
        "_until_close",
        "_writable",
        "_written",
        "loop",
        "owner",
    )

    def __init__(
        self, max_head_bytes: int, freed: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        self._max_head_bytes = max_head_bytes
        self._freed = freed
        self._lost = lost
        self.owner = ""
        """Whose requests it carries, where accounts are kept apart."""
        self._answer: Answer | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._overhead = 0
        """Bytes that came since the request or the last piece of body: heads, chunk sizes, trailers."""
        self._open = self._reading = self._writable = True
        self._written = self._reusable = self._until_close = False
        self._parser = HttpResponseParser(self)

    def is_open(self) -> bool:
        return self._open and not self._transport.is_closing()

    def is_live(self) -> bool:
        """Tell whether a kept connection may be used: not closed, and nothing came that nobody asked for.

        The operating system is asked too: a FIN or stray bytes (RFC 9112 section 9.2) may have arrived that the
        event loop has not read yet, and would then be taken for the next answer.
        """
        return self.is_open() and (self._poll is None or not self._poll.poll(0))

    def begin(self, idle_timeout_s: float | None) -> Answer:
        """Return the answer to the request that is written next."""
        self._answer = answer = Answer(self, idle_timeout_s)
        self._overhead = 0
        self._written = self._reusable = False
        return answer

    def write(self, request: bytes) -> None:
        self._transport.write(request)
        self._written = True

    async def write_slowly(self, head: bytes, body: bytes, answer: Answer) -> None:
        """Write a large body no faster than the upstream takes it.

        An answer may come before the body is sent. One that refuses it or announces the end of the connection stops
        the writing (RFC 9112 section 9.5); with any other the upstream gets the rest, which is no longer waited for.
        """
        self._transport.write(head)
        rest = memoryview(body)
        while rest and answer.error is None and not self._is_refused(answer):
            self._transport.write(rest[:_SLICE_BYTES])
            rest = rest[_SLICE_BYTES:]
            while not (self._writable or answer.status or answer.error):
                await answer.wait(None)
        self._written = not rest

    def _is_refused(self, answer: Answer) -> bool:
        return answer.status != 0 and (answer.ended or answer.status >= 400 or not self._parser.should_keep_alive())

    def drop(self) -> None:
        """Close at once and forget the answer."""
        self._answer = None
        self.abort()

    def close(self) -> None:
        """Close in good order."""
        self._open = False
        self._transport.close()

    def abort(self) -> None:
        """Close at once; the answer that is not whole fails."""
        self._open = False
        self._transport.abort()

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.loop = asyncio.get_running_loop()
        self._poll = select.poll() if hasattr(select, "poll") else None  # not on Windows
        if self._poll is not None:
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.abort()
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._reusable = False
            answer.fail(_denial(error))
        if answer.ended:
            self._finish(answer)
        elif answer.error is None:
            self._stay_in_bounds(answer)
        answer.wake()

    def eof_received(self) -> None:
        self._open = False
        answer = self._answer
        if answer is None or not answer.status or not self._until_close:
            self.abort()  # connection_lost says to the answer what this means
            return
        answer.ended = True
        self._finish(answer)
        answer.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False
        answer = self._answer
        if answer is not None:
            reason = "upstream_truncated" if answer.status else "upstream_closed"
            answer.fail(BadGateway(reason, detail=str(exc) if exc else "the upstream closed the connection"))
        del self._parser  # it and this object hold each other
        self._lost(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._answer is not None:
            self._answer.wake()

    def _stay_in_bounds(self, answer: Answer) -> None:
        if self._overhead > self._max_head_bytes:
            answer.fail(BadGateway("upstream_too_large", detail="the head, a chunk extension or the trailers"))
        elif answer.buffered > _WINDOW_BYTES and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _finish(self, answer: Answer) -> None:
        self._answer = answer.source = None
        if not self._written or self._transport.get_write_buffer_size():
            self.abort()
        elif self._reusable:
            self.resume_reading()
            self._freed(self)
        else:
            self.close()

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.ended:
            raise BadGateway("upstream_protocol", detail="more than one answer")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9112 section 5.1: white space around a value is not part of it. The parser strips only before.
        stripped = value.rstrip(b" \t")
        if stripped != value and name.lower() == b"transfer-encoding":
            raise BadGateway("upstream_protocol", detail="Transfer-Encoding that the parser and we read differently")
        self._headers.append((name, stripped))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        if not 200 <= status < 600 or self._parser.get_http_version() not in ("1.1", "1.0"):
            raise BadGateway("upstream_protocol", detail=f"status {status}, HTTP {self._parser.get_http_version()}")
        if self._overhead > self._max_head_bytes and _size(self._headers) > self._max_head_bytes:
            raise BadGateway("upstream_too_large", detail="the head")
        self._until_close = not _announces_its_end(self._headers)
        if self._answer is not None:
            self._answer.headers = tuple(self._headers)
            self._answer.status = status

    def on_body(self, piece: bytes) -> None:
        self._overhead = 0
        if self._answer is not None:
            self._answer.add(piece)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._answer.ended = True
            self._reusable = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"


def _denial(error: Exception) -> Denial:
    """Return what a callback raised, else what the parser objects to."""
    if isinstance(error.__context__, Denial):
        return error.__context__
    denial = BadGateway("upstream_protocol", detail=f"{type(error).__name__}: {error}")
    denial.__cause__ = error
    return denial


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _announces_its_end(headers: list[tuple[bytes, bytes]]) -> bool:
    """Tell whether the body is framed; if not it ends with the connection (RFC 9112 section 6.3).

    Raises:
        BadGateway: for a transfer coding other than ``chunked``, once. The parser would hand it on undecoded, and
            the header that names it never crosses a proxy.
    """
    framed = False
    for name, value in headers:
        length = len(name)
        if length == 14 and name.lower() == b"content-length":
            framed = True
        elif length == 17 and name.lower() == b"transfer-encoding":
            if framed or value.lower() != b"chunked":
                raise BadGateway("upstream_protocol", detail="unusable Transfer-Encoding")
            framed = True
    return framed
