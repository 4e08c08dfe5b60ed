"""An upstream that listens on a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.denials import BadGateway
from sidecar.edge.upstream import UpstreamClient

POST = ("POST", "/mcp", (), b"{}")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers every request, and keeps the heads that it was sent."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[Server]:
    server = Server()
    async with asyncio.timeout(10), await asyncio.start_unix_server(server.serve, path):
        yield server
        for writer in server.writers:
            writer.transport.abort()


@asynccontextmanager
async def client_of(path: Path) -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient("http://Server/mcp", socket_path=str(path), connect_timeout_s=5, response_timeout_s=5)
    try:
        yield client
    finally:
        await client.aclose()


async def test_requests_go_there_on_kept_connections_under_the_urls_name(tmp_path: Path) -> None:
    async with listening(tmp_path / "s") as server, client_of(tmp_path / "s") as client:
        for _ in range(3):
            assert (await client.send(*POST)).complete() == b"ok"
        assert len(server.writers) == 1
        assert all(b"\r\nHost: server\r\n" in head for head in server.heads)
        assert await client.reachable()


async def test_a_server_that_was_restarted_there_is_found_again(tmp_path: Path) -> None:
    async with client_of(tmp_path / "s") as client:
        for _ in range(2):
            async with listening(tmp_path / "s"):
                assert (await client.send(*POST)).complete() == b"ok"
            (tmp_path / "s").unlink(missing_ok=True)
            with pytest.raises(BadGateway):
                await client.send(*POST)
            assert not await client.reachable()
