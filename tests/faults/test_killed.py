"""The process is killed while it writes and serves: what it had confirmed holds."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, credentials, request
from tests.faults.conftest import Serve
from tests.mcp_server import StubUpstream
from tests.service import Service

ROUNDS = 4
CONFIRMED_PER_ROUND = 60
PATIENCE_S = 60.0
MANY_KEYS = {"api_keys": {"max_per_account": 10_000}}

Work = Callable[[], Awaitable[None]]


class Sessions:
    """An upstream that hands out a session to whoever asks for one."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    async def answer(self, asked: web.BaseRequest, body: bytes) -> web.StreamResponse:
        begins = body and json.loads(body)["method"] == "initialize"
        headers = {"Mcp-Session-Id": f"session-{next(self._numbers)}"} if begins else None
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {}}, headers=headers)


class Confirmed:
    """What a client was told, over all lives of the process. What was asked for and never confirmed is neither."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.revoked: list[str] = []
        self.sessions: list[str] = []
        self.ended: list[str] = []
        self.unconfirmed: set[str] = set()

    @property
    def count(self) -> int:
        return len(self.keys) + len(self.revoked) + len(self.sessions) + len(self.ended)


class Client:
    """Makes and revokes keys, begins and ends sessions, and calls, until its connection is gone."""

    def __init__(self, service: Service, confirmed: Confirmed) -> None:
        self._client = service.client
        self._lines = credentials(token=service.token)
        self._confirmed = confirmed
        self._own_keys: list[str] = []
        self._own_sessions: list[str] = []

    async def run(self) -> None:
        with suppress(httpx.TransportError):
            for work in itertools.cycle(
                (self.make, self.begin, self.call, self.make, self.revoke, self.begin, self.end)
            ):
                await work()

    async def make(self) -> None:
        made = await self._client.post(KEYS, json={"name": "x"}, headers=self._lines)
        assert made.status_code == 201, made.text
        self._own_keys.append(made.json()["key"])
        self._confirmed.keys.append(self._own_keys[-1])

    async def revoke(self) -> None:
        key = self._own_keys.pop()
        self._confirmed.unconfirmed.add(key)
        gone = await self._client.delete(f"{KEYS}/key_{key[4:16]}", headers=self._lines)
        assert gone.status_code == 204, gone.text
        self._confirmed.revoked.append(key)

    async def begin(self) -> None:
        begun = await self._client.post(JWT_ROUTE, json=request("initialize"), headers=self._lines)
        assert begun.status_code == 200, begun.text
        self._own_sessions.append(begun.headers["Mcp-Session-Id"])
        self._confirmed.sessions.append(self._own_sessions[-1])

    async def end(self) -> None:
        session = self._own_sessions.pop()
        self._confirmed.unconfirmed.add(session)
        ended = await self._client.delete(JWT_ROUTE, headers=[*self._lines, ("Mcp-Session-Id", session)])
        assert ended.status_code == 200, ended.text
        self._confirmed.ended.append(session)

    async def call(self) -> None:
        answer = await self._client.post(KEY_ROUTE, json=request("ping"), headers=credentials(key=self._own_keys[-1]))
        assert answer.status_code == 200, answer.text


async def check(service: Service, confirmed: Confirmed) -> None:
    """Find everything as it was confirmed."""
    lines = credentials(token=service.token)
    few = asyncio.Semaphore(8)  # the queue for bcrypt is bounded

    async def answered(route: str, headers: list[tuple[str, str]]) -> int:
        """A 503 is no verdict: a busy machine may take longer than a decision may."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await service.client.post(route, json=request("ping"), headers=headers)
                if answer.status_code != 503:
                    return answer.status_code
                await asyncio.sleep(float(answer.headers["Retry-After"]))

    async def key_is(key: str, status: int) -> None:
        async with few:
            assert await answered(KEY_ROUTE, credentials(key=key)) == status, key

    async def session_is(session: str, status: int) -> None:
        assert await answered(JWT_ROUTE, [*lines, ("Mcp-Session-Id", session)]) == status, session

    await asyncio.gather(
        *[key_is(key, 200) for key in confirmed.keys if key not in confirmed.unconfirmed],
        *[key_is(key, 401) for key in confirmed.revoked],
        *[session_is(session, 200) for session in confirmed.sessions if session not in confirmed.unconfirmed],
        *[session_is(session, 404) for session in confirmed.ended],
    )


@pytest.mark.parametrize("on", ["embedded", "redis"])
async def test_sigkill_under_load_loses_no_key_no_revocation_and_no_session(
    serve: Serve, stub: StubUpstream, redis_settings: dict[str, Any], on: str
) -> None:
    stub.answer = Sessions().answer
    confirmed = Confirmed()
    for _ in range(ROUNDS):
        service = await serve(**MANY_KEYS | (redis_settings if on == "redis" else {}))
        service.client.timeout = httpx.Timeout(PATIENCE_S)
        await check(service, confirmed)
        before = confirmed.count
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(Client(service, confirmed).run())
            while confirmed.count < before + CONFIRMED_PER_ROUND:  # noqa: ASYNC110 - it is the clients' count
                await asyncio.sleep(0.001)
            service.process.kill()
            await service.process.wait()
    await check(await serve(**MANY_KEYS | (redis_settings if on == "redis" else {})), confirmed)
    assert min(len(confirmed.keys), len(confirmed.sessions)) > ROUNDS * 10
    assert min(len(confirmed.revoked), len(confirmed.ended)) > ROUNDS
