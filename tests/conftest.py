"""Fixtures that any test may ask for: a real Redis, a real issuer, a real MCP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import redis
import uvloop

from sidecar.demo.issuer import DevIssuer
from tests.mcp_server import finance_server
from tests.redis_server import RedisServer

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run the tests on the event loop that production runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def issuer() -> AsyncIterator[DevIssuer]:
    """Run a dev issuer; ES256, because an RSA key takes its time to be made."""
    issuer = DevIssuer(algorithm="ES256")
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture(scope="session")
def finance_url() -> Iterator[str]:
    """Run the finance server once for all tests; each takes accounts of its own."""
    with finance_server() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Run one Redis for all tests."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """Hand out that Redis, empty and awake."""
    yield redis_server.url
    redis_server.resume()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
