from __future__ import annotations

import pytest

from sidecar.model import Limit
from sidecar.records import KeyRecord, Usage, UsageCount
from sidecar.stores import Store
from tests.stores import NOON, FakeClock, ask_with, make_key

HOUR = 3_600
DAY = 86_400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON + 30 * 60)


@pytest.fixture
async def key(store: Store) -> KeyRecord:
    key = make_key(expires_at=NOON + 90 * DAY)
    await store.add(key, max_active=None, now=NOON)
    return key


Counted = list[tuple[int, int, int, int]]


def not_zero(counts: tuple[UsageCount, ...]) -> Counted:
    rows = [(i - len(counts) + 1, count.requests, count.refused, count.writes) for i, count in enumerate(counts)]
    return [row for row in rows if row[1:] != (0, 0, 0)]


def counted(usage: Usage) -> tuple[Counted, Counted]:
    """Give what is not zero by hour and by day: how long ago, requests, refused, writes."""
    return not_zero(usage.hours), not_zero(usage.days)


async def test_an_unused_key_has_zeros_for_48_hours_and_30_days(store: Store, key: KeyRecord) -> None:
    usage = await store.usage("acme", key.id, NOON + 30 * 60)
    assert [count.start for count in usage.hours] == [int(NOON) + i * HOUR for i in range(-47, 1)]
    assert [count.start for count in usage.days] == [int(NOON) - DAY // 2 + i * DAY for i in range(-29, 1)]
    assert counted(usage) == ([], [])


async def test_requests_writes_and_refusals_are_counted(store: Store, key: KeyRecord, clock: FakeClock) -> None:
    limit = Limit("account", 3, 60)
    for write in (True, False, True, True, False):
        await store.admit(ask_with(key, limit, write=write))
    await store.count_refusal("acme", key.id)
    assert counted(await store.usage("acme", key.id, clock.now)) == ([(0, 3, 3, 2)], [(0, 3, 3, 2)])


async def test_a_refusal_may_be_the_first_thing_counted(store: Store, key: KeyRecord, clock: FakeClock) -> None:
    await store.count_refusal("acme", key.id)
    assert counted(await store.usage("acme", key.id, clock.now)) == ([(0, 0, 1, 0)], [(0, 0, 1, 0)])
    stored = await store.get("acme", key.id)
    assert stored is not None
    assert stored.last_used_at is None


async def test_the_hours_and_days_roll_over(store: Store, key: KeyRecord, clock: FakeClock) -> None:
    for step in (0, HOUR, 10 * HOUR + 30 * 60, 0, 36 * HOUR, 28 * DAY):  # 12:30, 13:30, midnight, again, noon, later
        clock.advance(step)
        await store.admit(ask_with(key))
        await store.count_refusal("acme", key.id)
    midnight = NOON + DAY // 2
    assert counted(await store.usage("acme", key.id, midnight)) == (
        [(-12, 1, 1, 0), (-11, 1, 1, 0), (0, 2, 2, 0)],
        [(-1, 2, 2, 0), (0, 2, 2, 0)],
    )
    assert counted(await store.usage("acme", key.id, midnight + 36 * HOUR)) == (
        [(-47, 1, 1, 0), (-36, 2, 2, 0), (0, 1, 1, 0)],
        [(-2, 2, 2, 0), (-1, 2, 2, 0), (0, 1, 1, 0)],
    )
    assert counted(await store.usage("acme", key.id, clock.now)) == (
        [(0, 1, 1, 0)],
        [(-29, 2, 2, 0), (-28, 1, 1, 0), (0, 1, 1, 0)],
    )


async def test_usage_is_seen_only_through_the_account(store: Store, key: KeyRecord, clock: FakeClock) -> None:
    await store.admit(ask_with(key))
    assert counted(await store.usage("other", key.id, clock.now)) == ([], [])


async def test_the_last_use_is_that_of_an_admitted_request(store: Store, key: KeyRecord, clock: FakeClock) -> None:
    limit = Limit("account", 1, 60)
    used_at = clock.now
    await store.admit(ask_with(key, limit))
    clock.advance(1)
    assert not (await store.admit(ask_with(key, limit))).admitted
    await store.count_refusal("acme", key.id)
    stored = await store.get("acme", key.id)
    assert stored is not None
    assert stored.last_used_at == used_at
    assert await store.page("acme", limit=10, after=None) == [stored]


async def test_a_refusal_for_another_reason_than_a_limit_is_not_counted(
    store: Store, key: KeyRecord, clock: FakeClock
) -> None:
    await store.admit(ask_with(key, key_version=9))
    await store.revoke_account("acme", NOON)
    await store.admit(ask_with(key))
    assert counted(await store.usage("acme", key.id, clock.now)) == ([], [])
