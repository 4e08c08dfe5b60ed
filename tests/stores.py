"""All stores, for suites that hold them to the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis
from redis.asyncio import Redis

from sidecar.edge.embedded import EmbeddedStore
from sidecar.edge.redis import RedisStore
from sidecar.model import Admission, Limit
from sidecar.records import KeyRecord
from sidecar.stores import Store
from tests.redis_server import shared_server
from tests.redis_topologies import emptied, shared_cluster, shared_sentinels

STORES = ("embedded", "redis", "sentinel", "cluster")
NOON = 1_790_000_000.0 - 1_790_000_000.0 % 86_400 + 43_200
"""Noon UTC of some day."""
PATIENT_S = 5.0
"""A deadline that a busy test machine keeps."""


class FakeClock:
    """Time passes when told to."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@asynccontextmanager
async def opened(kind: str, directory: Path, clock: FakeClock) -> AsyncIterator[Store]:
    """Open one of `STORES`, empty, and close it afterwards."""
    store: Store
    if kind == "embedded":
        store = await EmbeddedStore.open(str(directory / "sidecar.db"), clock=clock)
    else:
        store = RedisStore.from_url(_emptied(kind), clock=clock, timeout_s=PATIENT_S)
    try:
        yield store
    finally:
        await store.aclose()


def _emptied(kind: str) -> str:
    """Return where such a Redis is, without any keys."""
    if kind == "cluster":
        cluster = shared_cluster()
        emptied(cluster.masters)
        return cluster.url
    if kind == "sentinel":
        sentinels = shared_sentinels()
        emptied([sentinels.master])
        return sentinels.url
    with redis.Redis.from_url(shared_server().url) as client:
        client.flushall()
    return shared_server().url


@asynccontextmanager
async def redis_client(url: str | None = None) -> AsyncIterator[Redis]:
    """Look into Redis past the store."""
    client = Redis.from_url(url or shared_server().url)
    try:
        yield client
    finally:
        await client.aclose()


def make_key(name: str = "a", account: str = "acme", **changes: Any) -> KeyRecord:
    """Return a key that is active at `NOON`, with an id made from the name."""
    key_id = f"key_{name:0>12}"
    fields: dict[str, Any] = {
        "id": key_id,
        "account": account,
        "name": f"key {name}",
        "prefix": f"mcp_{name:0>12}",
        "scopes": ("mcp:tools:call", "mcp:resources:read"),
        "secret_hash": "$2b$10$hash",
        "created_at": NOON - 60,
        "created_by": "user|1",
        "origin": "rest",
        "lifetime_s": 86_400.0,
        "expires_at": NOON - 60 + 86_400,
    }
    return KeyRecord(**{**fields, **changes})


def ask(*limits: Limit, account: str = "acme", **changes: Any) -> Admission:
    """Ask for admission with a token that was issued at `NOON`."""
    fields: dict[str, Any] = {"account": account, "credential_id": "cred", "issued_at": NOON, "limits": limits}
    return Admission(**{**fields, **changes})


def ask_with(key: KeyRecord, *limits: Limit, **changes: Any) -> Admission:
    """Ask for admission with a key."""
    fields: dict[str, Any] = {"account": key.account, "credential_id": key.id, "issued_at": key.created_at}
    return ask(*limits, **{**fields, "key_id": key.id, "key_version": key.version, **changes})
