"""The process is frozen or starved, as containers are: everybody who asked is answered afterwards, and once."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, credentials, request
from tests.faults.conftest import Serve
from tests.mcp_server import StubUpstream, echo
from tests.service import Service

PATIENCE_S = 30.0
PAUSE_S = 1.2
"""Ten times as long as a decision may take with Redis, and longer than any turn of the event loop."""
LIMITED = {"policies": [{"name": "account", "per": "account", "requests": 10_000, "window_s": 60}]}

Freeze = Callable[[], None]


class Callers:
    """Calls of a token and of a key in turns, each with an id of its own."""

    def __init__(self, service: Service, key: str) -> None:
        self._service = service
        self._how = ((JWT_ROUTE, credentials(token=service.token)), (KEY_ROUTE, credentials(key=key)))
        self.asked: list[asyncio.Task[httpx.Response]] = []

    def ask(self, times: int) -> None:
        for _ in range(times):
            number = len(self.asked)
            path, lines = self._how[number % 2]
            sent = self._service.client.post(path, json=request("ping", id=number), headers=lines)
            self.asked.append(asyncio.ensure_future(sent))

    async def statuses(self) -> Counter[int]:
        async with asyncio.timeout(PATIENCE_S):
            return Counter([answer.status_code for answer in await asyncio.gather(*self.asked)])


class Gate:
    """Answers nobody until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def answer(self, asked: web.BaseRequest, body: bytes) -> web.StreamResponse:
        await self.opened.wait()
        return await echo(asked, body)


@pytest.fixture(params=["local", "deny"])
async def service(serve: Serve, redis_settings: dict[str, Any], request: pytest.FixtureRequest) -> Service:
    """One on Redis, under either policy."""
    service = await serve(**redis_settings, limits={**LIMITED, "on_store_failure": request.param})
    service.client.timeout = httpx.Timeout(PATIENCE_S)
    return service


@pytest.fixture
async def callers(service: Service) -> Callers:
    made = await service.client.post(KEYS, json={"name": "x"}, headers=credentials(token=service.token))
    callers = Callers(service, made.json()["key"])
    callers.ask(2)
    assert await callers.statuses() == {200: 2}
    return callers


def ids(stub: StubUpstream) -> Counter[int]:
    return Counter([json.loads(received.body)["id"] for received in stub.received])


async def test_a_pause_of_the_process_refuses_nobody_and_sends_nothing_twice(
    service: Service, callers: Callers, stub: StubUpstream
) -> None:
    """What waits for the upstream is answered meanwhile; what asks Redis is overdue; what arrives has to wait."""
    for turns in range(6):
        gate, already = Gate(), len(stub.received)
        stub.answer = gate.answer
        callers.ask(10)
        async with asyncio.timeout(PATIENCE_S):
            while len(stub.received) < already + 10:  # noqa: ASYNC110 - the stub only keeps a list
                await asyncio.sleep(0.005)
        callers.ask(10)
        await asyncio.sleep(turns * 0.002)  # they are a little further in each round
        service.process.send_signal(signal.SIGSTOP)
        callers.ask(10)
        gate.opened.set()
        await asyncio.sleep(PAUSE_S)
        service.process.send_signal(signal.SIGCONT)
        assert set(await callers.statuses()) == {200}
    assert ids(stub) == Counter(range(len(callers.asked)))


async def test_a_process_that_gets_a_tenth_of_the_time_has_nobody_sign_in_again_and_sends_nothing_twice(
    service: Service, callers: Callers, stub: StubUpstream
) -> None:
    """As the kernel does it under a quota: some milliseconds of each tenth of a second, then nothing."""
    callers.ask(400)
    waiting = asyncio.ensure_future(callers.statuses())
    for _ in range(300):
        service.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.09)
        service.process.send_signal(signal.SIGCONT)
        await asyncio.wait([waiting], timeout=0.01)
        if waiting.done():
            break
    statuses = await waiting
    assert set(statuses) <= {200, 503}, "who is known is never told to sign in again"
    assert statuses[200] > 300, "hardly ever is Redis not heard in time for our own slowness"
    assert set(ids(stub).values()) == {1}
    assert len(stub.received) == statuses[200]
