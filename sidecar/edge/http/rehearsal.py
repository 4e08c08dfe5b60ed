"""A request that no client sends: the same parser and the same server, and nobody at the other end of the line."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sidecar.edge.http.connection import Connection
from sidecar.edge.http.listener import Listener
from sidecar.edge.http.request import Request

_PATIENCE_S: Final = 60.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What the client would have read: nothing of an answer where the request would have been done."""

    status: int | None
    body: bytes
    bad_head: bool = False
    """The answer is to what never became a request."""


async def rehearse(
    raw: bytes, handle: Callable[[Request], Awaitable[None]], client: str, *, is_encrypted: bool
) -> Rehearsed:
    """Have one request handled as if it had come from the address `client`, over TLS if it is encrypted.

    Raises:
        TimeoutError: it is not a whole one, or took a minute.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()
    connections: list[Connection] = []

    async def served(request: Request) -> None:
        connections[0].remote, connections[0].is_encrypted = client, is_encrypted
        try:
            await handle(request)
        finally:
            _settle(done, False)

    listener = Listener(served, bad_head=lambda _: _settle(done, True))
    ours, theirs = socket.socketpair()

    def connected() -> Connection:
        connections.append(Connection(listener, loop))
        return connections[0]

    await loop.connect_accepted_socket(connected, ours)
    reader, writer = await asyncio.open_connection(sock=theirs, limit=1 << 30)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            writer.write(raw)
            bad_head = await done
            connections[0].close()
            answer = await reader.read()
    finally:
        writer.close()
        connections[0].abort()
    head, _, body = answer.removeprefix(_CONTINUE).partition(b"\r\n\r\n")
    return Rehearsed(int(head.split(b" ", 2)[1]) if head else None, body, bad_head)


def _settle(done: asyncio.Future[bool], outcome: bool) -> None:
    if not done.done():
        done.set_result(outcome)
