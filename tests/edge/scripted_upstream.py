"""A server that says, byte for byte, what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from sidecar.edge.upstream import UpstreamClient

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Read one request; empty when the client has left."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
        return head + await self.reader.readexactly(int(length or 0))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes) -> None:
        """Send byte by byte, and let the client read in between."""
        for byte in data:
            await self.send(bytes((byte,)))
            for _ in range(3):
                await asyncio.sleep(0)

    async def gone(self) -> None:
        """Return when the client has closed the connection; whatever it still sends is thrown away."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class ScriptedUpstream:
    """Runs the script once for each accepted connection and closes it when the script returns."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.port = 0
        self.failures: list[BaseException] = []

    async def start(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.ensure_future(self._serve(Peer(reader, writer)))
        self._tasks.add(task)

    async def _serve(self, peer: Peer) -> None:
        try:
            await self._script(peer)
        except ConnectionError:
            pass
        except Exception as error:
            # A script's failed assertion is the test's.
            self.failures.append(error)
        finally:
            peer.writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await peer.writer.wait_closed()


@contextlib.asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedUpstream]:
    """Run a scripted upstream. The whole block is bounded in time, so that a failure is never a hang."""
    upstream = ScriptedUpstream(script)
    server = await upstream.start(tls)
    try:
        async with asyncio.timeout(10):
            yield upstream
    finally:
        server.close()
        await upstream.stop()
    assert upstream.failures == []


@contextlib.asynccontextmanager
async def client_of(
    upstream: ScriptedUpstream,
    *,
    scheme: str = "http",
    host: str = "127.0.0.1",
    connect_timeout_s: float = 5,
    response_timeout_s: float = 5,
    **settings: Any,
) -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(
        f"{scheme}://{host}:{upstream.port}/mcp",
        connect_timeout_s=connect_timeout_s,
        response_timeout_s=response_timeout_s,
        **settings,
    )
    try:
        yield client
    finally:
        await client.aclose()


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Yield the port of a server that answers no SYN: its queue is full, and nobody takes anything from it."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def always(answer: bytes) -> Script:
    """Answer every request of a connection alike."""

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(answer)

    return script


def once(answer: bytes) -> Script:
    """Answer one request and close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return script


def once_then_wait(answer: bytes, closed: asyncio.Event) -> Script:
    """Answer one request, then set `closed` when the client closes the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.gone()
        closed.set()

    return script
