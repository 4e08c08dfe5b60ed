"""One connection to Redis: commands go out together, their replies come back in the same order."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

_END: Final = b"\r\n"
_SIMPLE, _ERROR, _NUMBER, _BULK, _ARRAY = b"+-:$*"
_ERRORS: Final[dict[str, type[RedisError]]] = {
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
}
"""Redis's words and redis-py's, in which problems are told of."""


class Conversation(asyncio.Protocol):
    """Reads replies as RESP 2 has them; one batch of commands at a time.

    redis-py opens the connection, with all that its URL can say of TLS, names and passwords. Its reader is not used:
    it takes some 10 us and several coroutines for each reply, and every request waits for one.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer  # it would close the transport when nobody had it any more
        self._transport = cast(asyncio.Transport, writer.transport)
        self._received = b""
        self._replies: list[Any] = []
        self._expected = 0
        self._waiter: asyncio.Future[list[Any]] | None = None
        self._is_over = False
        self._closed = asyncio.get_running_loop().create_future()
        self._transport.set_protocol(self)

    @classmethod
    async def begin(cls, connection: Any) -> Conversation:
        """Have redis-py open a connection of its own, and take it over; to redis-py it then is no more.

        Raises:
            RedisError, OSError: it can't be had.
        """
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        writer, connection._writer, connection._reader = connection._writer, None, None
        return cls(writer)

    def is_live(self) -> bool:
        """Tell whether more can be asked: not closed, nothing under way, and nothing came that nobody asked for."""
        return not (self._is_over or self._waiter is not None or self._transport.is_closing())

    async def ask(self, commands: bytes, count: int) -> list[Any]:
        """Send so many packed commands and return their replies; an error that is one's reply is among them.

        Raises:
            ConnectionError: the connection was closed, or what came is not RESP 2.
        """
        self._expected = count
        self._replies = []
        waiter: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        self._transport.write(commands)
        try:
            return await waiter
        except BaseException:
            self.close()  # replies that are still to come would be taken for those of others
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close at once."""
        self._is_over = True
        self._transport.abort()

    async def aclose(self) -> None:
        """Close, and wait until it is."""
        self.close()
        await self._closed

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.close()
            return
        received = self._received + data if self._received else data
        at, replies, expected = 0, self._replies, self._expected
        try:
            while len(replies) < expected and (read := _read(received, at)) is not None:
                reply, at = read
                replies.append(reply)
        except (ValueError, IndexError, RecursionError):
            self._waiter.set_exception(ConnectionError("what came is not Redis's protocol"))
            self.close()
            return
        self._received = received[at:]
        if len(replies) == expected:
            self._waiter.set_result(replies)
            if self._received:  # more replies than commands
                self.close()

    def eof_received(self) -> None:
        self._is_over = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(str(exc) if exc else "Redis closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)


def _read(received: bytes, at: int) -> tuple[Any, int] | None:
    """Return the reply that begins here and where the next one does; None when it has not all come.

    Raises:
        ValueError, IndexError: this is no reply.
    """
    end = received.find(_END, at)
    if end < 0:
        return None
    kind, after = received[at], end + 2
    if kind == _BULK:
        size = int(received[at + 1 : end])
        if size < 0:
            return None, after
        if len(received) < after + size + 2:
            return None
        return received[after : after + size], after + size + 2
    if kind == _NUMBER:
        return int(received[at + 1 : end]), after
    if kind == _SIMPLE:
        return received[at + 1 : end], after
    if kind == _ERROR:
        return _error(received[at + 1 : end]), after
    if kind == _ARRAY:
        return _read_array(received, int(received[at + 1 : end]), after)
    raise ValueError("no reply begins so")


def _read_array(received: bytes, count: int, at: int) -> tuple[Any, int] | None:
    if count < 0:
        return None, at
    items = []
    for _ in range(count):
        read = _read(received, at)
        if read is None:
            return None
        item, at = read
        items.append(item)
    return items, at


def _error(line: bytes) -> RedisError:
    text = line.decode("utf-8", "replace")
    word, _, rest = text.partition(" ")
    error = _ERRORS.get(word)
    return ResponseError(text) if error is None else error(rest)
