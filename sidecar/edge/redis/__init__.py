"""The store on Redis 6.2 or newer, or Valkey: for anything shared by several processes."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import names
from sidecar.edge.redis.admission import RedisAdmission
from sidecar.edge.redis.handles import RedisHandles
from sidecar.edge.redis.keys import RedisKeys
from sidecar.edge.redis.link import Link, unnoted
from sidecar.edge.redis.revocations import RedisRevocations
from sidecar.edge.redis.usage import RedisUsage

__all__ = ["RedisStore"]


class RedisStore(RedisAdmission, RedisHandles, RedisKeys, RedisRevocations, RedisUsage):
    """`stores.Store` on one Redis."""

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        clock: Callable[[], float] | None = None,
        timeout_s: float = 0.1,
        tls: ssl.SSLContext | None = None,
        note_trip: Callable[[float], None] = unnoted,
    ) -> RedisStore:
        """Name the Redis to use; it is connected to when first asked.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``; options of redis-py may follow in the query.
            clock: For tests only. Without one, Redis's own clock counts, whatever the clocks of its users say.
            tls: By what ``rediss://`` connects; without it, by the system's authorities.
            timeout_s: The deadline of every round trip.
            note_trip: Told of each round trip, well or badly, how many seconds it took.

        Raises:
            ValueError: when the URL is none.
        """
        return cls(Link(url, timeout_s, note_trip, tls), clock)

    async def ping(self) -> None:
        """See `stores.Store`. By writing: one that takes no writes answers PING all the same, and can admit nobody."""
        await self._link.call("SET", names.probe(), "1", "PX", 1000)

    async def warnings(self) -> tuple[str, ...]:
        """See `stores.Store`."""
        return (*await self._evicts(), *await self._forgets())

    async def _evicts(self) -> tuple[str, ...]:
        memory = await self._info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory", "0") == "0" or policy == "noeviction":
            return ()
        return (f"Redis evicts ({policy}) when it is full: revocations could be forgotten; set noeviction",)

    async def _forgets(self) -> tuple[str, ...]:
        if (await self._info("persistence")).get("aof_enabled") != "0":
            return ()
        try:
            snapshots: list[bytes] = await self._link.call("CONFIG", "GET", "save")
        except StoreUnavailable:  # who hosts Redis for others seldom lets them ask, and keeps it in ways of its own
            return ()
        if snapshots != [b"save", b""]:
            return ()
        return ("Redis keeps nothing on disk: its restart would lose all keys and revocations; set appendonly yes",)

    async def _info(self, section: str) -> dict[str, str]:
        answer: bytes = await self._link.call("INFO", section)
        return dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)

    async def aclose(self) -> None:
        """See `stores.Store`."""
        await self._link.aclose()
