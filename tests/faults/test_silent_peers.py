"""Packets are dropped between us and a peer, with no word of it: what is held for that peer is let go of.

The real values are a minute (`tests/test_sockets.py`); here they are seconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import pytest

from sidecar import sockets
from tests.e2e.bed import JWT_ROUTE, Bed, credentials, request, tool_call
from tests.e2e.conftest import Start
from tests.edge.scripted_upstream import Peer
from tests.mcp_server import Stream, StubUpstream, echo

T = TypeVar("T")
HERE, THERE = "198.18.77.1", "198.18.77.2"
CLONE_NEWNET = 0x40000000
NOBODY = "02:00:00:00:00:99"
PATIENCE_S = 20.0
SECONDS = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 3_000}


class Elsewhere:
    """A network of its own at the other end of a cable that can be cut."""

    def __init__(self) -> None:
        self._name = f"elsewhere-{os.getpid()}"
        self._near, self._far = f"near{os.getpid() % 10**7}", f"far{os.getpid() % 10**7}"
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    def lay(self) -> None:
        run("ip", "netns", "add", self._name)
        run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
        run("ip", "address", "add", f"{HERE}/30", "dev", self._near)
        run("ip", "link", "set", self._near, "up")
        run("ip", "-n", self._name, "address", "add", f"{THERE}/30", "dev", self._far)
        run("ip", "-n", self._name, "link", "set", self._far, "up")

    def cut(self) -> None:
        """Send all that goes either way to somebody who is not there: nobody is told."""
        gone = ("lladdr", NOBODY, "nud", "permanent", "dev")
        run("ip", "neighbour", "replace", THERE, *gone, self._near)
        run("ip", "-n", self._name, "neighbour", "replace", HERE, *gone, self._far)

    def remove(self) -> None:
        self._thread.shutdown()
        subprocess.run(["ip", "link", "delete", self._near], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", self._name], check=False, capture_output=True)

    def there(self, work: Callable[[], T]) -> T:
        """Do this as a program there would; a socket belongs to where it was made."""
        return self._thread.submit(work).result()

    def _enter(self) -> None:
        descriptor = os.open(f"/run/netns/{self._name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 to make a network")
    elsewhere = Elsewhere()
    try:
        try:
            elsewhere.lay()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs to make a network: {error.stderr.decode().strip()}")
        yield elsewhere
    finally:
        elsewhere.remove()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice in seconds what is noticed in a minute."""
    monkeypatch.setattr(sockets, "_OPTIONS", SECONDS)


def sent_by_a_client(token: str, message: dict[str, Any] | None) -> bytes:
    body = b"" if message is None else json.dumps(message).encode()
    method = "GET" if message is None else "POST"
    head = f"{method} {JWT_ROUTE} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {token}\r\n"
    if message is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Accept: application/json, text/event-stream\r\n\r\n" + body


@pytest.mark.parametrize(
    ("message", "after"),
    [(None, b""), (None, b"data: {}\n\n"), (tool_call("look"), b"")],
    ids=["idle stream", "stream that goes on", "call"],
)
async def test_a_client_that_is_gone_without_a_word_takes_its_upstream_request_with_it(
    start: Start, stub: StubUpstream, elsewhere: Elsewhere, message: dict[str, Any] | None, after: bytes
) -> None:
    bed, held = await start(listen={"host": HERE}, allowed_hosts=["s", HERE], require_https="never"), Stream()
    stub.answer = held.answer
    port = httpx.URL(bed.sidecar.public_url_bound).port or 0
    client = elsewhere.there(lambda: socket.create_connection((HERE, port), timeout=5))
    with client:
        client.sendall(sent_by_a_client(bed.token(), message))
        async with asyncio.timeout(PATIENCE_S):
            await held.opened.wait()
            elsewhere.cut()
            held.send(after)
            await held.left.wait()
            stub.answer = echo
            assert (await bed.post(request("ping"), token=bed.token())).status_code == 200


@pytest.fixture
async def far_upstream(elsewhere: Elsewhere) -> AsyncIterator[str]:
    """Run a server there that begins a stream for a GET, never answers a tool, and says nothing more."""

    async def answers(peer: Peer) -> None:
        while asked := await peer.request():
            if asked.startswith(b"GET"):
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
                await peer.send(b"Transfer-Encoding: chunked\r\n\r\na\r\ndata: {}\n\n\r\n")
            elif b"tools/call" not in asked:
                answer = b'{"jsonrpc":"2.0","id":1,"result":{}}'
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                await peer.send(head + answer)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answers(Peer(reader, writer))
        finally:
            writer.transport.abort()

    listening = elsewhere.there(lambda: socket.create_server((THERE, 0)))
    server = await asyncio.start_server(accept, sock=listening)
    yield f"http://{THERE}:{listening.getsockname()[1]}/mcp"
    server.close()


async def test_a_server_that_is_gone_without_a_word_is_given_up(
    start: Start, elsewhere: Elsewhere, far_upstream: str
) -> None:
    """Nothing else would end what waits for it: no time-out of ours is shorter than an hour."""
    upstream = {"url": far_upstream, "response_timeout_s": 3600, "connect_timeout_s": 3600}
    bed = await start(upstream=upstream, access={"trust_annotations": False})
    bed.client.timeout = httpx.Timeout(PATIENCE_S)
    token = bed.token()
    assert (await bed.post(request("ping"), token=token)).status_code == 200  # its connection is kept
    async with asyncio.timeout(PATIENCE_S):
        async with bed.client.stream("GET", JWT_ROUTE, headers=credentials(token=token)) as stream:
            pieces = stream.aiter_raw()
            assert await anext(pieces) == b"data: {}\n\n"
            waiting = asyncio.ensure_future(bed.post(tool_call("look"), token=token))
            await until_sent(bed, token)
            elsewhere.cut()
            afterwards = asyncio.ensure_future(bed.post(request("ping"), token=token))
            with pytest.raises(httpx.RemoteProtocolError):
                assert [piece async for piece in pieces if piece.strip()] == []
        assert {(await waiting).status_code, (await afterwards).status_code} <= {502, 504}


async def until_sent(bed: Bed, token: str) -> None:
    """Let what was asked before get as far as the server: what is asked now is answered after it."""
    for _ in range(3):
        assert (await bed.post(request("ping"), token=token)).status_code == 200
