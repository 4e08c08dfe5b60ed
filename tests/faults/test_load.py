"""Floods, from clients who may and from clients who may not: everybody else is served."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from contextlib import AsyncExitStack

import httpx

from tests.e2e.bed import JWT_ROUTE, Bed, assert_refused, credentials, request, tool_call
from tests.e2e.bed import with_other_secret as forged
from tests.e2e.conftest import Start
from tests.mcp_server import Stream, StubUpstream, echo

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


async def test_many_idle_streams_cost_other_calls_nothing(start: Start, stub: StubUpstream) -> None:
    """Some hundreds here; the benchmark opens 5 000."""
    bed = await start(limits={"policies": [], "streams": {"per_credential": 1000}})
    token, stream = bed.token(), Stream()
    stub.answer = stream.answer
    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S):
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=bed.client.base_url, limits=limits))
        for _ in range(300):
            answer = await stack.enter_async_context(client.stream("GET", JWT_ROUTE, headers=credentials(token=token)))
            assert answer.status_code == 200
        stub.answer = echo
        await others_are_served(bed, token=token)
        metrics = (await bed.admin.get("/metrics")).text
        assert 'sidecar_open_streams{route="/mcp"} 300.0' in metrics
