"""What was unusual about keys, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from sidecar.edge.embedded.database import Database
from sidecar.policy.activity import KEEP_S, KINDS, is_news
from sidecar.records import Unusual

ONE: Final = "SELECT since, reason FROM unusual WHERE account = ? AND key_id = ? AND kind = ? AND noted_at > ?"
ALL: Final = "SELECT key_id, kind, since, reason FROM unusual WHERE account = ? AND noted_at > ?"


class SqliteActivity:
    """Kept until something else is noted after its time."""

    _database: Database

    async def note_unusual(self, account: str, key_id: str, found: Unusual, now: float) -> bool:
        """See `stores.ActivityStore`."""

        def work(writer: sqlite3.Connection) -> bool:
            writer.execute("DELETE FROM unusual WHERE noted_at <= ?", (now - KEEP_S,))
            kept = writer.execute(ONE, (account, key_id, found.kind, now - KEEP_S)).fetchone()
            if not is_news(found, None if kept is None else Unusual(found.kind, *kept)):
                return False
            row = (account, key_id, found.kind, found.since, now, found.reason)
            writer.execute("INSERT OR REPLACE INTO unusual VALUES (?, ?, ?, ?, ?, ?)", row)
            return True

        return await self._database.write(work)

    async def unusual(self, account: str, now: float) -> Mapping[str, tuple[Unusual, ...]]:
        """See `stores.ActivityStore`."""
        rows = await self._database.read_later(ALL, account, now - KEEP_S)
        found: dict[str, tuple[Unusual, ...]] = {}
        for key_id, kind, since, reason in sorted(rows, key=lambda row: KINDS.index(row[1])):
            found[key_id] = (*found.get(key_id, ()), Unusual(kind, since, reason))
        return found
