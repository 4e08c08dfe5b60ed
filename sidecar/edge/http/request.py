"""A request as the parser found it, and the way back to who sent it."""

from __future__ import annotations

from typing import Final, Protocol

from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from sidecar.edge.http.response import CLOSE, NO_BODY, Lines, Response, head

_SLICE_BYTES: Final = 65_536
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HTTP_1_1: Final = (1, 1)


class Client(Protocol):
    """Who asked, at the other end of a connection."""

    remote: str
    """Its address."""
    is_encrypted: bool
    """Whether it came by TLS."""
    abandoned_because: str | None
    """Why we have broken off the connection, if we have."""

    @property
    def is_last_answer(self) -> bool:
        """Whether the answer that is sent now is the last one."""
        ...

    def write(self, *pieces: bytes | memoryview) -> None:
        """Send, or raise ConnectionError when the client has left."""

    async def drained(self) -> None:
        """Return when the client has room for more."""

    def close(self) -> None:
        """Close when what was written is sent."""

    def abort(self) -> None:
        """Close at once."""

    def reset(self) -> None:
        """Close at once, so that the client can't take it for the end of an answer."""


class Request:
    """One request. It is answered once."""

    __slots__ = (
        "_client",
        "_ends_with_connection",
        "_is_chunked",
        "_payload",
        "_raw_headers",
        "closes",
        "method",
        "status",
        "target",
        "version",
    )

    def __init__(self, message: RawRequestMessage, payload: StreamReader, client: Client) -> None:
        self.method: str = message.method
        self.target: str = message.path
        """As it came: nothing decoded, nothing normalised."""
        self.version: tuple[int, int] = (message.version.major, message.version.minor)
        self._raw_headers: tuple[tuple[bytes, bytes], ...] = message.raw_headers
        self.closes: bool = message.should_close or message.upgrade or self.version != _HTTP_1_1
        """The connection is to serve no other request."""
        self.status: int | None = None
        """Of the answer that has begun."""
        self._payload = payload
        self._client = client
        self._is_chunked = self._ends_with_connection = False

    def take_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the header lines, once: with thousands of open streams it matters what is kept."""
        lines, self._raw_headers = self._raw_headers, ()
        return lines

    @property
    def abandoned_because(self) -> str | None:
        """Why we have broken off the client's connection; None when it was the client, or nobody."""
        return self._client.abandoned_because

    @property
    def remote(self) -> str:
        """The address of the connection's other end."""
        return self._client.remote

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is one by TLS."""
        return self._client.is_encrypted

    @property
    def has_body(self) -> bool:
        return self._payload is not EMPTY_PAYLOAD

    @property
    def has_arrived(self) -> bool:
        """Whether the whole body is here, read or not."""
        return self._payload.is_eof()

    @property
    def is_read(self) -> bool:
        """Whether the whole body was read."""
        return self._payload.at_eof()

    async def read_some(self) -> bytes:
        """Return what is here of the body, waiting for some; nothing at its end.

        Raises:
            aiohttp.web.RequestPayloadError: its framing is broken.
        """
        return await self._payload.readany()

    def read_now(self) -> bytes:
        """Return what is here of the body; see `read_some`."""
        return self._payload.read_nowait()

    def invite_body(self) -> None:
        """Tell a client that waits for it to send the body (RFC 9110 section 10.1.1, which HTTP/1.0 does not know)."""
        if self.version == _HTTP_1_1:
            self._client.write(_CONTINUE)

    async def send(self, response: Response) -> None:
        """Send a whole answer: in one write where it is small, no faster than the client reads where it is not."""
        status, body = response.status, response.body
        framing = b"" if status in NO_BODY else b"Content-Length: %d\r\n" % len(body)
        opening = head(status, response.lines, framing + self._connection_line())
        self.status = status
        if status in NO_BODY or self.method == "HEAD":
            self._client.write(opening)
        elif len(body) <= _SLICE_BYTES:
            self._client.write(opening + body)
        else:
            self._client.write(opening)
            rest = memoryview(body)
            for start in range(0, len(body), _SLICE_BYTES):
                self._client.write(rest[start : start + _SLICE_BYTES])
                await self._client.drained()

    def begin(self, status: int, lines: Lines, length: bytes | None) -> None:
        """Send the head of an answer whose body follows in pieces, `length` bytes of them where that is known."""
        if status in NO_BODY:
            framing = b""
        elif length is not None:
            framing = b"Content-Length: %b\r\n" % length
        elif self.version == _HTTP_1_1:
            framing = b"Transfer-Encoding: chunked\r\n"
            self._is_chunked = True
        else:
            framing = b""
            self._ends_with_connection = True
        opening = head(status, lines, framing + self._connection_line())
        self.status = status
        self._client.write(opening)

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body, and return when the client has room for another."""
        self.put(piece)
        await self._client.drained()

    def put(self, piece: bytes) -> None:
        """Send a piece of the body, whether or not the client has room for it."""
        if self._is_chunked:
            self._client.write(b"%x\r\n" % len(piece), piece, b"\r\n")
        else:
            self._client.write(piece)

    def end(self) -> None:
        """Say that the body was sent."""
        if self._is_chunked:
            self._client.write(b"0\r\n\r\n")

    def break_off(self) -> None:
        """Close, after what was sent, an answer that can't be finished: that it is not whole is all there is to say.

        Where the end of the connection would be taken for the end of the answer, it is reset instead.
        """
        if self._ends_with_connection:
            self._client.reset()
        else:
            self._client.close()

    def abandon(self) -> None:
        """Break off at once, for a client that does not read."""
        self._client.abort()

    def _connection_line(self) -> bytes:
        self.closes = self.closes or self._client.is_last_answer
        return CLOSE if self.closes else b""
