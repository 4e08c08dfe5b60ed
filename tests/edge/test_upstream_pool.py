"""Which connection a request goes out on, how often, and how long anything is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.denials import BadGateway, GatewayTimeout
from sidecar.edge.upstream import Deadlines, UpstreamClient
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


# time


async def test_no_head_in_time_is_a_gateway_timeout_and_the_connection_is_closed() -> None:
    closed = asyncio.Event()
    async with (
        scripted(once_then_wait(OK[:20], closed)) as upstream,
        client_of(upstream, response_timeout_s=0.02) as client,
    ):
        with pytest.raises(GatewayTimeout) as caught:
            await client.send(*POST)
        assert caught.value.reason == "upstream_timeout"
        await closed.wait()


async def test_so_is_an_upstream_that_does_not_take_a_large_body() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await ended.wait()

    async with scripted(script) as upstream, client_of(upstream, response_timeout_s=0.02) as client:
        with pytest.raises(GatewayTimeout, match="upstream_timeout"):
            await client.send("POST", "/mcp", (), bytes(32_000_000))
        ended.set()


async def test_the_time_for_the_head_does_not_bound_the_body() -> None:
    waited = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK[:-1])
        await waited.wait()
        await peer.send(OK[-1:])

    async with scripted(script) as upstream, client_of(upstream, response_timeout_s=0.1) as client:
        answer = await client.send(*POST)
        asyncio.get_running_loop().call_later(0.15, waited.set)
        assert await answer.read(2) == b"ok"


async def test_a_handshake_that_takes_too_long_is_a_gateway_timeout() -> None:
    closed = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.gone()
        closed.set()

    async with scripted(silent) as upstream, client_of(upstream, scheme="https", connect_timeout_s=0.02) as client:
        with pytest.raises(GatewayTimeout) as caught:
            await client.send(*POST)
        assert caught.value.reason == "upstream_connect_timeout"
        assert not await client.reachable()
        await closed.wait()


async def test_a_refused_connection_is_a_bad_gateway() -> None:
    with blocking_server() as (server, client):
        server.close()
        with pytest.raises(BadGateway) as caught:
            await client.send(*POST)
        assert caught.value.reason == "upstream_connect"
        assert not await client.reachable()
        await client.aclose()


async def test_one_timer_ends_many_waits_in_the_order_in_which_they_began() -> None:
    ended: list[str] = []
    done = asyncio.Event()

    def end(name: str) -> None:
        ended.append(name)
        if name == "last":
            done.set()

    deadlines: Deadlines[str] = Deadlines(0.01, end)
    for name in ("first", "stopped", "second", "later"):
        deadlines.start(name)
    deadlines.stop("stopped")
    deadlines.restart("second")
    asyncio.get_running_loop().call_later(0.005, deadlines.start, "last")
    async with asyncio.timeout(10):
        await done.wait()
    assert ended == ["first", "later", "second", "last"]
    deadlines.start("cleared")
    deadlines.clear()
    assert not deadlines.due


# reachable and the end


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


# TLS


def certify(folder: Path) -> ssl.SSLContext:
    """Write a self-signed certificate for 127.0.0.1 and return the server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_an_upstream_behind_tls_is_verified_and_its_connection_reused(tmp_path: Path) -> None:
    server = certify(tmp_path)
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    body = bytes(1_000_000)
    async with (
        scripted(always(OK), tls=server) as upstream,
        client_of(upstream, scheme="https", ssl_context=trust) as client,
    ):
        assert await client.reachable()
        for sent in (b"{}", body, b"{}"):
            assert await (await client.send("POST", "/mcp", (), sent)).read(10) == b"ok"
        assert upstream.accepted <= 2  # a session ticket of TLS 1.3 that is not read yet costs the first one


async def test_idle_tls_connections_are_closed_too(tmp_path: Path) -> None:
    server = certify(tmp_path)
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    closed = asyncio.Event()
    async with (
        scripted(once_then_wait(OK, closed), tls=server) as upstream,
        client_of(upstream, scheme="https", ssl_context=trust, idle_s=0.02) as client,
    ):
        assert await (await client.send(*POST)).read(10) == b"ok"
        await closed.wait()


async def test_a_certificate_that_nobody_trusts_is_a_bad_gateway(tmp_path: Path) -> None:
    async with (
        scripted(always(OK), tls=certify(tmp_path)) as upstream,
        client_of(upstream, scheme="https") as client,
    ):
        with pytest.raises(BadGateway) as caught:
            await client.send(*POST)
        assert caught.value.reason == "upstream_connect"
        assert not await client.reachable()
