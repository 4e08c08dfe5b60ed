"""Ending tokens before they expire.

A token's own slot knows for which accounts it was met and whether it was revoked; the account's slot, where `admit`
looks, gets the flag as well. Meeting and revoking are one script each in the token's slot, so one comes first:

- the meeting: then the revocation finds the account and flags it there, and `admit` refuses;
- the revocation: then the meeting finds the flag, and the token is refused before it gets to `admit`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.edge.redis import names
from sidecar.edge.redis.link import OnRedis, Script

MEET: Final = Script("window", "meet")
REVOKE_TOKEN: Final = Script("revoke_token")
REVOKE_ACCOUNT: Final = Script("revoke_account")
LEEWAY_S: Final = 3_600
"""Kept beyond a token's expiry, because it is honoured for a configured leeway after."""


class RedisRevocations(OnRedis):
    """Flags for tokens, and one moment per account."""

    async def meet(self, token_id: str, account: str, expires_at: float) -> bool:
        """See `ports.RevocationStore`."""
        keys = (names.met(token_id), names.revoked(token_id))
        revoked: int = await self._link.run(MEET, keys, self.passed_us(), account, repr(expires_at + LEEWAY_S))
        return revoked == 0

    async def revoke_token(self, token_id: str) -> None:
        """See `ports.RevocationStore`."""
        lives_ms, *accounts = await self._link.run(REVOKE_TOKEN, (names.met(token_id), names.revoked(token_id)))
        flags = [names.revoked_here(account.decode(), token_id) for account in accounts]
        await asyncio.gather(*[self._link.call("SET", flag, "1", "PX", lives_ms) for flag in flags])

    async def revoke_account(self, account: str, before: float) -> None:
        """See `ports.RevocationStore`."""
        await self._link.run(REVOKE_ACCOUNT, (names.revoked_before(account),), repr(before))

    async def revoked_before(self, account: str) -> float:
        """See `ports.RevocationStore`."""
        moment: bytes | None = await self._link.call("GET", names.revoked_before(account))
        return 0.0 if moment is None else float(moment)
