"""Which connection a request goes out on, and how often."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from sidecar.denials import BadGateway
from sidecar.edge.upstream import UpstreamClient
from tests.edge.scripted_upstream import CHUNKED, OK, Peer, always, client_of, once_then_wait, scripted

POST = ("POST", "/mcp", (), b"{}")


async def test_requests_one_after_another_share_a_connection() -> None:
    async with scripted(always(OK)) as upstream, client_of(upstream) as client:
        for method in ("POST", "GET", "POST", "DELETE") * 5:
            assert (await client.send(method, "/mcp", (), None)).complete() == b"ok"
        assert upstream.accepted == 1


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        CHUNKED + b"0\r\nX-Trailer: a\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_every_framing_that_ends_leaves_the_connection_usable(wire: bytes) -> None:
    async with scripted(always(wire)) as upstream, client_of(upstream) as client:
        for _ in range(3):
            await (await client.send(*POST)).read(10)
        assert upstream.accepted == 1


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", id="close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", id="http-1.0"),
        pytest.param(OK + b"x", id="surplus-byte"),
        pytest.param(OK + OK, id="surplus-answer"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK, id="surplus-after-chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok" + OK, id="surplus-close"),
    ],
)
async def test_an_answer_that_ends_the_connection_or_brings_more_than_itself_stands_alone(wire: bytes) -> None:
    closed = asyncio.Event()
    async with scripted(once_then_wait(wire, closed)) as upstream, client_of(upstream) as client:
        assert (await client.send(*POST)).complete() == b"ok"
        await closed.wait()
        assert (await client.send(*POST)).complete() == b"ok"
        assert upstream.accepted == 2


async def test_a_byte_on_an_idle_connection_closes_it_and_reaches_nobody() -> None:
    """RFC 9112 section 9.2: an answer that nobody asked for."""
    closed, stray = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await stray.wait()
        await peer.send(OK.replace(b"ok", b"NO"))
        await peer.gone()
        closed.set()

    async with scripted(script) as upstream, client_of(upstream) as client:
        await client.send(*POST)
        stray.set()
        await closed.wait()
        assert (await client.send(*POST)).complete() == b"ok"
        assert upstream.accepted == 2


@contextlib.contextmanager
def blocking_server() -> Iterator[tuple[socket.socket, UpstreamClient]]:
    """Listen without a task behind it: what the test sends arrives in the same tick."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield (
            server,
            UpstreamClient(f"http://127.0.0.1:{server.getsockname()[1]}", connect_timeout_s=5, response_timeout_s=5),
        )


async def exchange_by_hand(client: UpstreamClient, server: socket.socket, body: bytes) -> socket.socket:
    """Let the client send to a server that nobody runs; return the server's side, answered and still open."""
    sending = asyncio.ensure_future(client.send("POST", "/mcp", (), body))
    loop = asyncio.get_running_loop()
    server.setblocking(False)
    accepted, _ = await loop.sock_accept(server)
    assert body in await loop.sock_recv(accepted, 1000)
    await loop.sock_sendall(accepted, OK)
    assert (await sending).complete() == b"ok"
    return accepted


@pytest.mark.parametrize("last_words", [OK.replace(b"ok", b"NO"), b""])
async def test_what_the_event_loop_has_not_read_yet_is_seen_too(last_words: bytes) -> None:
    """Stray bytes or FIN that arrive in the very tick in which the next request is sent: it takes a new connection."""
    async with asyncio.timeout(10):
        with blocking_server() as (server, client):
            with await exchange_by_hand(client, server, b"first") as first:
                first.send(last_words) if last_words else first.shutdown(socket.SHUT_WR)
                with await exchange_by_hand(client, server, b"second"), contextlib.suppress(ConnectionResetError):
                    assert first.recv(1000) == b""
            await client.aclose()


async def test_a_request_that_was_written_is_never_sent_again() -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.request())
        await peer.send(OK)
        requests.append(await peer.request())

    async with scripted(script) as upstream, client_of(upstream) as client:
        await client.send(*POST)
        with pytest.raises(BadGateway, match="upstream_closed"):
            await client.send(*POST)
        assert upstream.accepted == 1
        assert len(requests) == 2


async def test_the_connection_used_last_is_used_next() -> None:
    used: list[int] = []
    both = asyncio.Barrier(2)

    async def script(peer: Peer) -> None:
        name = upstream.accepted
        accepted.set()
        while await peer.request():
            used.append(name)
            if len(used) <= 2:
                await both.wait()
                if name == 1:
                    await first_is_back.wait()
            await peer.send(OK)

    accepted, first_is_back = asyncio.Event(), asyncio.Event()
    async with scripted(script) as upstream, client_of(upstream) as client:
        slow = asyncio.ensure_future(client.send(*POST))
        await accepted.wait()
        await client.send(*POST)
        first_is_back.set()
        await slow
        for _ in range(3):
            await client.send(*POST)
    assert used[2:] == [1, 1, 1]


async def test_accounts_that_are_kept_apart_never_share_a_connection() -> None:
    """Not even an answer that comes out of turn, while the next request is under way, reaches another account."""
    used: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        number = upstream.accepted
        while request := await peer.request():
            used.append((number, request.partition(b"\r\n\r\n")[2]))
            await peer.send(OK)

    async with scripted(script) as upstream, client_of(upstream, per_account=True) as client:
        for account in ("acme", "other", "acme", "", "other", ""):
            await client.send("POST", "/mcp", (), account.encode() or b"nobody", account=account)
    assert used == [(1, b"acme"), (2, b"other"), (1, b"acme"), (3, b"nobody"), (2, b"other"), (3, b"nobody")]


async def test_no_more_than_max_idle_connections_are_kept_and_busy_ones_are_not_counted() -> None:
    closed = 0
    all_here = asyncio.Barrier(5)

    async def script(peer: Peer) -> None:
        nonlocal closed
        await peer.request()
        await all_here.wait()
        await peer.send(OK)
        await peer.gone()
        closed += 1
        if closed == 3:
            three_closed.set()

    three_closed = asyncio.Event()
    async with scripted(script) as upstream, client_of(upstream, max_idle=2) as client:
        await asyncio.gather(*(client.send(*POST) for _ in range(5)))
        await three_closed.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert closed == 3
        assert upstream.accepted == 5


async def test_idle_connections_are_closed_before_the_upstream_does_it() -> None:
    closed = asyncio.Event()
    async with scripted(once_then_wait(OK, closed)) as upstream, client_of(upstream, idle_s=0.02) as client:
        await client.send(*POST)
        await closed.wait()
        assert (await client.send(*POST)).complete() == b"ok"
        assert upstream.accepted == 2


async def test_pauses_about_as_long_as_connections_are_kept_cost_no_request() -> None:
    """The upstream closes what is idle for somewhat longer than we keep it, as common servers do."""
    kept_s, upstream_keeps_s = 0.24, 0.4
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(upstream_keeps_s):
                    request = await peer.request()
                if not request:
                    return
                seen.append(request.partition(b"\r\n\r\n")[2])
                await peer.send(OK)

    async def ask(client: UpstreamClient, numbers: range) -> None:
        for number in numbers:
            assert (await client.send("POST", "/mcp", (), b"%d" % number)).complete() == b"ok"
            await asyncio.sleep(0.2 + 0.24 * number / 200)

    async with scripted(script) as upstream, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(upstream, idle_s=kept_s)) for _ in range(20)]
        await asyncio.gather(*[ask(client, range(first, 200, 20)) for first, client in enumerate(clients)])
    assert sorted(seen, key=int) == [b"%d" % number for number in range(200)]
    assert 20 < upstream.accepted < 200


async def test_answers_never_cross() -> None:
    async def script(peer: Peer) -> None:
        while request := await peer.request():
            await asyncio.sleep(0)
            body = request.partition(b"\r\n\r\n")[2]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def ask(number: int) -> None:
        body = b"x" * (number % 7) + b"%d" % number
        assert await (await client.send("POST", "/mcp", (), body)).read(100) == body

    async with scripted(script) as upstream, client_of(upstream, max_idle=3) as client:
        for _ in range(5):
            await asyncio.gather(*(ask(number) for number in range(20)))


async def test_closing_a_whole_answer_leaves_its_old_connection_to_whoever_has_it_now() -> None:
    going_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await going_on.wait()
        await peer.send(OK)

    async with scripted(script) as upstream, client_of(upstream) as client:
        first = await client.send(*POST)
        second = asyncio.ensure_future(client.send(*POST))
        await asyncio.sleep(0)
        first.close()
        going_on.set()
        assert (await second).complete() == b"ok"
        assert upstream.accepted == 1


async def test_an_upstream_that_accepts_is_reachable_and_a_kept_connection_proves_it() -> None:
    async with scripted(always(OK)) as upstream, client_of(upstream) as client:
        assert await client.reachable()
        assert await client.reachable()
        await client.send(*POST)
        assert await client.reachable()
        assert upstream.accepted == 1


async def test_closing_the_client_breaks_off_what_runs_and_refuses_what_comes() -> None:
    closed = asyncio.Event()
    async with (
        scripted(once_then_wait(CHUNKED + b"2\r\nok\r\n", closed)) as upstream,
        client_of(upstream) as client,
    ):
        pieces = aiter(await client.send("GET", "/mcp", (), None))
        assert await anext(pieces) == b"ok"
        await client.aclose()
        await client.aclose()
        with pytest.raises(BadGateway, match="upstream_truncated"):
            await anext(pieces)
        await closed.wait()
        with pytest.raises(BadGateway):
            await client.send(*POST)
        assert not await client.reachable()
