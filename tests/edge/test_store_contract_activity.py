"""What every store remembers of the silence of keys, and of what was unusual about them."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.policy.activity import KEEP_S
from sidecar.records import KeyRecord, StoredKey, Unusual
from sidecar.stores import Store
from tests.stores import NOON, FakeClock, ask_with, make_key

DAY = 86_400
BURST = Unusual("burst", NOON, "500 requests: really")
REFUSALS = Unusual("refusals", NOON, "50 refused")


@pytest.fixture
async def key(store: Store) -> KeyRecord:
    key = make_key(expires_at=NOON + 900 * DAY)
    await store.add(key, max_active=None, now=NOON)
    return key


async def test_the_end_of_a_silence_is_remembered_until_the_next_one(
    store: Store, key: KeyRecord, clock: FakeClock
) -> None:
    assert await store.get("acme", key.id) == StoredKey(key, None)
    first = clock.now
    await store.admit(ask_with(key))
    assert await store.get("acme", key.id) == StoredKey(key, first, first, None)
    clock.advance(DAY - 1)
    await store.admit(ask_with(key))
    assert await store.get("acme", key.id) == StoredKey(key, clock.now, first, None)
    clock.advance(61 * DAY)
    await store.admit(ask_with(key))
    back = clock.now
    assert await store.get("acme", key.id) == StoredKey(key, back, back, 61 * DAY)
    clock.advance(5)
    await store.admit(ask_with(key))
    assert await store.page("acme", limit=10, after=None) == [StoredKey(key, back + 5, back, 61 * DAY)]


async def test_a_refused_request_ends_no_silence(store: Store, key: KeyRecord) -> None:
    await store.count_refusal("acme", key.id)
    assert await store.get("acme", key.id) == StoredKey(key, None)


async def test_what_is_unusual_is_remembered_by_key_for_a_week(store: Store) -> None:
    assert await store.unusual("acme", NOON) == {}
    for key_id, found in (("key_a", REFUSALS), ("key_a", BURST), ("", BURST)):
        assert await store.note_unusual("acme", key_id, found, NOON + 60)
    assert await store.unusual("acme", NOON + 60) == {"key_a": (REFUSALS, BURST), "": (BURST,)}
    assert await store.unusual("other", NOON + 60) == {}
    assert await store.unusual("acme", NOON + 59 + KEEP_S) == {"key_a": (REFUSALS, BURST), "": (BURST,)}
    assert await store.unusual("acme", NOON + 60 + KEEP_S) == {}


async def test_it_is_news_once_in_a_day(store: Store) -> None:
    assert await store.note_unusual("acme", "key_a", BURST, NOON)
    for hours in (0, 1, 23):
        again = Unusual("burst", NOON + hours * 3_600, "again")
        assert not await store.note_unusual("acme", "key_a", again, NOON + DAY)
    assert await store.unusual("acme", NOON + DAY) == {"key_a": (BURST,)}
    tomorrow = Unusual("burst", NOON + DAY, "tomorrow")
    assert await store.note_unusual("acme", "key_a", tomorrow, NOON + DAY)
    assert await store.unusual("acme", NOON + DAY) == {"key_a": (tomorrow,)}


async def test_what_lasts_is_news_again_when_it_was_forgotten(store: Store) -> None:
    assert await store.note_unusual("acme", "key_a", BURST, NOON)
    assert not await store.note_unusual("acme", "key_a", BURST, NOON + KEEP_S - 1)
    assert await store.note_unusual("acme", "key_a", BURST, NOON + KEEP_S)


async def test_of_many_that_find_the_same_at_once_one_has_news(store: Store) -> None:
    news = await asyncio.gather(*[store.note_unusual("acme", "key_a", BURST, NOON) for _ in range(10)])
    assert sum(news) == 1
