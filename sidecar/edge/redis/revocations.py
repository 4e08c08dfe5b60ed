"""Ending tokens before they expire.

A token's own slot knows for which accounts it was met and whether it was revoked; the account's slot, where `admit`
looks, gets the flag as well. Meeting and revoking are one script each in the token's slot, so one comes first:

- the meeting: then the revocation finds the account and flags it there, and `admit` refuses;
- the revocation: then the meeting finds the flag, and the token is refused before it gets to `admit`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from sidecar.edge.redis import names
from sidecar.edge.redis.changes import RedisChanges
from sidecar.edge.redis.commands import Script

MEET: Final = Script("window", "meet")
REVOKE_TOKEN: Final = Script("revoke_token")
REVOKE_ACCOUNT: Final = Script("revoke_account")
CHANGES_AT_ONCE: Final = 1_000
LEEWAY_S: Final = 3_600
"""Kept beyond a token's expiry, because it is honoured for a configured leeway after."""


class RedisRevocations(RedisChanges):
    """Flags for tokens, and one moment per account."""

    async def meet(self, token_id: str, account: str, expires_at: float) -> bool:
        """See `stores.RevocationStore`."""
        keys = (names.met(token_id), names.revoked(token_id))
        revoked: int = await self._link.run(MEET, keys, self.passed_us(), account, repr(expires_at + LEEWAY_S))
        return revoked == 0

    async def is_revoked(self, token_id: str) -> bool:
        """See `stores.RevocationStore`."""
        found: int = await self._link.call("EXISTS", names.revoked(token_id))
        return found == 1

    async def revoke_token(self, token_id: str) -> None:
        """See `stores.RevocationStore`."""
        lives_ms, *accounts = await self._link.run(REVOKE_TOKEN, (names.met(token_id), names.revoked(token_id)))
        flags = [names.revoked_here(account.decode(), token_id) for account in accounts]
        await asyncio.gather(*[self._link.call("SET", flag, "1", "PX", lives_ms) for flag in flags])
        for account in accounts:
            await self.note_change(account.decode())

    async def revoke_account(self, account: str, before: float) -> None:
        """See `stores.RevocationStore`."""
        await self._link.run(REVOKE_ACCOUNT, (names.revoked_before(account),), repr(before))
        await self.note_change(account)

    async def revoked_before(self, account: str) -> float:
        """See `stores.RevocationStore`."""
        moment: bytes | None = await self._link.call("GET", names.revoked_before(account))
        return 0.0 if moment is None else float(moment)

    async def changes(self, since: str | None) -> tuple[str, frozenset[str] | None]:
        """See `stores.RevocationStore`."""
        if since is None:
            last: list[tuple[bytes, Any]] = await self._link.call("XREVRANGE", names.changes(), "+", "-", "COUNT", 1)
            return (last[0][0].decode() if last else "0-0"), frozenset()
        found = await self._link.call("XRANGE", names.changes(), f"({since}", "+", "COUNT", CHANGES_AT_ONCE)
        if not found:
            return since, frozenset()
        # As many as were asked for: there may be more, and looking at all streams is cheaper than asking on.
        accounts = None if len(found) == CHANGES_AT_ONCE else frozenset([fields[1].decode() for _, fields in found])
        return found[-1][0].decode(), accounts
