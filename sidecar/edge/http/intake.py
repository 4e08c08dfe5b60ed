"""What has come of a client's requests: those that are whole, the body under way, and the beginning of a head."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

MAX_HEAD_BYTES: Final = 65_536
"""How long a head may be; what comes in one read of the socket may be longer. A line may have 8190 bytes."""
_READ_BYTES: Final = 65_536
_MAX_AHEAD: Final = 2
"""Requests that are parsed before the one that is served has its answer."""

Message = tuple[RawRequestMessage | int, StreamReader]
"""A request's head and its body; a status stands for what never became a request."""


class Intake:
    """aiohttp's hardened parser, and what it has found. `protocol` is paused while a body is not read."""

    __slots__ = ("_is_one_taken", "_messages", "_payload", "parser", "part_of_head_bytes", "takes_more")

    def __init__(self, protocol: BaseProtocol, loop: asyncio.AbstractEventLoop) -> None:
        self.parser: HttpRequestParser | None = HttpRequestParser(
            protocol,
            loop,
            _READ_BYTES,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=1 + _MAX_AHEAD,
        )
        self._is_one_taken = False
        self.takes_more = True
        """Off after the last request: nothing that follows it is looked at."""
        self.part_of_head_bytes = 0
        """What has come of a head that is not whole."""
        self._messages: deque[Message] = deque()
        self._payload: StreamReader = EMPTY_PAYLOAD
        """The body that came last, or is coming."""

    @property
    def has_next(self) -> bool:
        """Whether a request waits for its turn."""
        return bool(self._messages)

    @property
    def is_full(self) -> bool:
        """Whether so many requests wait that no more should be read."""
        return len(self._messages) >= _MAX_AHEAD

    def feed(self, data: bytes) -> None:
        """Take in what has come; nothing, for what the parser has kept back."""
        if not self.takes_more or self.parser is None:
            return
        messages: Sequence[Message]
        is_between = self._payload.is_eof()  # what ends a body is no part of the next head
        try:
            messages, switches, _ = self.parser.feed_data(data)
        except HttpProcessingError as error:
            messages, switches = ((_status_of(error), EMPTY_PAYLOAD),), True
            if not self._payload.is_eof():  # its reader would wait for ever: the parser has let go of it
                self._payload.set_exception(web.RequestPayloadError(str(error)))
        if switches:  # CONNECT, or an upgrade: what follows is no HTTP, and nobody here speaks anything else
            self.takes_more = False
        if messages:
            self._messages.extend(messages)
            self._payload, self.part_of_head_bytes = messages[-1][1], 0
        elif is_between and data.strip(b"\r\n"):  # empty lines before a head mean nothing
            self.part_of_head_bytes += len(data)
            if self.part_of_head_bytes > MAX_HEAD_BYTES:
                self.takes_more = False
                self._messages.append((431, EMPTY_PAYLOAD))

    def take(self) -> Message:
        """Return the next request, which makes room for another: the one before was answered.

        The parser counts a request once all of it is here, so only then it may be told that one is gone.
        """
        if self._is_one_taken and self.parser is not None:
            self.parser.message_consumed()
        self._is_one_taken = True
        return self._messages.popleft()

    def close(self) -> None:
        """Let go of the parser: it and the protocol hold each other."""
        self.takes_more, self.parser = False, None


def _status_of(error: HttpProcessingError) -> int:
    return 431 if isinstance(error, LineTooLong) or "Too many headers" in str(error) else 400
