"""What was unusual about keys: one hash per account, with a field per key and kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import names
from sidecar.edge.redis.commands import Script
from sidecar.edge.redis.link import OnRedis
from sidecar.policy.activity import KEEP_S, KINDS
from sidecar.records import Unusual

NOTE: Final = Script("note_unusual")


class RedisActivity(OnRedis):
    """Kept for as long as the last of an account's is."""

    async def note_unusual(self, account: str, key_id: str, found: Unusual, now: float) -> bool:
        """See `stores.ActivityStore`."""
        field = f"{key_id}:{found.kind}"
        arguments = (field, repr(found.since), repr(now), int(KEEP_S), found.reason)
        return bool(await self._link.run(NOTE, (names.unusual(account),), *arguments))

    async def unusual(self, account: str, now: float) -> Mapping[str, tuple[Unusual, ...]]:
        """See `stores.ActivityStore`."""
        reply: list[bytes] = await self._link.call("HGETALL", names.unusual(account))
        fields = {field.decode(): value.decode() for field, value in zip(reply[::2], reply[1::2], strict=True)}
        found: dict[str, tuple[Unusual, ...]] = {}
        try:
            for kind in KINDS:
                for field, value in fields.items():
                    key_id, _, of_kind = field.partition(":")
                    noted_at, since, reason = value.split(" ", 2)
                    if of_kind == kind and now - float(noted_at) < KEEP_S:
                        found[key_id] = (*found.get(key_id, ()), Unusual(kind, float(since), reason))
        except ValueError as error:
            raise StoreUnavailable("store_unavailable", detail=f"what was unusual is unreadable: {error}") from error
        return found
