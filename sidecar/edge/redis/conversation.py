"""One connection to Redis: commands go out together, their replies come back in the same order."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from hiredis import ProtocolError, Reader
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

_NOT_ALL_HERE: Final = object()
_ERRORS: Final[dict[str, type[RedisError]]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "WRONGPASS": AuthenticationError,
}
"""Redis's words and redis-py's, in which problems are told of."""


class Conversation(asyncio.Protocol):
    """Reads replies; one batch of commands at a time.

    redis-py's reader is not used: it takes some 10 us and several coroutines for each reply, and every request waits
    for one.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer  # it would close the transport when nobody had it any more
        self._transport = cast(asyncio.Transport, writer.transport)
        self._reader = Reader(replyError=_error, errors="replace", notEnoughData=_NOT_ALL_HERE)
        self._replies: list[Any] = []
        self._expected = 0
        self._waiter: asyncio.Future[list[Any]] | None = None
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._transport.set_protocol(self)

    def is_live(self) -> bool:
        """Tell whether more can be asked: not closed, nothing under way, and nothing came that nobody asked for."""
        return not (self._is_over or self._waiter is not None or self._transport.is_closing())

    async def ask(self, commands: bytes, count: int) -> list[Any]:
        """Send so many packed commands and return their replies; an error that is one's reply is among them.

        Raises:
            ConnectionError: the connection was closed, or what came is not Redis's protocol.
        """
        self._expected = count
        self._replies = []
        waiter: asyncio.Future[list[Any]] = self._loop.create_future()
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
        reader, replies, expected = self._reader, self._replies, self._expected
        try:
            reader.feed(data)
            while len(replies) < expected and (reply := reader.gets()) is not _NOT_ALL_HERE:
                replies.append(reply)
        except ProtocolError:
            self._waiter.set_exception(ConnectionError("what came is not Redis's protocol"))
            self.close()
            return
        if len(replies) == expected:
            self._waiter.set_result(replies)
            if reader.has_data():  # more replies than commands
                self.close()

    def eof_received(self) -> None:
        self._is_over = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(str(exc) if exc else "Redis closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)


def _error(text: str) -> RedisError:
    word, _, rest = text.partition(" ")
    try:
        return _ERRORS[word](rest)
    except (KeyError, ValueError):  # it is another one, or redis-py makes nothing of the rest
        return ResponseError(text)
