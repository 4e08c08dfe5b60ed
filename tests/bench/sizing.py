"""What a Redis must hold, and how often it is asked: ``python -m tests.bench.sizing``; the guide is deploy/redis.md."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.asyncio import Redis

from sidecar.edge.redis import RedisStore
from sidecar.model import Admission, Handle, Limit
from sidecar.records import KeyRecord
from tests.redis_server import RedisServer

ACCOUNTS: Final = 10_000
AT_ONCE: Final = 200
PATIENT_S: Final = 30.0
LIMITS: Final = (Limit("account", 600, 60), Limit("burst", 60, 1, per="credential"), Limit("writes", 60, 60))
SESSION_IDLE_S: Final = 3_600.0
SENT: Final = frozenset(f"cmdstat_{command}" for command in ("evalsha", "persist", "xadd"))
"""What clients alone send: SET is sent by scripts too, and is left out."""
Step = Callable[[int], Awaitable[Any]]


def say(*words: object) -> None:
    """Write a line."""
    sys.stdout.write(" ".join([str(word) for word in words]) + "\n")


class Clock:
    """Goes when told to."""

    now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


def account(number: int) -> str:
    """Return a name as identity providers give them."""
    return f"auth0|{number:024x}"


def key(number: int, generation: int, now: float) -> KeyRecord:
    """Return a key as the command makes them."""
    key_id = f"key_{generation}{number:011d}"
    return KeyRecord(
        id=key_id,
        account=account(number),
        name="nightly report",
        prefix=f"mcp_{key_id[4:]}",
        scopes=("mcp:read",),
        secret_hash="$2b$10$" + "x" * 53,
        created_at=now,
        created_by=account(number),
        origin="rest",
        lifetime_s=90 * 86_400.0,
        expires_at=now + 90 * 86_400,
    )


class Trips:
    """Counts round trips."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, trip_s: float) -> None:
        self.count += 1


async def main() -> None:
    with RedisServer() as server:
        trips, clock = Trips(), Clock()
        client = Redis.from_url(server.url)
        say((await client.info("server"))["redis_version"], (await client.info("memory"))["mem_allocator"])
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S, note_trip=trips)
        clocked = RedisStore.from_url(server.url, timeout_s=PATIENT_S, clock=clock)
        await measured(client, store, trips, float((await client.time())[0]))
        await at_their_fullest(client, clocked, clock)
        for each in (client, store, clocked):
            await each.aclose()


async def measured(client: Redis, store: RedisStore, trips: Trips, now: float) -> None:
    """Print what each thing adds for one account, with all that Redis needs around it."""

    def asking(number: int, *, with_key: bool = False, **changes: Any) -> Admission:
        if with_key:
            changes |= {"key_id": f"key_0{number:011d}", "key_version": 1}
        return Admission(account(number), "cred", now + 1, LIMITS, **changes)

    def session(number: int) -> Handle:
        return Handle("session", f"{number:032x}", "cred", SESSION_IDLE_S)

    steps: dict[str, Step] = {
        "the first key of an account": lambda n: store.add(key(n, 0, now), max_active=50, now=now),
        "each further key": lambda n: store.add(key(n, 1, now), max_active=50, now=now),
        "a session": lambda n: store.bind(account(n), session(n), now),
        "a token with a jti": lambda n: store.meet(f"{n:032x}", account(n), now + 3_600),
        "a request with a token": lambda n: store.admit(asking(n)),
        "a request with a key: its usage of a day": lambda n: store.admit(asking(n, with_key=True)),
        "a request with a session": lambda n: store.admit(asking(n, handles=(session(n),))),
        "a revoked account": lambda n: store.revoke_account(account(n), now),
    }
    for name, step in steps.items():
        await step(ACCOUNTS)  # teaches scripts
        alone = trips.count
        await step(ACCOUNTS + 1)
        alone = trips.count - alone
        used = await used_memory(client)
        await client.config_resetstat()
        for begin in range(0, ACCOUNTS, AT_ONCE):
            await asyncio.gather(*[step(number) for number in range(begin, begin + AT_ONCE)])
        added = (await used_memory(client) - used) / ACCOUNTS
        busy_us = sum(float(stat["usec"]) for name, stat in (await client.info("commandstats")).items() if name in SENT)
        say(f"{name:42} {added:6.0f} bytes {alone:3} round trips {busy_us / ACCOUNTS:7.1f} us of Redis's time")


async def at_their_fullest(client: Redis, store: RedisStore, clock: Clock) -> None:
    """Print what belongs to one account that has spent all of its limits evenly, and to a key that was used all day."""
    for asked in (Admission("acme", "cred", clock.now, LIMITS[:1]), Admission("acme", "cred", clock.now, LIMITS[1:])):
        while (await store.admit(asked)).admitted:
            clock.now += 0.0999 if asked.limits == LIMITS[:1] else 0.001
    usage = "sidecar:{acme}:usage:key_000000000000:20000"
    await client.hset(usage, mapping={f"{hour}:{kind}": 12_345 for hour in range(24) for kind in "rwx"})
    for name in sorted([name async for name in client.scan_iter("sidecar:{acme}:*")]):
        say(f"{name.decode():60} {await client.memory_usage(name, samples=0):7} bytes")
    changes = await client.memory_usage("sidecar:changes", samples=0)
    say(f"{'sidecar:changes, at its longest':60} {changes:7} bytes")


async def used_memory(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
