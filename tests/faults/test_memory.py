"""Clients that ask for much and read none of it."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

from aiohttp import web

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import AUDIENCE, JWT_ROUTE, request
from tests.faults.conftest import Serve
from tests.mcp_server import StubUpstream
from tests.service import Service, until

CLIENTS = 60
TOOLS = [{"name": f"look{number}", "description": "x" * 7_000, "inputSchema": {}} for number in range(1_000)]
ANSWER = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()
CALL = json.dumps(request("tools/list")).encode()


def resident_mib(service: Service) -> float:
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


async def long_list(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return web.Response(body=ANSWER, content_type="application/json")


async def test_lists_that_nobody_reads_are_held_up_to_a_bound_and_the_rest_is_refused(
    serve: Serve, stub: StubUpstream, issuer: DevIssuer
) -> None:
    """60 clients ask for 7 MB each, of which 64 MiB are held at a time."""
    stub.answer = long_list
    service = await serve(access={"filter_lists": "all", "tools": {"read": ["look*"]}})
    service.token = issuer.mint(sub="alice", aud=AUDIENCE, scope="mcp:read")
    lines = {**service.credentials, "Host": "sidecar", "Content-Type": "application/json"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    call = f"POST {JWT_ROUTE} HTTP/1.1\r\n{head}Content-Length: {len(CALL)}\r\n\r\n".encode() + CALL
    clients = [await asyncio.open_connection(sock=_connected(service.port), limit=4096) for _ in range(CLIENTS)]
    try:
        for _, writer in clients:
            writer.write(call)
        openings = await asyncio.gather(*[reader.readline() for reader, _ in clients])
        assert {opening.split()[1] for opening in openings} == {b"200", b"503"}
        assert resident_mib(service) < 500
    finally:
        for _, writer in clients:
            writer.transport.abort()
        await asyncio.gather(*[writer.wait_closed() for _, writer in clients], return_exceptions=True)
    await until(lambda: _lists(service))


def _connected(port: int) -> socket.socket:
    """Return a connection whose end here takes in little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


async def _lists(service: Service) -> bool:
    answer = await service.client.post(JWT_ROUTE, json=request("tools/list"), headers=service.credentials)
    return answer.status_code == 200
