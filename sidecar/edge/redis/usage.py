"""Usage counts: one hash per key and UTC day, with fields like ``13:r`` (requests), ``13:x`` (refused), ``13:w``."""

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.edge.redis import names
from sidecar.edge.redis.link import OnRedis
from sidecar.records import Usage, UsageCount

HOURS: Final = 48
DAYS: Final = 30
Counts = dict[tuple[int, bytes], int]
"""By hour since 1970 and kind."""


class RedisUsage(OnRedis):
    """Reads what `admit` counted."""

    async def usage(self, account: str, key_id: str, now: float, days: int = DAYS) -> Usage:
        """See `stores.KeyStore`."""
        today, this_hour = int(now // 86_400), int(now // 3_600)
        read = range(today - days + 1, today + 1)
        replies = await asyncio.gather(*[self._link.call("HGETALL", names.usage(account, key_id, day)) for day in read])
        counts: Counts = {}
        for day, reply in zip(read, replies, strict=True):
            for field, value in zip(reply[::2], reply[1::2], strict=True):
                hour, _, kind = field.partition(b":")
                counts[day * 24 + int(hour), kind] = int(value)
        return Usage(
            hours=tuple([total(counts, hour, 1) for hour in range(this_hour - HOURS + 1, this_hour + 1)]),
            days=tuple([total(counts, day * 24, 24) for day in read]),
        )


def total(counts: Counts, first: int, length: int) -> UsageCount:
    """Add up so many hours."""
    requests, refused, writes = [
        sum([counts.get((hour, kind), 0) for hour in range(first, first + length)]) for kind in (b"r", b"x", b"w")
    ]
    return UsageCount(first * 3_600, requests, refused, writes)
