"""Ending tokens before they expire: a row per revoked token, and one moment per account."""

from __future__ import annotations

from typing import Final

from sidecar.edge.embedded.copies import Copies
from sidecar.edge.embedded.database import Database
from sidecar.edge.embedded.schema import ANYBODY

LEEWAY_S: Final = 3_600
"""Rows are kept so long beyond a token's expiry, because it is honoured for a configured leeway after."""


class SqliteRevocations:
    """Everything is in one file, so a revoked token needs no account: `admit` looks for the token itself."""

    _database: Database
    _copies: Copies

    async def meet(self, token_id: str, account: str, expires_at: float) -> bool:
        """See `stores.RevocationStore`.

        The first to meet a revoked token learns when its row can go.
        """
        self._copies.refresh()
        row = self._copies.revoked_token(token_id)
        if row is not None and row[0] is None:
            change = "UPDATE revoked_tokens SET expires_at = ? WHERE token_id = ?"
            await self._database.write(lambda writer: writer.execute(change, (expires_at + LEEWAY_S, token_id)))
        return row is None

    async def is_revoked(self, token_id: str) -> bool:
        """See `stores.RevocationStore`."""
        self._copies.refresh()
        return self._copies.revoked_token(token_id) is not None

    async def revoke_token(self, token_id: str) -> None:
        """See `stores.RevocationStore`."""
        change = "INSERT OR IGNORE INTO revoked_tokens VALUES (?, NULL)"
        await self._database.write(lambda writer: writer.execute(change, (token_id,)))

    async def revoke_account(self, account: str, before: float) -> None:
        """See `stores.RevocationStore`."""
        change = (
            "INSERT INTO revoked_accounts VALUES (?, ?)"
            " ON CONFLICT (account) DO UPDATE SET moment = max(moment, excluded.moment)"
        )
        await self._database.write(lambda writer: writer.execute(change, (account, before)))

    async def revoked_before(self, account: str) -> float:
        """See `stores.RevocationStore`."""
        self._copies.refresh()
        return self._copies.revoked_before(account)

    async def changes(self, since: str | None) -> tuple[str, frozenset[str] | None]:
        """See `stores.RevocationStore`. A revoked token is anybody's: looking at all streams asks memory alone."""
        self._copies.refresh()
        now = str(self._copies.generation)
        if since in (None, now):
            return now, frozenset()
        rows = self._database.read("SELECT account FROM changed_accounts WHERE number > ?", since)
        accounts = frozenset([account for (account,) in rows])
        return now, None if ANYBODY in accounts else accounts
