"""The store on Redis 6.2 or newer, or Valkey: for anything shared by several processes."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.edge.redis import names
from sidecar.edge.redis.admission import RedisAdmission
from sidecar.edge.redis.handles import RedisHandles
from sidecar.edge.redis.keys import RedisKeys
from sidecar.edge.redis.link import Link
from sidecar.edge.redis.revocations import RedisRevocations
from sidecar.edge.redis.usage import RedisUsage

__all__ = ["RedisStore"]


class RedisStore(RedisAdmission, RedisHandles, RedisKeys, RedisRevocations, RedisUsage):
    """`stores.Store` on one Redis."""

    @classmethod
    def from_url(cls, url: str, *, clock: Callable[[], float] | None = None, timeout_s: float = 0.1) -> RedisStore:
        """Name the Redis to use; it is connected to when first asked.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``; options of redis-py may follow in the query.
            clock: For tests only. Without one, Redis's own clock counts, whatever the clocks of its users say.
            timeout_s: The deadline of every round trip.

        Raises:
            ValueError: when the URL is none.
        """
        return cls(Link(url, timeout_s), clock)

    async def ping(self) -> None:
        """See `stores.Store`. By writing: one that takes no writes answers PING all the same, and can admit nobody."""
        await self._link.call("SET", names.probe(), "1", "PX", 1000)

    async def warnings(self) -> tuple[str, ...]:
        """See `stores.Store`."""
        answer: bytes = await self._link.call("INFO", "memory")
        memory = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory", "0") == "0" or policy == "noeviction":
            return ()
        return (f"Redis evicts ({policy}) when it is full: revocations could be forgotten; set noeviction",)

    async def aclose(self) -> None:
        """See `stores.Store`."""
        await self._link.aclose()
