"""Looking after keys in use: which are looked at when, and who hears of what is unusual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sidecar.activity import ActivityWatch
from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded import EmbeddedStore
from sidecar.policy.activity import Thresholds
from sidecar.records import KeyRecord, StoredKey, Unusual, Usage
from tests.stores import NOON, FakeClock, ask_with, make_key

DAY = 86_400
THRESHOLDS = Thresholds(unseen_days=60, rise=10, min_requests=20, min_refused=20)
Heard = list[tuple[str, str, str]]


@dataclass
class Bed:
    store: EmbeddedStore
    clock: FakeClock
    heard: Heard = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    """Ids of keys whose usage was read."""

    def __post_init__(self) -> None:
        self.watch = ActivityWatch(self.store, THRESHOLDS, self, self.clock, report_fault=self.faults.append)
        usage = self.store.usage

        async def noted(account: str, key_id: str, now: float, days: int = 30) -> Usage:
            self.read.append(key_id)
            return await usage(account, key_id, now, days)

        self.store.usage = noted  # type: ignore[method-assign]

    def unusual(self, account: str, key_id: str, found: Unusual) -> None:
        self.heard.append((account, key_id, found.kind))

    async def made(
        self, name: str = "a", *, created_at: float = NOON, expires_at: float = NOON + 900 * DAY
    ) -> KeyRecord:
        key = make_key(name, created_at=created_at, expires_at=expires_at)
        await self.store.add(key, max_active=None, now=NOON)
        return key

    async def use(self, key: KeyRecord, times: int = 1, *, is_refused: bool = False) -> None:
        for _ in range(times):
            if is_refused:
                await self.store.count_refusal(key.account, key.id)
            else:
                await self.store.admit(ask_with(key))
            self.watch.counted(key.account, key.id, is_refused)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    clock = FakeClock(NOON + 2 * DAY)
    store = await EmbeddedStore.open(str(tmp_path / "sidecar.db"), clock=clock)
    yield Bed(store, clock)
    await store.aclose()


async def test_a_key_is_looked_at_at_its_first_use_of_the_hour_when_its_count_doubles_and_at_each_threshold(
    bed: Bed,
) -> None:
    key = await bed.made()
    for times, looks in ((1, 1), (14, 0), (1, 1), (3, 0), (1, 1), (11, 0), (1, 1), (0, 0)):
        await bed.use(key, times)
        bed.read.clear()
        await bed.watch.look()
        assert bed.read == [key.id] * looks
    bed.clock.advance(3_600)
    await bed.watch.look()
    await bed.use(key)
    await bed.watch.look()
    assert bed.read == [key.id]


async def test_a_burst_is_told_once_and_kept_for_who_asks(bed: Bed) -> None:
    key = await bed.made()
    await bed.use(key, 32)
    for _ in range(2):
        await bed.watch.look()
        assert bed.heard == [("acme", key.id, "burst")]
        await bed.use(key, 32)
    [found] = (await bed.store.unusual("acme", bed.clock.now))[key.id]
    assert found.reason.startswith("32 requests in the hour from ")


async def test_refusals_are_looked_at_by_themselves(bed: Bed) -> None:
    key = await bed.made()
    await bed.use(key, 32, is_refused=True)
    await bed.watch.look()
    assert bed.heard == [("acme", key.id, "refusals")]


async def test_keys_that_are_quiet_each_are_judged_together(bed: Bed) -> None:
    keys = [await bed.made(name) for name in "ab"]
    for key in keys:
        await bed.use(key, 16)
    await bed.watch.look()
    assert bed.heard == [("acme", "", "burst")]


async def test_the_only_key_in_use_is_not_told_of_twice(bed: Bed) -> None:
    key = await bed.made("a")
    await bed.made("b")
    await bed.use(key, 64)
    await bed.watch.look()
    assert bed.heard == [("acme", key.id, "burst")]


async def test_a_key_that_wakes_is_told_of(bed: Bed) -> None:
    key = await bed.made()
    await bed.use(key)
    bed.clock.advance(60 * DAY)
    await bed.use(key)
    await bed.watch.look()
    assert bed.heard == [("acme", key.id, "unseen")]


async def test_an_ended_key_that_is_presented_is_counted_and_told_of_if_it_was_replaced(bed: Bed) -> None:
    key = make_key("a", expires_at=bed.clock.now - 3_600, replaced_by="key_00000000000b")
    await bed.store.add(key, max_active=None, now=NOON)
    bed.watch.presented(key)
    await bed.watch.look()
    assert bed.heard == [("acme", key.id, "replaced")]
    assert (await bed.store.usage("acme", key.id, bed.clock.now)).hours[-1].refused == 1


async def test_a_store_that_is_away_ends_no_watch(bed: Bed) -> None:
    key = await bed.made()
    await bed.use(key)
    get = bed.store.get

    async def away(account: str, key_id: str) -> None:
        raise StoreUnavailable("store_unavailable")

    bed.store.get = away  # type: ignore[method-assign]
    await bed.watch.look()
    bed.store.get = get  # type: ignore[method-assign]
    await bed.use(key, 31)
    await bed.watch.look()
    assert bed.heard == [("acme", key.id, "burst")]


async def test_what_could_not_be_looked_at_while_the_store_was_away_is_looked_at_when_it_is_back(bed: Bed) -> None:
    key = await bed.made()
    ended = make_key("b", expires_at=bed.clock.now - 3_600, replaced_by="key_00000000000c")
    await bed.store.add(ended, max_active=None, now=NOON)
    await bed.use(key, 32)
    bed.watch.presented(ended)
    note = bed.store.note_unusual

    async def away(*_: object) -> bool:
        raise StoreUnavailable("store_unavailable")

    bed.store.note_unusual = away  # type: ignore[method-assign, assignment]
    for _ in range(3):
        await bed.watch.look()
    assert bed.heard == []
    bed.store.note_unusual = note  # type: ignore[method-assign]
    await bed.watch.look()
    await bed.watch.look()
    assert sorted(bed.heard) == [("acme", key.id, "burst"), ("acme", ended.id, "replaced")]
    assert (await bed.store.usage("acme", ended.id, bed.clock.now)).hours[-1].refused == 1


async def test_a_key_that_can_not_be_read_keeps_no_other_from_being_looked_at(bed: Bed) -> None:
    unreadable, key = await bed.made("a"), await bed.made("b")
    get = bed.store.get

    async def get_some(account: str, key_id: str) -> StoredKey | None:
        if key_id == unreadable.id:
            raise StoreUnavailable("store_unavailable", detail="a stored key record is unreadable")
        return await get(account, key_id)

    bed.store.get = get_some  # type: ignore[method-assign]
    for each in (unreadable, key):
        await bed.use(each, 32)
    await bed.watch.look()
    await bed.watch.look()
    assert ("acme", key.id, "burst") in bed.heard


async def test_a_fault_is_told_of_and_ends_no_watch(bed: Bed) -> None:
    key = await bed.made()
    get = bed.store.get

    async def fault(account: str, key_id: str) -> StoredKey | None:
        raise ZeroDivisionError

    bed.store.get = fault  # type: ignore[method-assign]
    await bed.use(key, 32)
    await bed.watch.look()
    assert [type(told) for told in bed.faults] == [ZeroDivisionError]
    bed.store.get = get  # type: ignore[method-assign]
    await bed.use(key, 32)
    await bed.watch.look()
    assert bed.heard == [("acme", key.id, "burst")]


async def test_a_key_that_was_never_there_is_no_trouble(bed: Bed) -> None:
    bed.watch.counted("acme", "key_00000000000z", False)
    await bed.watch.look()
    assert bed.heard == []


async def test_what_waits_is_bounded(bed: Bed) -> None:
    key = await bed.made()
    for number in range(20_000):
        bed.watch.counted("acme", f"key_{number}", False)
        bed.watch.presented(key)
    assert len(bed.watch._due) == len(bed.watch._presented) == 10_000
