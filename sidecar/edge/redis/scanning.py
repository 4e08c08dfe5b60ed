"""Which names of a kind are there, on all masters?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from sidecar.edge.redis.link import Way

AT_ONCE: Final = 1_000


async def names_like(link: Way, pattern: str) -> AsyncIterator[bytes]:
    """Walk all names that match, each once: they are remembered on the way, because Redis may show one twice.

    In a cluster that is moving slots meanwhile, names that move may be missed.
    """
    seen: set[bytes] = set()
    for master in await link.masters():
        cursor = b"0"
        while True:
            cursor, found = await master.call("SCAN", cursor.decode(), "MATCH", pattern, "COUNT", AT_ONCE)
            for name in found:
                if name not in seen:
                    seen.add(name)
                    yield name
            if cursor == b"0":
                break
