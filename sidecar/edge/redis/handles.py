"""To whom the upstream gave its sessions and tasks: one string per handle, with the owner and the moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.edge.redis import names
from sidecar.edge.redis.commands import Script
from sidecar.edge.redis.link import OnRedis
from sidecar.model import Handle

RELEASE: Final = Script("release")
ELICITS: Final = "+"
"""Before the moment, which every reader of numbers passes over: the session's client can ask a person."""
READ_AT_ONCE: Final = 500
"""So many in one command, so that neither Redis nor the event loop is busy with one caller's list for long."""


class RedisHandles(OnRedis):
    """Handles under their account's hash tag, where `admit` looks."""

    async def bind(self, account: str, handle: Handle, now: float) -> None:
        """See `stores.HandleStore`."""
        name = names.handle(account, handle.kind, handle.id)
        await self._link.call(
            "SET", name, f"{ELICITS if handle.elicits else ''}{now!r} {handle.owner}", "PX", idle_ms(handle)
        )

    async def release(self, account: str, handle: Handle) -> None:
        """See `stores.HandleStore`."""
        await self._link.run(RELEASE, (names.handle(account, handle.kind, handle.id),), handle.owner)

    async def owned(self, account: str, owner: str, kind: str, ids: Sequence[str]) -> frozenset[str]:
        """See `stores.HandleStore`."""
        found: list[str] = []
        for begin in range(0, len(ids), READ_AT_ONCE):
            some = ids[begin : begin + READ_AT_ONCE]
            values = await self._link.call("MGET", *[names.handle(account, kind, each) for each in some])
            found += [each for each, value in zip(some, values, strict=True) if value and owner_in(value) == owner]
        return frozenset(found)

    async def elicits(self, account: str, owner: str, session_id: str) -> bool:
        """See `stores.HandleStore`."""
        value: bytes | None = await self._link.call("GET", names.handle(account, "session", session_id))
        return value is not None and owner_in(value) == owner and value.decode().startswith(ELICITS)


def idle_ms(handle: Handle) -> int:
    """Return the handle's idle time as Redis takes it."""
    return max(1, round(handle.idle_s * 1000))


def owner_in(value: bytes) -> str:
    """Return the owner that a stored handle names."""
    return value.decode().partition(" ")[2]
