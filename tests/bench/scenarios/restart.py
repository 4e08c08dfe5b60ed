"""A sidecar is replaced while many API keys are in use: each costs a bcrypt check again. How long does that take?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from functools import partial
from typing import Final

from tests.bench.calls import SMALL_ANSWER, SMALL_CALL
from tests.bench.checks import CALL_HEADERS
from tests.bench.contenders.sidecar import RunningSidecar, is_ready, start_sidecar
from tests.bench.credentials import IssuedKey
from tests.bench.errors import WrongAnswer
from tests.bench.figures import Figures
from tests.bench.key_loading import load_keys
from tests.bench.measuring import attempt
from tests.bench.results import Row
from tests.bench.session import Session
from tests.bench.upstream import static_upstream
from tests.e2e.bed import KEY_ROUTE
from tests.redis_server import RedisServer

ALL_SERVED: Final = "all_served_s"
_RETRY_S: Final = 1.0
_RECONNECT_S: Final = 0.05
_GIVE_UP_S: Final = 600.0


def restart(session: Session, scenario: str) -> list[Row]:
    """Measure one round: start, let every key be served, stop and start again."""
    keys = list(session.issuer.api_keys(session.scale.restart_keys))
    row = Row(scenario, "sidecar", ALL_SERVED)
    with static_upstream(session.programs.nginx(), session.directory) as upstream, RedisServer() as store:
        load_keys(store.url, keys)
        settings = {"trusted_proxies": ["127.0.0.0/8"]}
        start = partial(start_sidecar, session.directory, upstream, session.issuer, store, settings=settings)
        attempt(session, row, 0, partial(_measure, session, start, keys))
    return [row]


def _measure(session: Session, start: partial[RunningSidecar], keys: list[IssuedKey]) -> Figures:
    first = start()
    try:
        first.process.wait_until(lambda: is_ready(first))
        session.say(f"{len(keys)} keys are presented for the first time")
        asyncio.run(_present_all(first.port, keys))
    finally:
        stopping_at = time.perf_counter()
        first.process.stop()
    stopped_s = time.perf_counter() - stopping_at
    second = start(ports=(first.port, first.admin_port))
    try:
        answers = asyncio.run(_present_all(first.port, keys, since=stopping_at))
    finally:
        second.process.stop()
    return {"stopped_s": stopped_s, **answers}


async def _present_all(port: int, keys: list[IssuedKey], since: float | None = None) -> Figures:
    """Have a client for each key call until it is served; tell how long that took, and what they heard meanwhile."""
    began = time.perf_counter() if since is None else since
    heard: Counter[int] = Counter()
    served_at: list[float] = []

    async def client(number: int, key: IssuedKey) -> None:
        request = _request(key, f"198.18.{number >> 8 & 255}.{number & 255}")
        while (status := await _ask(port, request)) != 200:
            heard[status] += 1
            await asyncio.sleep(_RETRY_S if status else _RECONNECT_S)
        served_at.append(time.perf_counter() - began)

    try:
        async with asyncio.timeout(_GIVE_UP_S), asyncio.TaskGroup() as clients:
            for number, key in enumerate(keys):
                clients.create_task(client(number, key))
    except TimeoutError:
        raise WrongAnswer(f"after {_GIVE_UP_S:.0f} s {len(served_at)} of {len(keys)} keys were served") from None
    unexpected = {status: count for status, count in heard.items() if status not in (0, 429, 503)}
    if unexpected:
        raise WrongAnswer(f"good keys got {unexpected}")
    return {
        "first_served_s": min(served_at),
        "half_served_s": sorted(served_at)[len(served_at) // 2],
        ALL_SERVED: max(served_at),
        "no_connection": heard[0],
        "told_to_wait": heard[429] + heard[503],
    }


def _request(key: IssuedKey, client: str) -> bytes:
    lines = [f"{name}: {value}" for name, value in CALL_HEADERS]
    lines += ["Host: 127.0.0.1", f"X-API-Key: {key.text}", f"X-Forwarded-For: {client}", "Connection: close"]
    lines += [f"Content-Length: {len(SMALL_CALL.body)}"]
    return "\r\n".join((f"POST {KEY_ROUTE} HTTP/1.1", *lines, "", "")).encode() + SMALL_CALL.body


async def _ask(port: int, request: bytes) -> int:
    """Return the status of one request on a connection of its own; 0 when there was none to be had."""
    writer: asyncio.StreamWriter | None = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
    except OSError:
        return 0
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    if not answer:
        return 0
    status = int(answer[9:12])
    if status == 200 and not answer.endswith(SMALL_ANSWER):
        raise WrongAnswer(f"the answer is not the upstream's: {answer[-100:]!r}")
    return status
