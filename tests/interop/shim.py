"""A reverse proxy that adds one header line and changes nothing else: the conformance suite sends no credentials.

It works on bytes. The line goes in after the request line, and a request's end is found only to know where the next
head begins; answers are not looked at. So `Host`, `Origin`, odd spacing and the timing of streams arrive as they were.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_PIECE_BYTES: Final = 65_536


class Shim:
    """Listens on `url`; set `target` (scheme, host and port) before a client comes, and the `line` to add, if any."""

    def __init__(self) -> None:
        self.url = ""
        self.target = ""
        self.line = ""
        self.writers: set[asyncio.StreamWriter] = set()
        """Of all connections there have been. What is left open would outlive the event loop."""

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Join one client's connection to one of the target's; when either ends, both do."""
        address = urlsplit(self.target)
        server, to_server = await asyncio.open_connection(address.hostname, address.port)
        self.writers.add(to_server)
        directions = [
            asyncio.create_task(self._requests(client, to_server)),
            asyncio.create_task(_pump(server, to_client)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for writer in (to_server, to_client):
                writer.close()

    async def _requests(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while True:
            head = await client.readuntil(b"\r\n\r\n")
            request_line, end, rest = head.partition(b"\r\n")
            added = self.line.encode() + end if self.line else b""
            to_server.write(request_line + end + added + rest)
            length = _LENGTH.search(head)
            if length is not None:
                await _copy(client, to_server, int(length[1]))
            elif _CHUNKED.search(head):
                await _copy_chunks(client, to_server)
            await to_server.drain()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, size: int) -> None:
    while size > 0:
        piece = await source.read(min(size, _PIECE_BYTES))
        if not piece:
            raise ConnectionResetError
        target.write(piece)
        await target.drain()
        size -= len(piece)


async def _copy_chunks(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while True:
        line = await source.readuntil(b"\r\n")
        target.write(line)
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        await _copy(source, target, size + 2)
    while line != b"\r\n":
        line = await source.readuntil(b"\r\n")
        target.write(line)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE_BYTES):
        target.write(piece)
        await target.drain()


@asynccontextmanager
async def shim() -> AsyncIterator[Shim]:
    """Run a shim on a free port."""
    running = Shim()
    connections = set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.writers.add(writer)
        connection = asyncio.create_task(running.serve(reader, writer))
        connections.add(connection)
        connection.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield running
    finally:
        server.close()
        for connection in tuple(connections):
            connection.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*connections, return_exceptions=True)
        for writer in running.writers:
            writer.transport.abort()
        await asyncio.gather(*[writer.wait_closed() for writer in running.writers], return_exceptions=True)
