"""The MCP servers behind the sidecar under test: the finance server, and a stub for what it cannot be made to do."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

STUB_TOOLS: list[dict[str, Any]] = [
    {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {
        "name": "put",
        "inputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": False, "destructiveHint": False},
    },
    {"name": "drop", "inputSchema": {"type": "object"}, "annotations": {"destructiveHint": True}},
    {"name": "sly", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": "true"}},
    {"name": "bare", "inputSchema": {"type": "object"}},
]
"""Every class of tool: what only looks read-only (a string, or nothing at all) is a write."""


@contextmanager
def finance_server() -> Iterator[str]:
    """Run the demo's MCP server in its own process and yield its URL."""
    command = [sys.executable, "-m", "sidecar.demo.finance", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the finance server did not start"
            yield url
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Received:
    """One request as the stub saw it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of every line of this name."""
        return [value for line, value in self.headers if line.lower() == name.lower()]

    def value(self, name: str) -> str:
        (value,) = self.values(name)
        return value


Answer = Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse]]


class Stream:
    """An answer that the test writes piece by piece."""

    def __init__(self, content_type: str = "text/event-stream") -> None:
        self._content_type = content_type
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.opened = asyncio.Event()
        self.left = asyncio.Event()
        """Set when the other side closed its connection before the end."""

    def send(self, piece: bytes) -> None:
        self._pieces.put_nowait(piece)

    def end(self) -> None:
        self._pieces.put_nowait(None)

    async def answer(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self._content_type})
        try:
            await response.prepare(request)
            self.opened.set()
            while (piece := await self._pieces.get()) is not None:
                await response.write(piece)
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


def reply(status: int = 200, document: Any = None, **headers: str) -> Answer:
    """Answer every request with this status and JSON document."""

    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        text = "" if document is None else json.dumps(document)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, content_type="application/json", headers=named)

    return answer


def listing(tools: list[dict[str, Any]]) -> Answer:
    """Answer as a plain MCP server would: a result for a request, 202 for what has no id, 405 for GET."""

    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=200 if request.method == "DELETE" else 405)
        message = json.loads(body)
        if "id" not in message or "method" not in message:
            return web.Response(status=202)
        result = {"tools": tools} if message["method"] == "tools/list" else {"method": message["method"]}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    return answer


echo = listing(STUB_TOOLS)


class StubUpstream:
    """Records each request and answers as it is told; the catalogue's own requests are kept apart."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.from_catalogue: list[Received] = []
        """Those without ``X-Account-Id``; they always get `tools`."""
        self.answer: Answer = echo
        self.tools = STUB_TOOLS
        """What it tells the catalogue, and whom `answer` does not tell otherwise."""
        self.url = ""

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        lines = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
        body = await request.read()
        received = Received(request.method, request.raw_path, lines, body)
        if not received.values("X-Account-Id"):
            self.from_catalogue.append(received)
            return await listing(self.tools)(request, body)
        self.received.append(received)
        answer = listing(self.tools) if self.answer is echo else self.answer
        return await answer(request, body)

    @property
    def only(self) -> Received:
        (received,) = self.received
        return received

    @asynccontextmanager
    async def running(self, listener: socket.socket | None = None) -> AsyncIterator[StubUpstream]:
        """Serve at this socket, else at a port of its own."""
        server = web.Server(self._handle, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0) if listener is None else web.SockSite(runner, listener)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/mcp"
        try:
            yield self
        finally:
            await runner.cleanup()
