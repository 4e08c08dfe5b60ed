"""What was approved of an upstream's tools: a row for each, and one for all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded.database import Database
from sidecar.policy import pins
from sidecar.records import Pin, Pinned

STANDS: Final = "SELECT version, complete FROM pinned_upstreams WHERE upstream = ?"
READ: Final = """
    SELECT version, complete, pin FROM pinned_upstreams LEFT JOIN pins USING (upstream) WHERE upstream = ?"""
SET: Final = "INSERT OR REPLACE INTO pins VALUES (?, ?, ?)"
DROP: Final = "DELETE FROM pins WHERE upstream = ? AND name = ?"


class SqlitePins:
    """Pins by upstream."""

    _database: Database

    async def pins_version(self, upstream: str) -> int:
        """See `stores.PinStore`."""
        rows = self._database.read(STANDS, upstream)
        return rows[0][0] if rows else 0

    async def pinned(self, upstream: str) -> Pinned:
        """See `stores.PinStore`. Read beside the event loop: there may be thousands."""
        rows = await self._database.read_later(READ, upstream)
        try:
            read = [pins.read(text) for _, _, text in rows if text is not None]
        except ValueError as error:
            raise StoreUnavailable("store_unavailable", detail=f"a stored pin is unreadable: {error}") from error
        version, is_complete = rows[0][:2] if rows else (0, 0)
        return Pinned(version, is_complete == 1, {pin.name: pin for pin in read})

    async def change_pins(
        self, upstream: str, version: int, changed: Sequence[tuple[str, Pin | None]], *, is_complete: bool
    ) -> int | None:
        """See `stores.PinStore`."""
        kept = [(upstream, name, pins.written(pin)) for name, pin in changed if pin is not None]
        dropped = [(upstream, name) for name, pin in changed if pin is None]

        def work(writer: sqlite3.Connection) -> int | None:
            if (writer.execute(STANDS, (upstream,)).fetchone() or (0,))[0] != version:
                return None
            writer.executemany(SET, kept)
            writer.executemany(DROP, dropped)
            row = (upstream, version + 1, int(is_complete))
            writer.execute("INSERT OR REPLACE INTO pinned_upstreams VALUES (?, ?, ?)", row)
            return version + 1

        return await self._database.write(work)
