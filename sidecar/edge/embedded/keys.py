"""API-key records in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from typing import Final

from sidecar.edge.embedded.copies import COLUMNS, NAMES, Copies, key_record, row_of
from sidecar.edge.embedded.database import Database
from sidecar.edge.embedded.usage import DAYS, UsageCounts
from sidecar.records import KeyRecord, StoredKey, Usage

ACCOUNTS_AT_ONCE: Final = 500
MARKS: Final = ", ".join("?" * len(NAMES))
INSERT: Final = f"INSERT INTO keys ({COLUMNS}) VALUES ({MARKS}) ON CONFLICT (id) DO NOTHING"  # noqa: S608 - constants
REPLACE: Final = f"UPDATE keys SET ({COLUMNS}) = ({MARKS}) WHERE id = ? AND account = ? AND version = ?"  # noqa: S608 - constants
USES: Final = "SELECT used_at, returned_at, silent_s FROM last_uses WHERE account = ? AND key_id = ?"
PAGE: Final = f"""
    SELECT {COLUMNS}, used_at, returned_at, silent_s
    FROM keys LEFT JOIN (SELECT account AS whose, key_id, used_at, returned_at, silent_s FROM last_uses)
        ON whose = account AND key_id = id
    WHERE account = ?1 AND
        (?2 IS NULL OR (created_at, id) < (SELECT created_at, id FROM keys WHERE account = ?1 AND id = ?2))
    ORDER BY created_at DESC, id DESC LIMIT ?3"""  # noqa: S608 - a constant


class SqliteKeys:
    """Keys, each reachable only through its account."""

    _database: Database
    _copies: Copies
    _usage: UsageCounts

    async def account_of(self, key_id: str) -> str | None:
        """See `stores.KeyStore`."""
        rows = self._database.read("SELECT account FROM keys WHERE id = ?", key_id)
        return rows[0][0] if rows else None

    async def get(self, account: str, key_id: str) -> StoredKey | None:
        """See `stores.KeyStore`."""
        self._copies.refresh()
        record = self._copies.record(account, key_id)
        if record is None:
            return None
        rows = self._database.read(USES, account, key_id)
        return StoredKey(record, *self._usage.uses(account, key_id, rows[0] if rows else (None, None, None)))

    async def add(self, record: KeyRecord, *, max_active: int | None, now: float) -> bool:
        """See `stores.KeyStore`. An id that is taken is not added either."""

        def work(writer: sqlite3.Connection) -> bool:
            if max_active is not None and count_active(writer, record.account, now) >= max_active:
                return False
            return writer.execute(INSERT, row_of(record)).rowcount == 1

        return await self._database.write(work)

    async def replace(self, record: KeyRecord, *, successor: KeyRecord | None = None) -> bool:
        """See `stores.KeyStore`."""

        def work(writer: sqlite3.Connection) -> bool:
            if successor is not None and writer.execute("SELECT 1 FROM keys WHERE id = ?", (successor.id,)).fetchone():
                return False
            if writer.execute(REPLACE, (*row_of(record), record.id, record.account, record.version - 1)).rowcount != 1:
                return False
            if successor is not None:
                writer.execute(INSERT, row_of(successor))
            return True

        return await self._database.write(work)

    async def note_change(self, account: str) -> None:
        """See `stores.KeyStore`."""
        await self._database.write(lambda writer: tell(writer, account))

    async def page(self, account: str, *, limit: int, after: str | None) -> list[StoredKey]:
        """See `stores.KeyStore`."""
        rows = self._database.read(PAGE, account, after, limit)
        return [StoredKey(key_record(row[:-3]), *self._usage.uses(account, row[0], row[-3:])) for row in rows]

    async def accounts(self) -> AsyncIterator[str]:
        """See `stores.KeyStore`."""
        last = ""
        query = "SELECT DISTINCT account FROM keys WHERE account > ? ORDER BY account LIMIT ?"
        while rows := self._database.read(query, last, ACCOUNTS_AT_ONCE):
            for (account,) in rows:
                yield account
            last = rows[-1][0]

    async def usage(self, account: str, key_id: str, now: float, days: int = DAYS) -> Usage:
        """See `stores.KeyStore`."""
        return await self._usage.usage(account, key_id, now, days)


def tell(writer: sqlite3.Connection, account: str) -> None:
    """Record a change of this account's credentials, as the triggers do."""
    writer.execute("UPDATE generation SET number = number + 1")
    writer.execute("INSERT OR REPLACE INTO changed_accounts SELECT ?, number FROM generation", (account,))


def count_active(writer: sqlite3.Connection, account: str, now: float) -> int:
    """Count the account's keys that are neither revoked nor expired."""
    query = "SELECT count(*) FROM keys WHERE account = ? AND revoked_at IS NULL AND expires_at > ?"
    count: int = writer.execute(query, (account, now)).fetchone()[0]
    return count
