"""To whom the upstream gave its sessions and tasks: one string per handle, with the owner and the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from sidecar.edge.redis import names
from sidecar.edge.redis.link import OnRedis, Script
from sidecar.model import Handle

RELEASE: Final = Script("release")


class RedisHandles(OnRedis):
    """Handles under their account's hash tag, where `admit` looks."""

    async def bind(self, account: str, handle: Handle, now: float) -> None:
        """See `stores.HandleStore`."""
        name = names.handle(account, handle.kind, handle.id)
        await self._link.call("SET", name, f"{now!r} {handle.owner}", "PX", idle_ms(handle))

    async def release(self, account: str, handle: Handle) -> None:
        """See `stores.HandleStore`."""
        await self._link.run(RELEASE, (names.handle(account, handle.kind, handle.id),), handle.owner)

    async def owned(self, account: str, owner: str, kind: str, ids: Sequence[str]) -> frozenset[str]:
        """See `stores.HandleStore`."""
        found = await asyncio.gather(*[self._link.call("GET", names.handle(account, kind, each)) for each in ids])
        return frozenset(
            [each for each, value in zip(ids, found, strict=True) if value is not None and owner_in(value) == owner]
        )


def idle_ms(handle: Handle) -> int:
    """Return the handle's idle time as Redis takes it."""
    return max(1, round(handle.idle_s * 1000))


def owner_in(value: bytes) -> str:
    """Return the owner that a stored handle names."""
    return value.decode().partition(" ")[2]
