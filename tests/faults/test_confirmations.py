"""While a person is asked, the store or the sidecar fails: nothing is forwarded that nobody said yes to, or twice."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import Bed, notification, tool_call
from tests.e2e.confirming import DROP, YES, able, answer_to, at, begin, calling, calls, retry
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream
from tests.redis_server import RedisServer
from tests.service import spawned, until


@pytest.fixture
async def bed(start: Start, redis_server: RedisServer) -> AsyncIterator[Bed]:
    """A sidecar on a Redis that is there again afterwards, for others."""
    yield await start("redis")
    redis_server.kill()
    redis_server.start()


async def is_well(bed: Bed) -> bool:
    return bool((await bed.admin.get("/readyz")).json()["checks"]["store"] == "ok")


async def is_away(bed: Bed) -> bool:
    return not await is_well(bed)


async def test_a_store_that_is_away_for_a_moment_does_not_end_the_question(
    bed: Bed, stub: StubUpstream, redis_server: RedisServer
) -> None:
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        redis_server.pause()
        await until(lambda: is_away(bed))
        assert (await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))).status_code == 503
        redis_server.resume()
        await until(lambda: is_well(bed))
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert (await call.message())["result"] == {"method": "tools/call"}
    assert len(calls(stub)) == 1


async def test_a_store_that_goes_while_a_person_is_asked_ends_the_call_when_its_time_is_over(
    start: Start, bed: Bed, stub: StubUpstream, redis_server: RedisServer
) -> None:
    bed = await start("redis", confirmation={"hold_s": 2})
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        redis_server.kill()
        refusal = await call.message()
        assert refusal["error"]["data"]["errorType"] == "STORE_UNAVAILABLE"
    said = await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
    assert said.json()["error"]["data"]["errorType"] == "STORE_UNAVAILABLE"
    redis_server.start()
    await until(lambda: is_well(bed))
    await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
    assert calls(stub) == []


async def test_while_the_store_is_away_no_call_that_needs_a_yes_passes_and_all_others_do(
    bed: Bed, stub: StubUpstream, redis_server: RedisServer
) -> None:
    token = bed.token()
    await begin(bed, stub, token=token)
    await bed.post(tool_call("put"), token=token, headers=at("s-1"))
    asked = (await bed.post(able(DROP), token=token, era="modern")).json()
    stub.received.clear()
    redis_server.kill()
    answers = [
        await bed.post(DROP, token=token, headers=at("s-1")),
        await bed.post(DROP, token=token),
        await bed.post(retry(asked), token=token, era="modern"),
    ]
    assert [answer.json()["error"]["data"]["errorType"] for answer in answers] == ["STORE_UNAVAILABLE"] * 3
    assert [answer.status_code for answer in answers] == [503] * 3
    assert stub.received == []
    gives_up = {**notification("notifications/cancelled"), "params": {"requestId": 9}}
    assert (await bed.post(gives_up, token=token, headers=at("s-1"))).status_code == 202
    assert (await bed.post(tool_call("put"), token=token, headers=at("s-1"))).status_code == 200
    assert len(stub.received) == 2


async def test_a_process_that_is_killed_while_a_person_is_asked_forwards_nothing_and_the_others_neither(
    tmp_path: Path, issuer: DevIssuer, stub: StubUpstream, start: Start
) -> None:
    bed = await start("redis")
    token = bed.token()
    await begin(bed, stub, token=token)
    async with AsyncExitStack() as stack:
        service = await spawned(stack, tmp_path, bed.settings, token)
        started = await service.read("started")
        await service.connect(stack, started["public"], started["admin"])
        killed = Bed(bed.sidecar, issuer, bed.log, service.client, service.admin, bed.settings)
        async with calling(killed, token=token) as call:
            question = await call.message()
            service.process.send_signal(signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                await call.message()
    said = await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
    assert said.status_code == 202
    assert stub.received == []
