"""Telling all processes whose keys or tokens have changed, so that they look at their open streams."""

from __future__ import annotations

from typing import Final

from sidecar.edge.redis import names
from sidecar.edge.redis.link import OnRedis

KEPT: Final = 10_000
"""Changes that are remembered; processes ask twice a second."""


class RedisChanges(OnRedis):
    """A stream of account names, in a slot of its own. What has changed is written before it is told of."""

    async def note_change(self, account: str) -> None:
        """See `stores.KeyStore`."""
        await self._link.call("XADD", names.changes(), "MAXLEN", "~", KEPT, "*", "account", account)
