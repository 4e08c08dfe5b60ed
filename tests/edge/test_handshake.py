"""TLS is agreed on before a connection is one: who does not get that far is counted, waited for, and gives way."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from typing import cast

import pytest

from sidecar.edge.http.connection import HEAD_S, LINGER_S, Connection
from sidecar.edge.http.listener import Listener
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import Response
from sidecar.tls import server_context
from tests.certificates import Authority
from tests.service import until

ASKING = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ROOM = 3
PATIENCE_S = 5.0
AUTHORITY = Authority()


class Port:
    """A listener by TLS, and time that passes when told to."""

    def __init__(self, **room: int) -> None:
        self.now, self.bad_handshakes = 0.0, 0
        self._look = asyncio.Event()
        shown = AUTHORITY.certify()
        self.listener = Listener(
            self._answer,
            bad_head=lambda _: None,
            tls=server_context(shown.cert, shown.key),
            bad_handshake=self._note,
            **({"max_connections": ROOM} | room),
            now=lambda: self.now,
        )
        self.number = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def _answer(self, request: Request) -> None:
        if request.target == "/":
            await request.send(Response(200, body=b"https" if request.is_encrypted else b"http"))
        else:
            await request.send(Response(200, body=bytes(int(request.target[1:]))))

    def _note(self) -> None:
        self.bad_handshakes += 1

    async def silent(self) -> asyncio.StreamReader:
        """Connect, and wait until that was noticed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        self.writers.append(writer)
        return reader

    @contextmanager
    def agreed(self) -> Iterator[ssl.SSLSocket]:
        """Connect and agree on TLS; what happens after that, this client does not look at by itself."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(PATIENCE_S)
        raw.connect(("127.0.0.1", self.number))
        with closing(
            ssl.create_default_context(cadata=AUTHORITY.cert.decode()).wrap_socket(raw, server_hostname="localhost")
        ) as client:
            yield client

    async def holds(self, count: int) -> None:
        async def are_so_many() -> bool:
            return len(self.listener.connections) == count

        await until(are_so_many)

    async def only(self) -> Connection:
        """Return the connection of the one client, when it has agreed."""

        async def is_one() -> bool:
            return [type(guest) for guest in self.listener.connections] == [Connection]

        await until(is_one)
        return cast("Connection", next(iter(self.listener.connections)))

    async def looks(self) -> None:
        """Wait until the watch has looked at all connections."""
        for _ in range(2):
            self._look.clear()
            await self._look.wait()

    async def tick(self, _: float) -> None:
        self._look.set()
        await asyncio.sleep(0.005)

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
    server = await asyncio.get_running_loop().create_server(port.listener, "127.0.0.1", 0)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    port.number = server.sockets[0].getsockname()[1]
    watch = asyncio.create_task(port.listener.watch(port.tick))
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


async def test_who_agrees_slowly_takes_no_more_than_the_room_that_there_is_for_it() -> None:
    port = Port(max_connections=10, max_handshakes=2)
    async with _open(port):
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, port.agreed())
            kept = await port.only()
            silent = [await port.silent() for _ in range(2)]
            await port.holds(3)
            await port.silent()
            with suppress(ConnectionError):
                assert await silent[0].read() == b"", "the one that has taken longest gave way"
            assert await port.ask() == b"https"
            assert kept in port.listener.connections, "who has agreed does not give way to who has not"


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


def has_ended(client: ssl.SSLSocket) -> bool:
    """Tell whether the other end has let go of the connection: not only said so, and waited for a word."""
    try:
        while socket.socket.recv(client, 65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


async def test_who_makes_room_has_no_descriptor_any_more_although_it_says_no_last_word(port: Port) -> None:
    with ExitStack() as stack:
        made = [await asyncio.to_thread(stack.enter_context, port.agreed()) for _ in range(2 * ROOM)]
        await port.holds(ROOM)
        for client in made[:ROOM]:
            assert await asyncio.to_thread(has_ended, client)


async def test_who_makes_room_in_the_middle_of_a_head_hears_why_and_is_ended_after_a_moment(port: Port) -> None:
    with ExitStack() as stack:
        slow = await asyncio.to_thread(stack.enter_context, port.agreed())
        slow.sendall(ASKING[:10])
        connection = await port.only()

        async def has_come() -> bool:
            return connection._has_begun

        await until(has_come)
        for _ in range(ROOM):
            await asyncio.to_thread(stack.enter_context, port.agreed())
        assert (await asyncio.to_thread(slow.recv, 12)) == b"HTTP/1.1 503"
        await port.holds(ROOM)
        port.now += LINGER_S + 0.1
        assert await asyncio.to_thread(has_ended, slow)


@pytest.mark.parametrize("size", range(0, 200_000, 20_000))
async def test_a_last_answer_arrives_whole_although_its_reader_pauses(port: Port, size: int) -> None:
    """Where there is the rest of it when the reader pauses depends on the size: with TLS, below it, or on the way."""
    with ExitStack() as stack:
        client = await asyncio.to_thread(stack.enter_context, port.agreed())
        client.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
        connection = await port.only()

        async def is_leaving() -> bool:
            return connection.transport is None or connection.transport.is_closing()

        await until(is_leaving)
        port.now += LINGER_S + 0.1
        await port.looks()
        answer = await asyncio.to_thread(all_of, client)
        assert len(answer.partition(b"\r\n\r\n")[2]) == size


def all_of(client: ssl.SSLSocket) -> bytes:
    received = bytearray()
    while piece := client.recv(65_536):
        received += piece
    return bytes(received)


async def test_where_no_descriptor_is_left_a_newcomer_is_closed_and_nothing_is_told(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def none_left(_: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", none_left)
        reader = await port.silent()
        with suppress(ConnectionError):
            assert await reader.read() == b""
    assert await port.ask() == b"https"
    assert told == []
