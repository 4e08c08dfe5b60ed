"""Floods, from clients who may and from clients who may not: everybody else is served."""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx

from tests.e2e.bed import JWT_ROUTE, Bed, assert_refused, request, tool_call
from tests.e2e.bed import with_other_secret as forged
from tests.e2e.conftest import Start
from tests.faults.conftest import Serve
from tests.mcp_server import StubUpstream
from tests.service import Service

PATIENCE_S = 30.0


async def others_are_served(bed: Bed, times: int = 20, **how: str) -> None:
    answers = await asyncio.gather(*[bed.post(request("ping"), **how) for _ in range(times)])  # type: ignore[arg-type]  # a token or a key
    assert Counter(answer.status_code for answer in answers) == {200: times}


async def connection(bed: Bed) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = httpx.URL(bed.sidecar.public_url_bound)
    return await asyncio.open_connection(url.host, url.port)


async def test_wrong_secrets_of_a_known_key_are_turned_away_and_known_keys_pass(start: Start) -> None:
    """Each of them wants a bcrypt of its own."""
    bed = await start(api_keys={"bcrypt_cost": 8}, limits={"failed_auth": {"requests": 100_000, "window_s": 60}})
    known, victim = await bed.key("mcp:full"), await bed.key("mcp:full")
    await others_are_served(bed, times=1, key=known)
    async with asyncio.timeout(PATIENCE_S):
        flood = [asyncio.ensure_future(bed.post(request("ping"), key=forged(victim, n))) for n in range(200)]
        await others_are_served(bed, key=known)
        statuses = Counter([(await answer).status_code for answer in flood])
    assert set(statuses) <= {401, 503}
    assert statuses[503] > 0, "the queue for bcrypt is bounded"
    await others_are_served(bed, key=known)


async def test_right_keys_that_are_new_here_get_in_while_wrong_ones_flood_and_are_never_called_wrong(
    start: Start,
) -> None:
    """Each of them, too, wants a bcrypt of its own: there may be no room now, but never for long."""
    bed = await start(api_keys={"bcrypt_cost": 8}, limits={"failed_auth": {"requests": 100_000, "window_s": 60}})
    victim = await bed.key("mcp:full")
    fresh = [await bed.key("mcp:full", account=f"account-{n}") for n in range(10)]
    numbers, refused, flood_ends = itertools.count(), Counter[int](), asyncio.Event()

    async def flood() -> None:
        while not flood_ends.is_set():
            refused[(await bed.post(request("ping"), key=forged(victim, next(numbers)))).status_code] += 1

    async def arrive(key: str) -> None:
        """Come back until there is room, sooner than a client should."""
        while (answer := await bed.post(request("ping"), key=key)).status_code != 200:
            assert_refused(answer, 503, "OVERLOADED")
            await asyncio.sleep(0.05)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for _ in range(80):
            group.create_task(flood())
        while refused.total() < 80:  # noqa: ASYNC110 - it is the flood's count
            await asyncio.sleep(0.01)
        await asyncio.gather(*[arrive(key) for key in fresh])
        flood_ends.set()
    assert refused[401] > 0
    assert refused[503] > 0, "the flood was one"
    assert set(refused) == {401, 503}


async def test_an_address_that_fails_too_often_is_told_when_to_come_back(start: Start) -> None:
    bed = await start(limits={"failed_auth": {"requests": 5, "window_s": 60}})
    known, victim = await bed.key("mcp:full"), await bed.key("mcp:full")
    await others_are_served(bed, times=1, key=known)
    statuses = Counter([(await bed.post(request("ping"), key=forged(victim, n))).status_code for n in range(20)])
    assert statuses == {401: 5, 429: 15}
    await others_are_served(bed, key=known)


async def test_large_bodies_hold_up_nobody(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    body = json.dumps(tool_call("look", text=["x" * 50] * 18_000)).encode()
    assert len(body) > 900_000
    async with asyncio.timeout(PATIENCE_S):
        large = [asyncio.ensure_future(bed.post(body, token=token)) for _ in range(12)]
        await others_are_served(bed, token=token)
        assert {(await answer).status_code for answer in large} == {200}
    assert sum(received.body == body for received in stub.received) == 12


async def test_a_thousand_requests_sent_ahead_are_answered_one_after_another(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    body = json.dumps(request("ping")).encode()
    head = f"POST {JWT_ROUTE} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {token}\r\n"
    one = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await connection(bed)
    async with asyncio.timeout(PATIENCE_S):
        writing = asyncio.ensure_future(send(writer, one * 1000))
        for _ in range(1000):
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            length = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        await writing
        await others_are_served(bed, token=token)
    writer.close()
    assert len(stub.received) == 1020


async def send(writer: asyncio.StreamWriter, sent: bytes) -> None:
    writer.write(sent)
    await writer.drain()


async def test_a_body_in_ten_thousand_chunks_of_one_byte_is_one_body(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    body = json.dumps(tool_call("look", text="x" * 9_900)).encode()
    head = f"POST {JWT_ROUTE} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {token}\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await connection(bed)
        framing = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        await send(writer, head.encode() + framing + chunks)
        await others_are_served(bed, token=token)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert body in [received.body for received in stub.received]


async def test_five_thousand_idle_streams_cost_other_calls_nothing(serve: Serve) -> None:
    """What they cost in memory and time the benchmark tells; here every one stays open and every call is answered."""
    streams = room_for(5_000)
    async with idle_upstream() as upstream_url, AsyncExitStack() as stack, asyncio.timeout(4 * PATIENCE_S):
        limits = {"policies": [], "streams": {"per_credential": streams}}
        service = await serve(upstream={"url": upstream_url}, limits=limits, log={"access": False})
        for _ in range(0, streams, 100):
            await asyncio.gather(*[listen(stack, service) for _ in range(min(100, streams))])
        answers = Counter([(await service.ping()).status_code for _ in range(300)])
        assert answers == {200: 300}
        assert await service.total("sidecar_open_streams") == streams


def room_for(wanted: int) -> int:
    """Allow this process so many streams, each of which has a client's and an upstream's end here, or say how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(wanted, (most - 1_000) // 300 * 100)


async def listen(stack: AsyncExitStack, service: Service) -> None:
    """Open a stream, and wait for its first event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=4_096)
    stack.callback(writer.close)
    lines = {"Host": "sidecar", **service.credentials}
    writer.write(
        "".join([f"GET {JWT_ROUTE} HTTP/1.1\r\n", *(f"{n}: {v}\r\n" for n, v in lines.items()), "\r\n"]).encode()
    )
    assert b" 200 " in (await reader.readuntil(b"\r\n\r\n"))[:20]
    await reader.readuntil(b"data: 1\n\n")


@asynccontextmanager
async def idle_upstream() -> AsyncIterator[str]:
    """Run a server that answers calls at once, and GET with one event and then nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get "):
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    )
                    writer.write(b"9\r\ndata: 1\n\n\r\n")
                    await reader.read()
                    break
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
                answer = b'{"jsonrpc":"2.0","id":1,"result":{}}'
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n" + answer
                )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1_024, limit=4_096)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()
