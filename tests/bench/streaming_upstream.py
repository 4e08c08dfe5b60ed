"""A program: an MCP server that streams. Run as ``python -m tests.bench.streaming_upstream PORT SEEN_FILE``.

A GET opens a stream that says one thing and then nothing for ever. A `tools/call` is answered as the query asks: by
`calls.EVENTS` events, each a write of its own; by two events half a second apart; or by one JSON document.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

from tests.bench import calls
from tests.bench.upstream import CHECKING, LOGGED

_JSON_HEAD: Final = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_LAST_CHUNK: Final = b"0\r\n\r\n"
SLOW_S: Final = 0.5
_EVENTS: Final = tuple(calls.event(number) for number in range(calls.EVENTS))
_RESULTS: Final[dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "bench", "version": "1"},
    },
    "tools/list": {
        "tools": [{"name": calls.TOOL, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}]
    },
    "tools/call": json.loads(calls.SMALL_ANSWER)["result"],
}


class Connection(asyncio.Protocol):
    """One client, one request at a time."""

    def __init__(self, seen_file: Path) -> None:
        self._seen_file = seen_file
        self._parser = httptools.HttpRequestParser(self)
        self._target = ""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = ""
        self._headers = {}
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, piece: bytes) -> None:
        self._body += piece

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        if self._headers.get("x-request-id", "").startswith(CHECKING):
            self._note(method)
        if method == "GET":
            self._transport.write(_STREAM_HEAD + _chunk(_EVENTS[0]))
        else:
            self._answer(json.loads(self._body or b"{}"))

    def _note(self, method: str) -> None:
        headers = {name: self._headers.get(name, "") for name in LOGGED}
        with self._seen_file.open("a") as file:
            request = f"{method} {self._target} HTTP/{self._parser.get_http_version()}"
            file.write(json.dumps({"request": request, "headers": headers}) + "\n")

    def _answer(self, message: dict[str, Any]) -> None:
        wanted = parse_qs(urlsplit(self._target).query).get("answer", [""])[0]
        loop = asyncio.get_running_loop()
        if "id" not in message:
            self._transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        elif wanted == "events":
            self._transport.write(_STREAM_HEAD)
            loop.call_soon(self._send_event, 0)
        elif wanted == "slow":
            self._transport.write(_STREAM_HEAD + _chunk(_EVENTS[0]))
            loop.call_later(SLOW_S, self._write, _chunk(_EVENTS[-1]) + _LAST_CHUNK)
        else:
            self._reply(message)

    def _reply(self, message: dict[str, Any]) -> None:
        result = _RESULTS.get(message.get("method", ""))
        answer: dict[str, Any] = {"error": {"code": -32601, "message": "Method not found"}}
        if result is not None:
            answer = {"result": result}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}, separators=(",", ":")).encode()
        self._transport.write(_JSON_HEAD % (b"200 OK" if result is not None else b"404 Not Found", len(body)) + body)

    def _send_event(self, number: int) -> None:
        """Send one event and come back for the next, so that others get theirs in between."""
        self._write(_chunk(_EVENTS[number]))
        if number + 1 == len(_EVENTS):
            self._write(_LAST_CHUNK)
        elif self._is_open:
            asyncio.get_running_loop().call_soon(self._send_event, number + 1)

    def _write(self, data: bytes) -> None:
        if self._is_open:
            self._transport.write(data)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(port: int, seen_file: Path) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(seen_file), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
