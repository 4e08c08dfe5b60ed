"""Redis is down, hung, read-only, full or empty: a decision is made at once, by policy, and never for a stranger."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.e2e.bed import Bed, assert_refused, request
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream
from tests.redis_server import RedisServer

PATIENCE_S = 10.0
RECOVERY_S = 5.0
LIMITED = {"policies": [{"name": "account", "per": "account", "requests": 1000, "window_s": 60}]}
Fault = Callable[[RedisServer], None]


def order(server: RedisServer, *command: Any) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*command)


def read_only(server: RedisServer) -> None:
    """Make it the replica of a master that is not there, as a failover does."""
    order(server, "REPLICAOF", "127.0.0.1", "1")


def full(server: RedisServer) -> None:
    order(server, "CONFIG", "SET", "maxmemory", "1")


def no_longer_read_only(server: RedisServer) -> None:
    order(server, "REPLICAOF", "NO", "ONE")


def no_longer_full(server: RedisServer) -> None:
    order(server, "CONFIG", "SET", "maxmemory", "0")


FAULTS: dict[str, tuple[Fault, Fault]] = {
    "killed": (RedisServer.kill, RedisServer.start),
    "hung": (RedisServer.pause, RedisServer.resume),
    "read-only": (read_only, no_longer_read_only),
    "full": (full, no_longer_full),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> tuple[Fault, Fault]:
    """How Redis fails, and how it comes back."""
    return FAULTS[request.param]


async def recovered(bed: Bed, how: dict[str, str]) -> None:
    """Wait until calls are decided by Redis again."""
    async with asyncio.timeout(RECOVERY_S):
        while "store_recovered" not in [record["event"] for record in bed.records()]:
            await bed.post(request("ping"), **how)  # type: ignore[arg-type]  # a token or a key
            await asyncio.sleep(0.02)


def told_of(bed: Bed) -> Counter[str]:
    names = ("store_lost", "store_recovered", "internal_error")
    return Counter(record["event"] for record in bed.records() if record["event"] in names)


@pytest.mark.parametrize("policy", ["local", "deny", "allow"])
async def test_who_is_known_is_served_as_the_policy_says_and_a_stranger_never(
    start: Start, own_redis: RedisServer, redis_settings: dict[str, Any], fault: tuple[Fault, Fault], policy: str
) -> None:
    fails, comes_back = fault
    bed = await start(**redis_settings, limits={**LIMITED, "on_store_failure": policy})
    known, unseen, token = await bed.key("mcp:full"), await bed.key("mcp:full"), bed.token()
    for how in ({"key": known}, {"token": token}):
        assert (await bed.post(request("ping"), **how)).status_code == 200  # type: ignore[arg-type]  # as above
    fails(own_redis)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(20):
            for how in ({"key": known}, {"token": token}):
                answer = await bed.post(request("ping"), **how)  # type: ignore[arg-type]  # as above
                if policy == "deny":
                    assert_refused(answer, 503, "STORE_UNAVAILABLE")
                else:
                    assert answer.status_code == 200
        assert (await bed.post(request("ping"), key=unseen)).status_code in (401, 503)
        assert (await bed.post(request("ping"), token="x.y.z")).status_code == 401
    assert told_of(bed) == {"store_lost": 1}
    assert "sidecar_store_up 0.0" in (await bed.admin.get("/metrics")).text
    comes_back(own_redis)
    await recovered(bed, {"token": token})
    assert "sidecar_store_up 1.0" in (await bed.admin.get("/metrics")).text
    assert told_of(bed) == {"store_lost": 1, "store_recovered": 1}


async def test_readiness_says_what_requests_would_meet_and_does_not_contradict_them(
    start: Start, own_redis: RedisServer, redis_settings: dict[str, Any], fault: tuple[Fault, Fault]
) -> None:
    fails, comes_back = fault
    bed = await start(**redis_settings, limits={**LIMITED, "on_store_failure": "deny"})
    token = bed.token()
    assert (await bed.admin.get("/readyz")).json()["checks"]["store"] == "ok"
    fails(own_redis)
    for _ in range(5):
        assert_refused(await bed.post(request("ping"), token=token), 503, "STORE_UNAVAILABLE")
        answer = await bed.admin.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["store"]) == (503, "unavailable")
        assert "sidecar_store_up 0.0" in (await bed.admin.get("/metrics")).text
    assert told_of(bed) == {"store_lost": 1}
    comes_back(own_redis)
    async with asyncio.timeout(RECOVERY_S):
        while (await bed.admin.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - somebody must ask
            await asyncio.sleep(0.02)
    assert told_of(bed) == {"store_lost": 1, "store_recovered": 1}
    assert (await bed.post(request("ping"), token=token)).status_code == 200


async def test_a_user_of_redis_who_may_not_look_at_its_settings_is_served_all_the_same(
    start: Start, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    order(own_redis, "ACL", "SETUSER", "default", "-@dangerous", "-@admin", "resetkeys", "~sidecar:*")
    bed = await start(**redis_settings, limits=LIMITED)
    for how in ({"key": await bed.key("mcp:full")}, {"token": bed.token()}):
        assert (await bed.post(request("ping"), **how)).status_code == 200  # type: ignore[arg-type]  # as above
    [warning] = [record for record in bed.records() if record["event"] == "store_warning"]
    assert "NoPermission" in warning["problem"]
    assert told_of(bed) == {}


async def test_scripts_that_are_forgotten_are_loaded_again_and_nobody_notices(
    start: Start, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    bed = await start(**redis_settings, limits=LIMITED)
    remaining = []
    for _ in range(5):
        answer = await bed.post(request("ping"), token=bed.token())
        remaining.append(int(answer.headers["X-RateLimit-Remaining"]))
        order(own_redis, "SCRIPT", "FLUSH")
    assert remaining == [999, 998, 997, 996, 995]
    assert told_of(bed) == {}


async def test_limits_hold_locally_while_redis_is_away(
    start: Start, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    limits = {"policies": [{"name": "account", "per": "account", "requests": 10, "window_s": 60}], "local_share": 0.5}
    bed = await start(**redis_settings, limits=limits)
    token = bed.token()
    await bed.post(request("ping"), token=token)
    own_redis.kill()
    statuses = Counter([(await bed.post(request("ping"), token=token)).status_code for _ in range(20)])
    assert statuses == {200: 5, 429: 15}


async def test_a_revoked_key_stays_revoked_while_redis_is_away(
    start: Start, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    bed = await start(**redis_settings)
    key = await bed.key("mcp:full")
    assert (await bed.post(request("ping"), key=key)).status_code == 200
    await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
    assert (await bed.post(request("ping"), key=key)).status_code == 401
    own_redis.pause()
    for _ in range(3):
        assert (await bed.post(request("ping"), key=key)).status_code in (401, 503)


async def test_a_call_is_forwarded_once_whatever_redis_does(
    start: Start, stub: StubUpstream, own_redis: RedisServer, redis_settings: dict[str, Any]
) -> None:
    bed = await start(**redis_settings, limits=LIMITED)
    token = bed.token()
    served = 0
    for number in range(60):
        (own_redis.pause if number % 3 else own_redis.resume)()
        served += (await bed.post(request("ping", id=number), token=token)).status_code == 200
    own_redis.resume()
    assert served == 60
    assert len(stub.received) == 60
