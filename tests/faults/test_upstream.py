"""The server behind is replaced, restarted, or on another network."""

from __future__ import annotations

import json
import socket

import pytest
from aiohttp import web

from tests.e2e.bed import request
from tests.e2e.conftest import Start
from tests.edge.scripted_upstream import Peer, black_hole, scripted


class Replaceable:
    """A server that can go away and come back at the same address."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._runner: web.ServerRunner | None = None
        self.port = 0
        self.calls: list[str] = []

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        message = json.loads(await request.read() or b"{}")
        if "X-Account-Id" in request.headers:
            self.calls.append(str(message.get("id")))
        result: dict[str, list[str]] = {"tools": []} if message.get("method") == "tools/list" else {}
        return web.json_response({"jsonrpc": "2.0", "id": message.get("id"), "result": result})

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


async def test_a_server_that_was_restarted_is_found_again_and_nothing_is_sent_twice(start: Start) -> None:
    """Each call is answered or refused, and arrives at most once; kept connections to the old server are noticed."""
    server = Replaceable()
    await server.start()
    bed = await start(upstream={"url": f"http://127.0.0.1:{server.port}/mcp"})
    token = bed.token()
    for round_ in range(5):
        for number in range(4):
            answer = await bed.post(request("ping", id=f"{round_}.{number}"), token=token)
            assert answer.status_code == 200
        await server.stop()
        assert (await bed.post(request("ping", id="away"), token=token)).status_code == 502
        await server.start()
    assert len(server.calls) == len(set(server.calls)) == 20
    await server.stop()


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
async def test_a_server_that_has_only_ipv6_is_reached(start: Start) -> None:
    server = Replaceable("::1")
    await server.start()
    bed = await start(upstream={"url": f"http://[::1]:{server.port}/mcp"})
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
    await server.stop()


def addresses_of_localhost() -> set[str]:
    return {str(found[4][0]) for found in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)}


@pytest.mark.skipif(addresses_of_localhost() < {"127.0.0.1", "::1"}, reason="needs a name with two addresses")
async def test_a_server_that_moves_to_another_address_of_its_name_is_found_there(start: Start) -> None:
    old, new = Replaceable("127.0.0.1"), Replaceable("::1")
    await old.start()
    bed = await start(upstream={"url": f"http://localhost:{old.port}/mcp"})
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
    await old.stop()
    new.port = old.port
    await new.start()
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
    assert (len(old.calls), len(new.calls)) == (1, 1)
    await new.stop()


@pytest.mark.parametrize(("sharing", "whose"), [("shared", ["alice"] * 3), ("per_account", ["alice", "bob", "alice"])])
async def test_what_a_server_says_out_of_turn_stays_with_the_account_where_the_operator_keeps_them_apart(
    start: Start, sharing: str, whose: list[str]
) -> None:
    """Every answer on a connection is one to whoever asked there first."""

    async def mixes_up(peer: Peer) -> None:
        first = ""
        while asked := await peer.request():
            first = first or asked.partition(b"X-Account-Id: ")[2].partition(b"\r\n")[0].decode()
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"whose": first}}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            await peer.send(head.encode() + body)

    async with scripted(mixes_up) as server:
        url = f"http://127.0.0.1:{server.port}/mcp"
        bed = await start(upstream={"url": url, "sharing": sharing}, access={"trust_annotations": False})
        answers = [await bed.post(request("ping"), token=bed.token(sub=name)) for name in ("alice", "bob", "alice")]
        assert [answer.json()["result"]["whose"] for answer in answers] == whose
        assert server.accepted == len(set(whose))


async def test_whether_to_send_requests_here_is_told_although_the_server_swallows_everything(start: Start) -> None:
    with black_hole() as port:
        bed = await start(upstream={"url": f"http://127.0.0.1:{port}/mcp", "connect_timeout_s": 3600})
        answer = await bed.admin.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["checks"]["upstream"] == "unavailable"
