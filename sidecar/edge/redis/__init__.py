"""The store on Redis 6.2 or newer, or Valkey: for anything shared by several processes."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import names
from sidecar.edge.redis.activity import RedisActivity
from sidecar.edge.redis.addresses import Place, place
from sidecar.edge.redis.admission import RedisAdmission
from sidecar.edge.redis.cluster import Cluster
from sidecar.edge.redis.confirmations import RedisConfirmations
from sidecar.edge.redis.conversation import Conversation
from sidecar.edge.redis.handles import RedisHandles
from sidecar.edge.redis.keys import RedisKeys
from sidecar.edge.redis.link import Link, Way, unnoted
from sidecar.edge.redis.opening import opened
from sidecar.edge.redis.pins import RedisPins
from sidecar.edge.redis.revocations import RedisRevocations
from sidecar.edge.redis.sentinels import SentinelLink
from sidecar.edge.redis.usage import RedisUsage

__all__ = ["RedisStore"]


class RedisStore(
    RedisActivity,
    RedisAdmission,
    RedisConfirmations,
    RedisHandles,
    RedisKeys,
    RedisPins,
    RedisRevocations,
    RedisUsage,
):
    """`stores.Store` on one Redis, on the master that sentinels name, or on a cluster."""

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        clock: Callable[[], float] | None = None,
        timeout_s: float = 0.1,
        tls: ssl.SSLContext | None = None,
        note_trip: Callable[[float], None] = unnoted,
        note_move: Callable[[Sequence[str]], None] = unnoted,
    ) -> RedisStore:
        """Name the Redis to use; it is connected to when first asked.

        Args:
            url: ``redis://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://``, with ``rediss`` for TLS; see
                `addresses.place`.
            clock: For tests only. Without one, Redis's own clock counts, whatever the clocks of its users say.
            timeout_s: The deadline of every round trip.
            tls: How to speak TLS with ``rediss``; without one, by the system's authorities.
            note_trip: Told of each round trip, well or badly, how many seconds it took.
            note_move: Told of the masters' addresses when they are others than before: what a former one had confirmed
                and not yet handed on is lost.

        Raises:
            ValueError: when the URL is none.
        """
        return cls(_way(place(url, tls), timeout_s, note_trip, note_move), clock)

    async def ping(self) -> None:
        """See `stores.Store`. By writing: one that takes no writes answers PING all the same, and can admit nobody."""
        await self._link.probe(names.probe(), 1000)

    async def warnings(self) -> tuple[str, ...]:
        """See `stores.Store`."""
        found: dict[str, None] = {}
        for master in await self._link.masters():
            found |= dict.fromkeys((*await _evicts(master), *await _forgets(master)))
        return tuple(found)

    async def aclose(self) -> None:
        """See `stores.Store`."""
        await self._link.aclose()


def _way(
    place: Place, timeout_s: float, note_trip: Callable[[float], None], note_move: Callable[[Sequence[str]], None]
) -> Way:
    if place.topology == "cluster":
        return Cluster(place, timeout_s, note_trip, note_move)
    if place.topology == "sentinel":
        return SentinelLink(place, timeout_s, note_trip, note_move)
    [address] = place.addresses

    async def connect() -> Conversation:
        return await opened(address, place.access)

    return Link(connect, timeout_s, note_trip)


async def _evicts(master: Way) -> tuple[str, ...]:
    memory = await _info(master, "memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory", "0") == "0" or policy == "noeviction":
        return ()
    return (f"Redis evicts ({policy}) when it is full: revocations could be forgotten; set noeviction",)


async def _forgets(master: Way) -> tuple[str, ...]:
    if (await _info(master, "persistence")).get("aof_enabled") != "0":
        return ()
    try:
        snapshots: list[bytes] = await master.call("CONFIG", "GET", "save")
    except StoreUnavailable:  # who hosts Redis for others seldom lets them ask, and keeps it in ways of its own
        return ()
    if snapshots != [b"save", b""]:
        return ()
    return ("Redis keeps nothing on disk: its restart would lose all keys and revocations; set appendonly yes",)


async def _info(master: Way, section: str) -> dict[str, str]:
    answer: bytes = await master.call("INFO", section)
    return dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
