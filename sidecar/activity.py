"""Who looks at how keys are used, and tells of what is unusual? Beside the requests, never in their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from sidecar.bounded import BoundedDict
from sidecar.denials import StoreUnavailable
from sidecar.policy import activity
from sidecar.policy.activity import Thresholds
from sidecar.records import KeyRecord, StoredKey, Unusual
from sidecar.stores import ActivityStore, AdmissionStore, KeyStore

_HOUR_S: Final = 3_600
_HABITS_S: Final = 30 * 86_400
_LOOK_S: Final = 1.0
_MOST_COUNTED: Final = 100_000
_MOST_WAITING: Final = 10_000
_MOST_KEYS: Final = 500
"""Of an account, the newest: so many are added up."""
_PAGE: Final = 100


class UnusualReport(Protocol):
    """Tells people of what is unusual."""

    def unusual(self, account: str, key_id: str, found: Unusual) -> None:
        """Tell of it; an empty `key_id` means all keys of the account together."""
        ...


class WatchedStore(ActivityStore, AdmissionStore, KeyStore, Protocol):
    """What of the store a watch needs."""


class ActivityWatch:
    """Counts in memory how often each key is used this hour, and now and then looks at what the store counted of it.

    A key is looked at within a second after its first request of the hour in this process, its 16th, 32nd, 64th and so
    on, each 500th (`min_requests`), and likewise after refused ones; an account likewise but for the first. Counts of
    100 000 keys are held and 10 000 wait at most: of more, some are looked at later. `thresholds` may be changed while
    it is in use.
    """

    def __init__(
        self,
        store: WatchedStore,
        thresholds: Thresholds,
        report: UnusualReport,
        clock: Callable[[], float],
        *,
        report_fault: Callable[[BaseException], None],
    ) -> None:
        self.thresholds = thresholds
        self._store = store
        self._report = report
        self._clock = clock
        self._report_fault = report_fault
        self._hour = self._this_hour()
        self._counts: BoundedDict[tuple[str, str, bool], int] = BoundedDict(_MOST_COUNTED)
        """By account, key (or none, for all of them), and whether the requests were refused."""
        self._due: BoundedDict[tuple[str, str], None] = BoundedDict(_MOST_WAITING)
        """Accounts and keys (or none) that are to be looked at."""
        self._presented: list[KeyRecord] = []

    def counted(self, account: str, key_id: str, is_refused: bool) -> None:
        """Take note of a request with a key."""
        self._count(account, key_id, is_refused)
        self._count(account, activity.ALL, is_refused)

    def presented(self, record: KeyRecord) -> None:
        """Take note that somebody has the secret of this key, which has come to its end."""
        if len(self._presented) < _MOST_WAITING:
            self._presented.append(record)

    async def watch(self) -> None:
        """Look after the keys for as long as this runs."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Look at all keys that are due. What the store can't tell now is looked at last, the next time."""
        hour = self._this_hour()
        if hour != self._hour:
            self._hour = hour
            self._counts.clear()
        try:
            for _ in range(len(self._presented)):
                await self._note_presented(self._presented.pop(0))
            for account, key_id in tuple(self._due):
                del self._due[account, key_id]
                await self._look_at_due(account, key_id)
        except StoreUnavailable:
            return
        except Exception as fault:  # a watch that stops would tell of nothing any more
            self._report_fault(fault)

    async def _note_presented(self, record: KeyRecord) -> None:
        now = self._clock()
        try:
            for found in activity.of_ended(record, now):
                await self._note(record.account, record.id, found, now)
            await self._store.count_refusal(record.account, record.id)
        except StoreUnavailable:
            self.presented(record)
            raise

    async def _look_at_due(self, account: str, key_id: str) -> None:
        try:
            await (self._look_at_all(account) if key_id == activity.ALL else self._look_at(account, key_id))
        except StoreUnavailable:
            self._due[account, key_id] = None
            raise

    def _this_hour(self) -> int:
        return int(self._clock() // _HOUR_S)

    def _count(self, account: str, key_id: str, is_refused: bool) -> None:
        counted = (account, key_id, is_refused)
        self._counts[counted] = count = self._counts.get(counted, 0) + 1
        least = self.thresholds.min_refused if is_refused else self.thresholds.min_requests
        if activity.is_due(count, least) and (count > 1 or key_id != activity.ALL):
            self._due[account, key_id] = None

    async def _look_at(self, account: str, key_id: str) -> None:
        stored = await self._store.get(account, key_id)
        if stored is None:
            return
        replaced_by = stored.record.replaced_by
        successor = None if replaced_by is None else await self._store.get(account, replaced_by)
        now = self._clock()
        usage = await self._store.usage(account, key_id, now)
        for found in activity.of_key(stored, successor, usage, self.thresholds, now):
            await self._note(account, key_id, found, now)

    async def _look_at_all(self, account: str) -> None:
        keys: list[StoredKey] = []
        after = None
        while len(keys) < _MOST_KEYS:
            page = await self._store.page(account, limit=_PAGE, after=after)
            keys += page
            if len(page) < _PAGE:
                break
            after = page[-1].record.id
        now = self._clock()
        in_use = [key for key in keys if key.last_used_at is not None and now - key.last_used_at < _HABITS_S]
        if len(in_use) < 2:  # one key's habits are the account's
            return
        used = [(key, await self._store.usage(account, key.record.id, now)) for key in in_use]
        for found in activity.of_account(used, self.thresholds):
            await self._note(account, activity.ALL, found, now)

    async def _note(self, account: str, key_id: str, found: Unusual, now: float) -> None:
        if await self._store.note_unusual(account, key_id, found, now):
            self._report.unusual(account, key_id, found)
