"""Redis hangs, is far away, comes and goes, or moves while many ask: nobody waits long, and it is soon asked again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.edge.redis.link import MAX_TRIPS, PAUSE_S
from tests.e2e.bed import Bed, assert_refused, request
from tests.e2e.conftest import Start
from tests.faults.between import Between
from tests.faults.conftest import Serve
from tests.faults.test_redis import FAULTS, LIMITED, RECOVERY_S, Fault, read_only, recovered, told_of
from tests.mcp_server import StubUpstream
from tests.redis_server import RedisServer
from tests.service import until

AT_ONCE = 50
PATIENT_S = 3.0
"""For `AT_ONCE` calls on a busy machine. Whoever waited for Redis in vain more than once or twice would take longer."""
ASKED_PER_TRIP = 6
"""As often is sent to the server on one trip at most: a greeting in some parts, scripts that it does not know."""


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Run a Redis that has its keys again when it comes back."""
    with RedisServer("--appendonly", "yes") as server:
        yield server


@pytest.fixture
async def between(own_redis: RedisServer, redis_settings: dict[str, Any], tmp_path: Path) -> AsyncIterator[Between]:
    """Stand between the sidecar and Redis."""
    async with Between(tmp_path / "between", own_redis).running() as between:
        redis_settings["store"] = {"url": between.url}
        yield between


async def many(bed: Bed, first_id: int = 0, **how: str) -> list[httpx.Response]:
    async with asyncio.timeout(PATIENT_S):
        calls = [bed.post(request("ping", id=first_id + n), **how) for n in range(AT_ONCE)]  # type: ignore[arg-type]  # a token or a key
        return await asyncio.gather(*calls)


async def all_are_served(bed: Bed, **how: Any) -> bool:
    return statuses(await many(bed, **how)) == {200: AT_ONCE}


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter([answer.status_code for answer in answers])


def remaining(answers: list[httpx.Response]) -> set[int]:
    return {int(answer.headers["X-RateLimit-Remaining"]) for answer in answers}


def numbers(stub: StubUpstream) -> Counter[int]:
    ids = [json.loads(received.body)["id"] for received in stub.received]
    return Counter([number for number in ids if isinstance(number, int)])


@pytest.mark.parametrize("policy", ["local", "deny"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_many_that_are_under_way_when_it_fails_are_all_answered_and_sent_once(
    start: Start,
    stub: StubUpstream,
    own_redis: RedisServer,
    redis_settings: dict[str, Any],
    policy: str,
    fault: tuple[Fault, Fault],
) -> None:
    fails, comes_back = fault
    bed = await start(**redis_settings, limits={**LIMITED, "on_store_failure": policy})
    key, token = await bed.key("mcp:full"), bed.token()
    await until(lambda: all_are_served(bed, key=key))
    await until(lambda: all_are_served(bed, token=token))
    stub.received.clear()
    for begins in range(2 * AT_ONCE, 8 * AT_ONCE, 2 * AT_ONCE):
        under_way = [asyncio.ensure_future(many(bed, begins, token=token))]
        under_way.append(asyncio.ensure_future(many(bed, begins + AT_ONCE, key=key)))
        await asyncio.sleep(0.01)
        fails(own_redis)
        for answers in await asyncio.gather(*under_way):
            assert set(statuses(answers)) <= ({200, 503} if policy == "deny" else {200})
        comes_back(own_redis)
        await settled(bed, token)
    assert set(numbers(stub).values()) <= {1}


async def settled(bed: Bed, token: str) -> None:
    """Wait until Redis is asked again, however seldom that is told of."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            await bed.post(request("ping", id="settling"), token=token)
            if "sidecar_store_up 1.0" in (await bed.admin.get("/metrics")).text:
                return
            await asyncio.sleep(0.02)


async def test_while_it_hangs_it_is_asked_by_one_now_and_then_and_nobody_else_waits(
    start: Start, between: Between, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    bed = await start(**redis_settings, limits={**LIMITED, "on_store_failure": "deny"})
    token, loop = bed.token(), asyncio.get_running_loop()
    await until(lambda: all_are_served(bed, token=token))
    own_redis.pause()
    asked_before, began = between.asked, loop.time()
    for _ in range(10):
        for answer in await many(bed, token=token):
            assert_refused(answer, 503, "STORE_UNAVAILABLE", id=json.loads(answer.content)["id"])
    pauses = (loop.time() - began) / PAUSE_S
    assert between.asked - asked_before <= (MAX_TRIPS + pauses + 1) * ASKED_PER_TRIP < 10 * AT_ONCE
    own_redis.resume()
    await recovered(bed, {"token": token})


async def test_one_that_takes_sixty_milliseconds_still_decides_and_calls_share_the_way(
    start: Start, between: Between, redis_settings: dict[str, Any]
) -> None:
    bed = await start(**redis_settings, limits=LIMITED)
    token = bed.token()
    assert statuses(await many(bed, token=token)) == {200: AT_ONCE}
    between.delay_s = 0.06
    asked_before, rounds = between.asked, 0

    async def five_rounds_were_counted_there() -> bool:
        """Some may not be: a busy machine may add more than there is time for."""
        nonlocal rounds
        rounds += 1
        answers = await many(bed, token=token)
        assert statuses(answers) == {200: AT_ONCE}
        return min(remaining(answers)) <= 1000 - 5 * AT_ONCE

    await until(five_rounds_were_counted_there)
    assert between.asked - asked_before < rounds * AT_ONCE
    assert set(told_of(bed).values()) <= {1}
    between.delay_s = 0.0
    await settled(bed, token)


async def test_one_that_is_far_away_is_reached_although_a_decision_does_not_wait_for_the_greeting(
    start: Start, between: Between, redis_settings: dict[str, Any]
) -> None:
    between.delay_s = 0.06
    bed = await start(**redis_settings, limits=LIMITED)
    token = bed.token()
    assert (await bed.post(request("ping"), token=token)).status_code == 200
    await settled(bed, token)
    async with asyncio.timeout(RECOVERY_S):
        while not await all_decided_there(bed, token):
            pass


async def all_decided_there(bed: Bed, token: str) -> bool:
    """Tell whether many calls at once were all counted in one place, on as many connections as they took."""
    left = int((await bed.post(request("ping"), token=token)).headers["X-RateLimit-Remaining"])
    return remaining(await many(bed, token=token)) == set(range(left - AT_ONCE, left))


async def test_one_that_takes_longer_than_a_decision_may_is_done_without(
    start: Start, between: Between, redis_settings: dict[str, Any]
) -> None:
    limits = {"policies": [{"name": "account", "per": "account", "requests": 1000, "window_s": 60}], "local_share": 0.5}
    bed = await start(**redis_settings, limits=limits)
    token = bed.token()
    assert remaining(await many(bed, token=token)) == set(range(950, 1000))
    between.delay_s = 0.15
    answers = await many(bed, token=token) + await many(bed, token=token)
    assert statuses(answers) == {200: 2 * AT_ONCE}
    assert remaining(answers) == set(range(400, 500))
    assert told_of(bed) == {"store_lost": 1}
    between.delay_s = 0.0
    await recovered(bed, {"token": token})
    answer = await bed.post(request("ping"), token=token)
    assert int(answer.headers["X-RateLimit-Remaining"]) > 500, "the shared count goes on"


async def test_one_that_comes_and_goes_is_told_of_once_and_counted_each_time(
    start: Start, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    bed = await start(**redis_settings, limits=LIMITED)
    token = bed.token()
    assert statuses(await many(bed, token=token)) == {200: AT_ONCE}
    for _ in range(6):
        own_redis.pause()
        assert statuses(await many(bed, token=token)) == {200: AT_ONCE}
        own_redis.resume()
        await settled(bed, token)
    assert told_of(bed) == {"store_lost": 1, "store_recovered": 1}
    failures = [line for line in (await bed.admin.get("/metrics")).text.splitlines() if "store_failures_total" in line]
    assert float(failures[-1].split()[-1]) >= 6


@pytest.mark.parametrize("policy", ["local", "deny"])
async def test_another_master_behind_the_same_address_is_found_while_many_ask(
    start: Start, between: Between, own_redis: RedisServer, redis_settings: dict[str, Any], policy: str
) -> None:
    bed = await start(**redis_settings, limits={**LIMITED, "on_store_failure": policy})
    token = bed.token()
    await until(lambda: all_are_served(bed, token=token))
    with RedisServer() as promoted:
        between.server = promoted
        read_only(own_redis)
        assert set(statuses(await many(bed, token=token))) <= ({200, 503} if policy == "deny" else {200})
        await recovered(bed, {"token": token})
        await until(lambda: all_are_served(bed, token=token))
        assert told_of(bed) == {"store_lost": 1, "store_recovered": 1}
        await bed.sidecar.stop()


async def test_one_that_hangs_does_not_hold_up_the_end(
    serve: Serve, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    service = await serve(**redis_settings, limits=LIMITED)
    assert (await service.ping()).status_code == 200
    own_redis.pause()
    assert (await service.ping()).status_code == 200
    service.process.terminate()
    async with asyncio.timeout(PATIENT_S):
        assert await service.process.wait() == 0
