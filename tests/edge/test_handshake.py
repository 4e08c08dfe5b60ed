"""TLS is agreed on before a connection is one: who does not get that far is counted, waited for, and gives way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from sidecar.edge.http.connection import HEAD_S
from sidecar.edge.http.listener import Listener
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import Response
from sidecar.tls import server_context
from tests.certificates import Authority
from tests.service import until

ASKING = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ROOM = 3
AUTHORITY = Authority()


class Port:
    """A listener by TLS, and time that passes when told to."""

    def __init__(self) -> None:
        self.now, self.bad_handshakes = 0.0, 0
        self._look = asyncio.Event()
        shown = AUTHORITY.certify()
        self.listener = Listener(
            self._answer,
            bad_head=lambda _: None,
            tls=server_context(shown.cert, shown.key),
            bad_handshake=self._note,
            max_connections=ROOM,
            now=lambda: self.now,
        )
        self.number = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def _answer(self, request: Request) -> None:
        await request.send(Response(200, body=b"https" if request.is_encrypted else b"http"))

    def _note(self) -> None:
        self.bad_handshakes += 1

    async def silent(self) -> asyncio.StreamReader:
        """Connect, and wait until that was noticed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        self.writers.append(writer)
        return reader

    async def holds(self, count: int) -> None:
        async def are_so_many() -> bool:
            return len(self.listener.connections) == count

        await until(are_so_many)

    async def ask(self) -> bytes:
        context = ssl.create_default_context(cadata=AUTHORITY.cert.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, ssl=context)
        writer.write(ASKING)
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(5)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        return body


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    port = Port()
    async with _open(port):
        yield port


@asynccontextmanager
async def _open(port: Port) -> AsyncIterator[None]:
    async def tick(_: float) -> None:
        await asyncio.sleep(0.005)

    server = await asyncio.get_running_loop().create_server(port.listener, "127.0.0.1", 0)
    port.number = server.sockets[0].getsockname()[1]
    watch = asyncio.create_task(port.listener.watch(tick))
    try:
        yield
    finally:
        watch.cancel()
        await port.listener.close(server, 0)
        for writer in port.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_request_by_tls_is_known_to_be_one_and_leaves_nothing_behind(port: Port) -> None:
    for _ in range(2 * ROOM):
        assert await port.ask() == b"https"
    await port.holds(0)
    assert port.bad_handshakes == 0


async def test_who_connects_and_says_nothing_keeps_nobody_out(port: Port) -> None:
    silent = [await port.silent() for _ in range(ROOM)]
    await port.holds(ROOM)
    assert await port.ask() == b"https"
    with suppress(ConnectionError):
        assert await silent[0].read() == b"", "the one that has waited longest gave way"


async def test_who_takes_longer_than_a_head_may_is_ended(port: Port) -> None:
    silent = await port.silent()
    await port.holds(1)
    port.now += HEAD_S
    assert await port.ask() == b"https"
    port.now += 0.1
    with suppress(ConnectionError):
        assert await silent.read() == b""
    await port.holds(0)


async def test_who_speaks_something_else_is_counted_and_closed(port: Port) -> None:
    reader = await port.silent()
    port.writers[0].write(ASKING)
    with suppress(ConnectionError):
        assert b"HTTP" not in await reader.read()
    await port.holds(0)
    assert port.bad_handshakes == 1


async def test_who_leaves_in_the_middle_is_forgotten(port: Port) -> None:
    await port.silent()
    await port.holds(1)
    port.writers[0].close()
    await port.holds(0)
