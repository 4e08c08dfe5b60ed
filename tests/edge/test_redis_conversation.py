"""Replies of Redis as they may arrive: in pieces, in heaps, or as what no Redis says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError, ResponseError

from sidecar.edge.redis.conversation import Conversation

Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

EVERY_KIND = b"+OK\r\n:-7\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n"
EVERY_KIND += b"*3\r\n$1\r\nx\r\n*1\r\n:1\r\n$-1\r\n-ERR no\r\n"
READ = [b"OK", -7, b"a\r\nbc", b"", None, None, [], [b"x", [1], None]]


@asynccontextmanager
async def conversation(directory: Path, say: Say) -> AsyncIterator[Conversation]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await say(reader, writer)
        finally:
            writer.close()

    address = str(directory / "redis")
    server = await asyncio.start_unix_server(serve, address)
    _, writer = await asyncio.open_unix_connection(address)
    begun = Conversation(writer)
    try:
        yield begun
    finally:
        await begun.aclose()
        server.close()


def saying(*pieces: bytes) -> Say:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"ask")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await reader.read()

    return say


async def ask(begun: Conversation, count: int) -> list[Any]:
    async with asyncio.timeout(5):
        return await begun.ask(b"ask", count)


@pytest.mark.parametrize("size", [1, 2, 7, len(EVERY_KIND)])
async def test_replies_are_the_same_in_whatever_pieces_they_come(tmp_path: Path, size: int) -> None:
    pieces = [EVERY_KIND[begin : begin + size] for begin in range(0, len(EVERY_KIND), size)]
    async with conversation(tmp_path, saying(*pieces)) as begun:
        *replies, error = await ask(begun, 9)
        assert replies == READ
        assert isinstance(error, ResponseError)
        assert str(error) == "ERR no"
        assert begun.is_live()


@pytest.mark.parametrize(
    ("says", "kind"),
    [(b"-NOSCRIPT No.", NoScriptError), (b"-READONLY No.", ReadOnlyError), (b"-NOPERM No.", NoPermissionError)],
)
async def test_an_error_is_the_one_that_redis_py_knows(tmp_path: Path, says: bytes, kind: type[Exception]) -> None:
    async with conversation(tmp_path, saying(says + b"\r\n")) as begun:
        [error] = await ask(begun, 1)
        assert type(error) is kind
        assert str(error) == "No."


@pytest.mark.parametrize("says", [b"HTTP/1.1 400\r\n", b"\r\n", b"$x\r\n", b":\r\n", b"*1\r\n?\r\n", b"*1\r\n" * 5000])
async def test_what_is_no_reply_ends_the_conversation(tmp_path: Path, says: bytes) -> None:
    async with conversation(tmp_path, saying(says)) as begun:
        with pytest.raises(ConnectionError, match="protocol"):
            await ask(begun, 1)
        assert not begun.is_live()


async def test_a_reply_that_nobody_asked_for_ends_the_conversation_but_not_those_before_it(tmp_path: Path) -> None:
    async with conversation(tmp_path, saying(b":1\r\n:2\r\n")) as begun:
        assert await ask(begun, 1) == [1]
        assert not begun.is_live()


async def test_a_reply_that_comes_late_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with conversation(tmp_path, say) as begun:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await begun.ask(b"ask", 1)
        assert not begun.is_live()


async def test_a_connection_that_ends_amid_a_reply_is_an_error(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"ask")
        writer.write(b"$5\r\nab")

    async with conversation(tmp_path, say) as begun:
        with pytest.raises(ConnectionError):
            await ask(begun, 1)
        assert not begun.is_live()


async def test_a_connection_that_ends_while_nothing_is_asked_is_not_used_again(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"ask")
        writer.write(b":1\r\n")
        await ended.wait()

    async with conversation(tmp_path, say) as begun:
        assert await ask(begun, 1) == [1]
        assert begun.is_live()
        ended.set()
        async with asyncio.timeout(5):
            while begun.is_live():  # noqa: ASYNC110 - the other side closes it
                await asyncio.sleep(0)
