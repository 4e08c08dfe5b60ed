"""Usage counts and last uses: counted in memory, written about once a second, shown with what is not yet written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded.database import Database
from sidecar.records import Usage, UsageCount

FLUSH_S: Final = 1.0
HOURS: Final = 48
DAYS: Final = 30
KEPT_HOURS: Final = 31 * 24
MAX_UNWRITTEN: Final = 100_000
"""Rows that wait while the file can't be written. Beyond it what could not be written is given up."""

ADD: Final = (
    "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (account, key_id, hour) DO UPDATE SET"
    " requests = requests + excluded.requests, refused = refused + excluded.refused, writes = writes + excluded.writes"
)
DAY_S: Final = 86_400
USE: Final = """
    INSERT INTO last_uses VALUES (?1, ?2, ?4, coalesce(?5, ?3), ?6) ON CONFLICT (account, key_id) DO UPDATE SET
    returned_at = coalesce(?5, iif(?3 - used_at >= 86400, ?3, returned_at)),
    silent_s = coalesce(?6, iif(?3 - used_at >= 86400, ?3 - used_at, silent_s)),
    used_at = max(used_at, ?4)"""
"""Does in the file what `followed` does."""
READ: Final = "SELECT hour, requests, refused, writes FROM usage WHERE account = ? AND key_id = ? AND hour >= ?"

Counts = dict[tuple[str, str, int], list[int]]
"""Requests, refused and writes, by account, key and hour since 1970."""


class Uses(NamedTuple):
    """The uses of a key in a stretch of time; when it was used again after a day's silence, and how long that was."""

    first: float
    last: float
    returned: float | None = None
    silent_s: float | None = None


LastUses = dict[tuple[str, str], Uses]


class UsageCounts:
    """Counts the use of keys. A crash loses what the last second counted, and nothing else."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        *,
        flush_s: float = FLUSH_S,
        max_unwritten: int = MAX_UNWRITTEN,
    ) -> None:
        self._database = database
        self._clock = clock
        self._flush_s = flush_s
        self._max_unwritten = max_unwritten
        self._counts: Counts = {}
        self._last_uses: LastUses = {}
        self._being_written: LastUses = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Task[None] | None = None
        self._pruned_hour = 0

    def count(self, account: str, key_id: str, now: float, *, refused: bool, write: bool) -> None:
        """Count one request of a key; one that was not refused is also its last use."""
        counts = self._counts.setdefault((account, key_id, int(now // 3_600)), [0, 0, 0])
        if refused:
            counts[1] += 1
        else:
            counts[0] += 1
            counts[2] += write
            uses = Uses(now, now)
            before = self._last_uses.get((account, key_id))
            self._last_uses[account, key_id] = uses if before is None else followed(before, uses)
        if self._timer is None and self._flush is None:
            self._timer = asyncio.get_running_loop().call_later(self._flush_s, self._start_flush)

    def uses(self, account: str, key_id: str, written: Sequence[float | None]) -> Sequence[float | None]:
        """Return a key's last use, last return and the silence before it, given those on file (`records.StoredKey`)."""
        last, returned, silent_s = written
        known = None if last is None else Uses(last, last, returned, silent_s)
        for uses in (self._being_written.get((account, key_id)), self._last_uses.get((account, key_id))):
            known = uses if known is None else known if uses is None else followed(known, uses)
        if known is None:
            return written
        return known.last, known.first if known.returned is None else known.returned, known.silent_s

    async def usage(self, account: str, key_id: str, now: float, days: int) -> Usage:
        """See `stores.KeyStore`."""
        hour = int(now // 3_600)
        first = (hour // 24 - days + 1) * 24
        # What is being written now is on file by the time the writing thread gets to this query.
        counts = {key[2]: list(row) for key, row in self._counts.items() if key[:2] == (account, key_id)}
        for written_hour, *row in await self._database.read_later(READ, account, key_id, first):
            counts[written_hour] = [sum(pair) for pair in zip(row, counts.get(written_hour, (0, 0, 0)), strict=True)]
        return Usage(
            hours=tuple([total(counts, start, 1) for start in range(hour - HOURS + 1, hour + 1)]),
            days=tuple([total(counts, start, 24) for start in range(first, hour + 1, 24)]),
        )

    async def flush(self) -> None:
        """Write what is counted so far.

        Raises:
            StoreUnavailable: when it can't be; it is kept and tried again with the next count.
        """
        if not self._counts and not self._last_uses:
            return
        counts, self._counts = self._counts, {}
        last_uses, self._last_uses = self._last_uses, {}
        self._being_written = last_uses
        try:
            await self._database.write(lambda writer: self._write(writer, counts, last_uses))
        except StoreUnavailable:
            if len(counts) + len(self._counts) <= self._max_unwritten:
                merge(self._counts, counts)
                for key, uses in self._last_uses.items():
                    last_uses[key] = followed(last_uses[key], uses) if key in last_uses else uses
                self._last_uses = last_uses
            raise
        finally:
            self._being_written = {}

    async def aclose(self) -> None:
        """Write what is left."""
        if self._flush is not None:
            await asyncio.wait([self._flush])
        if self._timer is not None:
            self._timer.cancel()
        await self.flush()

    def _start_flush(self) -> None:
        self._timer = None
        self._flush = asyncio.create_task(self.flush())
        self._flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flush = None
        if self._counts:
            self._timer = asyncio.get_running_loop().call_later(self._flush_s, self._start_flush)
        error = None if flush.cancelled() else flush.exception()
        if error is not None and not isinstance(error, StoreUnavailable):
            raise error

    def _write(self, writer: sqlite3.Connection, counts: Counts, last_uses: LastUses) -> None:
        writer.executemany(ADD, [(*key, *row) for key, row in counts.items()])
        writer.executemany(USE, [(*key, *uses) for key, uses in last_uses.items()])
        now = self._clock()
        hour = int(now // 3_600)
        if hour != self._pruned_hour:
            writer.execute("DELETE FROM usage WHERE hour < ?", (hour - KEPT_HOURS,))
            writer.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", (now,))
            writer.execute("DELETE FROM handles WHERE expires_at < ?", (now,))
            self._pruned_hour = hour


def followed(before: Uses, after: Uses) -> Uses:
    """Put two stretches together."""
    silent_s = after.first - before.last
    returned = (after.first, silent_s) if silent_s >= DAY_S else (before.returned, before.silent_s)
    if after.returned is not None:
        returned = (after.returned, after.silent_s)
    return Uses(before.first, max(before.last, after.last), *returned)


def merge(into: Counts, counts: Counts) -> None:
    """Add counts that could not be written to those made since."""
    for key, row in counts.items():
        into[key] = [sum(pair) for pair in zip(row, into.get(key, (0, 0, 0)), strict=True)]


def total(counts: dict[int, list[int]], first: int, length: int) -> UsageCount:
    """Add up so many hours."""
    hours = [counts[hour] for hour in range(first, first + length) if hour in counts]
    requests, refused, writes = [sum([row[kind] for row in hours]) for kind in range(3)]
    return UsageCount(first * 3_600, requests, refused, writes)
