"""How patient the public port is with clients, and how many it holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import cast

import pytest
from aiohttp import http_parser, web

from sidecar.edge.http.connection import HEAD_S, STALL_S, Connection
from sidecar.edge.http.listener import Listener, request_parser
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import Response
from tests.fakes import Clock, Ticks

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
PATIENCE_S = 5.0


class Port:
    """A listener with a watch that looks when told to, and time that passes when told to."""

    def __init__(self, *, max_connections: int = 10) -> None:
        self.clock, self.ticks, self.bad_heads = Clock(), Ticks(), list[int]()
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.listener = Listener(
            self._answer, bad_head=self.bad_heads.append, max_connections=max_connections, now=self.clock
        )
        self.connections = cast("set[Connection]", self.listener.connections)
        self.number = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def _answer(self, request: Request) -> None:
        self.asked.set()
        if request.target == "/":
            await self.may_answer.wait()
            await request.send(Response(200, body=b"ok"))
            return
        if request.target == "/long":
            await request.send(Response(200, body=bytes(60_000)))
            return
        if request.target == "/whole":
            while await request.read_some():
                pass
            await request.send(Response(200, body=b"ok"))
            return
        if request.target == "/body":
            try:
                await request.read_some()
                await request.read_some()
            except web.RequestPayloadError:
                await request.send(Response(400))
            return
        request.begin(200, [], None)
        if request.target == "/broken":
            await request.write(b"half")
            await asyncio.sleep(0.01)
            request.break_off()
            return
        try:
            while True:
                await request.write(bytes(65_536))
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise

    async def look(self) -> None:
        """Have the watch look once at all connections."""
        await self.ticks.asked.get()
        self.ticks.end()
        await self.ticks.asked.get()
        self.ticks.asked.put_nowait(0.0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Port]:
        watch = asyncio.ensure_future(self.listener.watch(self.ticks))
        server = await asyncio.get_running_loop().create_server(self.listener, "127.0.0.1", 0)
        self.number = server.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield self
        finally:
            watch.cancel()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(watch, *[writer.wait_closed() for writer in self._writers], return_exceptions=True)
            await self.listener.close(server, PATIENCE_S)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that the listener has taken in."""
        before = len(self.listener.connections)
        streams = await self.call()
        while len(self.listener.connections) == before:  # noqa: ASYNC110 - taken in within a few turns of the loop
            await asyncio.sleep(0)
        return streams

    async def call(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that may or may not be taken in."""
        streams = await asyncio.open_connection("127.0.0.1", self.number)
        self._writers.append(streams[1])
        return streams


async def test_a_head_that_takes_too_long_is_answered_408_and_closed() -> None:
    async with Port().open() as port:
        reader, writer = await port.connect()
        for byte in HEAD[:12]:
            writer.write(bytes([byte]))
            await writer.drain()
        await settled()
        port.clock.pass_(HEAD_S + 1)
        await port.look()
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        assert port.bad_heads == [408]


async def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word() -> None:
    async with Port().open() as port:
        reader, _ = await port.connect()
        port.clock.pass_(HEAD_S + 1)
        await port.look()
        assert await reader.read() == b""
        assert port.bad_heads == []


async def test_neither_a_request_that_is_served_nor_the_rest_after_it_is_bounded() -> None:
    async with Port().open() as port:
        reader, writer = await port.connect()
        for _ in range(2):
            port.asked.clear()
            port.may_answer.clear()
            writer.write(HEAD + b"\r\n")
            await port.asked.wait()
            port.clock.pass_(10 * HEAD_S)
            await port.look()
            port.may_answer.set()
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
            port.clock.pass_(HEAD_S + 1)
            await port.look()
        assert port.bad_heads == []


async def test_a_slow_head_after_an_answered_request_is_bounded_too() -> None:
    async with Port().open() as port:
        port.may_answer.set()
        reader, writer = await port.connect()
        writer.write(HEAD + b"\r\n")
        await reader.readuntil(b"ok")
        writer.write(HEAD)
        await settled()
        port.clock.pass_(HEAD_S + 1)
        await port.look()
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_does_not_read_its_answer_is_left() -> None:
    async with Port().open() as port:
        _, writer = await port.connect()
        writer.write(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        (connection,) = port.connections
        while not connection.writing_paused:  # noqa: ASYNC110 - the buffers on the way fill up
            await asyncio.sleep(0)
        port.clock.pass_(STALL_S - 1)
        await port.look()
        assert not port.left.is_set()
        port.clock.pass_(2)
        await port.look()
        await port.left.wait()


@pytest.mark.parametrize("room", [1, 3])
async def test_where_every_place_is_a_request_that_is_served_the_next_is_told_503_at_once(room: int) -> None:
    async with Port(max_connections=room).open() as port:
        served = [await port.connect() for _ in range(room)]
        for _, writer in served:
            writer.write(HEAD + b"\r\n")
        while any(not connection.is_serving for connection in port.connections):  # noqa: ASYNC110
            await asyncio.sleep(0)
        reader, writer = await port.call()
        writer.write(HEAD * 1000)  # what is unread when a connection is closed must not take the answer with it
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in answer
        assert port.bad_heads == [503]
        port.may_answer.set()
        for reader, _ in served:
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("room", [1, 3])
async def test_where_clients_hold_places_and_ask_nothing_a_newcomer_gets_the_place_of_the_longest(room: int) -> None:
    async with Port(max_connections=room).open() as port:
        port.may_answer.set()
        silent = [await port.connect() for _ in range(room)]
        slow = silent[0][1]
        slow.write(HEAD)
        await settled()
        reader, writer = await port.call()
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        assert (await silent[0][0].read()).startswith(b"HTTP/1.1 503 ")
        assert port.bad_heads == [503]
        for reader, writer in silent[1:]:
            writer.write(HEAD + b"\r\n")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")


async def test_what_follows_a_request_to_switch_to_another_protocol_is_not_looked_at() -> None:
    async with Port().open() as port:
        port.may_answer.set()
        reader, writer = await port.connect()
        writer.write(b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD + b"\r\n")
        assert (await reader.read()).count(b"HTTP/1.1") == 1


async def test_requests_that_come_ahead_are_answered_in_turn() -> None:
    async with Port().open() as port:
        port.may_answer.set()
        reader, writer = await port.connect()
        writer.write((HEAD + b"\r\n") * 100 + b"GET\r\n\r\n")
        answers = await reader.read()
        assert answers.count(b"\r\n\r\nok") == 100
        assert answers.rpartition(b"ok")[2].startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("seed", range(10))
async def test_requests_sent_ahead_with_their_bodies_in_any_pieces_are_all_answered(seed: int) -> None:
    dice, sent = random.Random(seed), b""  # noqa: S311 - nothing secret hangs on it
    for _ in range(12):
        body = bytes(dice.choice([0, 10, 5_000, 30_000, 60_000, 150_000]))
        sent += b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with Port().open() as port:
        reader, writer = await port.connect()
        answers = asyncio.ensure_future(_answers(reader, 12))
        while sent:
            size = dice.choice([1, 100, 4_096, 65_536, 200_000])
            writer.write(sent[:size])
            sent = sent[size:]
            await writer.drain()
            await asyncio.sleep(0)
        assert await answers == [b"ok"] * 12
        assert port.bad_heads == []


async def _answers(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        await reader.readuntil(b"\r\n\r\n")
        found.append(await reader.readexactly(2))
    return found


async def test_who_does_not_read_gets_no_further_answers() -> None:
    """Each answer is small; thousands of them would wait for a client that only asks."""
    async with Port().open() as port:
        reader, writer = await port.connect()
        (connection,) = port.connections
        asked = HEAD.replace(b"GET / ", b"GET /long ") + b"\r\n"
        while not connection.writing_paused:
            writer.write(asked * 10)
            await asyncio.sleep(0)
        await settled()
        waiting = connection.waiting_bytes
        writer.write(asked * 1000)
        await settled()
        assert connection.waiting_bytes == waiting < 200_000
        port.may_answer.set()
        reader.feed_eof()


async def test_a_client_that_has_not_even_read_its_answers_has_its_place_taken_at_once() -> None:
    async with Port(max_connections=1).open() as port:
        _, writer = await port.connect()
        (connection,) = port.connections
        while not connection.waiting_bytes:
            writer.write(HEAD.replace(b"GET / ", b"GET /long ") + b"\r\n")
            await settled()
        while connection.is_serving:  # noqa: ASYNC110 - until its answer is written
            await asyncio.sleep(0)
        port.may_answer.set()
        reader, writer = await port.call()
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")


async def test_a_body_whose_framing_breaks_is_told_to_who_reads_it_at_once() -> None:
    async with Port().open() as port:
        reader, writer = await port.connect()
        writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await port.asked.wait()
        writer.write(b"5\r\nabcdeXX\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("behind", [b"", HEAD + b"\r\n"])
async def test_a_head_without_end_is_431(behind: bytes) -> None:
    async with Port().open() as port:
        reader, writer = await port.connect()
        writer.write(behind + HEAD)
        port.may_answer.set()
        for number in range(100):
            writer.write(b"X-%d: %s\r\n" % (number, b"x" * 2000))
            await settled()
            if port.bad_heads:
                break
        assert port.bad_heads == [431]
        assert b"HTTP/1.1 431 " in await reader.read()


async def test_the_rest_of_a_head_that_began_during_an_answer_is_waited_for_as_for_any() -> None:
    async with Port().open() as port:
        reader, writer = await port.connect()
        writer.write(HEAD + b"\r\n")
        await port.asked.wait()
        writer.write(HEAD)
        await settled()
        port.may_answer.set()
        await reader.readuntil(b"ok")
        port.clock.pass_(HEAD_S + 1)
        await port.look()
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_an_empty_line_after_an_answer_is_no_head() -> None:
    async with Port().open() as port:
        port.may_answer.set()
        reader, writer = await port.connect()
        writer.write(HEAD + b"\r\n")
        await reader.readuntil(b"ok")
        writer.write(b"\r\n")
        await settled()
        port.clock.pass_(HEAD_S + 1)
        await port.look()
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab", b"cd"]])
async def test_a_body_that_comes_after_its_head_is_no_part_of_the_next(pieces: list[bytes]) -> None:
    async with Port().open() as port:
        reader, writer = await port.connect()
        writer.write(b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        await port.asked.wait()
        for piece in pieces:
            writer.write(piece)
            await settled()
        await reader.readuntil(b"ok")
        await settled()
        port.clock.pass_(HEAD_S + 1)
        await port.look()
        assert port.bad_heads == [], "nobody has begun to ask for anything"
        writer.write(HEAD.replace(b"GET / ", b"GET /whole ") + b"\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")


async def test_an_answer_that_ends_with_its_connection_is_reset_when_it_is_not_whole() -> None:
    """To a client of HTTP/1.0 the end of the connection is the end of the answer."""
    async with Port().open() as port:
        reader, writer = await port.connect()
        writer.write(b"GET /broken HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()


def test_requests_are_parsed_by_llhttp() -> None:
    assert request_parser() == "llhttp"


@pytest.mark.parametrize(("asked_for", "refused"), [("", True), ("1", False)])
def test_any_other_parser_is_refused_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked_for: str, refused: bool
) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    monkeypatch.setenv("AIOHTTP_NO_EXTENSIONS", asked_for)
    with pytest.raises(OSError, match="AIOHTTP_NO_EXTENSIONS=1") if refused else nullcontext():
        assert "Python parser" in request_parser()


async def settled() -> None:
    """Let what was written arrive."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_connection_that_cannot_be_judged_does_not_end_the_watch_over_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = list[BaseException]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    fault = RuntimeError("the state of one connection")

    def judge(connection: Connection) -> None:
        if connection is broken:
            raise fault
        end_if_overdue(connection)

    async with Port().open() as port:
        await port.connect()
        (broken,) = port.connections
        end_if_overdue = Connection.end_if_overdue
        monkeypatch.setattr(Connection, "end_if_overdue", judge)
        readers = [(await port.connect())[0] for _ in range(5)]
        port.clock.pass_(HEAD_S + 1)
        await port.look()
        assert [await reader.read() for reader in readers] == [b""] * 5
        assert told == [fault]
