"""What was approved of an upstream's tools: one hash in one slot, with a field per tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import names
from sidecar.edge.redis.commands import Argument, Script
from sidecar.edge.redis.link import OnRedis
from sidecar.policy import pins
from sidecar.records import Pin, Pinned

CHANGE: Final = Script("change_pins")
READ_AT_ONCE: Final = 50
"""Fields, so that no trip takes long; a pin is of some KiB."""
ATTEMPTS: Final = 3
PREFIX: Final = "pin:"
"""Of the fields that are pins. The others are ``version`` and ``complete``."""


class RedisPins(OnRedis):
    """Pins, under the upstream's hash tag."""

    async def pins_version(self, upstream: str) -> int:
        """See `stores.PinStore`."""
        version: bytes | None = await self._link.call("HGET", names.pins(upstream), "version")
        return int(version or 0)

    async def pinned(self, upstream: str) -> Pinned:
        """See `stores.PinStore`. What changes while it is read, is read again."""
        for _ in range(ATTEMPTS):
            version = await self.pins_version(upstream)
            fields = await self._fields(upstream)
            if int(fields.get(b"version", 0)) == version == await self.pins_version(upstream):
                return _pinned(version, fields)
        raise StoreUnavailable("store_unavailable", detail="the pins of tools change faster than they can be read")

    async def change_pins(
        self, upstream: str, version: int, changed: Sequence[tuple[str, Pin | None]], *, is_complete: bool
    ) -> int | None:
        """See `stores.PinStore`."""
        kept = [(PREFIX + name, pins.written(pin)) for name, pin in changed if pin is not None]
        dropped = [PREFIX + name for name, pin in changed if pin is None]
        fields: list[Argument] = [text for pair in kept for text in pair]
        arguments = (version, int(is_complete), len(kept), *fields, *dropped)
        changed_to: int = await self._link.run(CHANGE, (names.pins(upstream),), *arguments)
        return changed_to or None

    async def _fields(self, upstream: str) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        cursor = "0"
        while True:
            reply = await self._link.call("HSCAN", names.pins(upstream), cursor, "COUNT", READ_AT_ONCE)
            cursor = reply[0].decode()
            found |= zip(reply[1][::2], reply[1][1::2], strict=True)
            if cursor == "0":
                return found


def _pinned(version: int, fields: dict[bytes, bytes]) -> Pinned:
    prefix = PREFIX.encode()
    try:
        read = [pins.read(value) for field, value in fields.items() if field.startswith(prefix)]
    except ValueError as error:
        raise StoreUnavailable("store_unavailable", detail=f"a stored pin is unreadable: {error}") from error
    return Pinned(version, fields.get(b"complete") == b"1", {pin.name: pin for pin in read})
