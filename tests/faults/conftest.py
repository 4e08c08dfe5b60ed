"""Fixtures: a sidecar in a process of its own, in front of the stub, on a store that can be harmed."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import AUDIENCE, merged
from tests.e2e.conftest import base_settings, start, store, stub
from tests.mcp_server import StubUpstream
from tests.redis_server import RedisServer
from tests.service import Service, spawned

__all__ = ["start", "store", "stub"]

Serve = Callable[..., Awaitable[Service]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is here, so that it can be run, or left out, by itself."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("faults")


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Run a Redis for this test alone, which it may harm."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_settings(own_redis: RedisServer, tmp_path: Path) -> dict[str, Any]:
    """Say that everything is kept on that Redis."""
    secret = tmp_path / "identity.key"
    secret.write_bytes(base64.b64encode(b"identity-signing-secret-of-tests"))
    keys = [{"id": "test", "secret_file": str(secret)}]
    return {"store": {"url": own_redis.url}, "identity": {"algorithm": "hmac-sha256", "keys": keys}}


@pytest.fixture
async def serve(tmp_path: Path, issuer: DevIssuer, stub: StubUpstream) -> AsyncIterator[Serve]:
    """Start `sidecar serve` and wait until it serves. Started again, it has the same store."""
    async with AsyncExitStack() as stack:

        async def serve(*, under: tuple[str, ...] = (), **changes: Any) -> Service:
            settings = merged(base_settings(issuer.url, stub.url, tmp_path / "sidecar.db"), changes)
            token = issuer.mint(sub="alice", aud=AUDIENCE, scope="mcp:full")
            service = await spawned(stack, tmp_path, settings, token, under=under)
            started = await service.read("started")
            await service.connect(stack, started["public"], started["admin"])
            return service

        yield serve
