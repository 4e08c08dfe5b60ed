"""What every store keeps of the upstream's tools: all of a change or none, and whose versions nobody can mix up."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import RedisStore
from sidecar.records import Pin, Pinned, Sighting
from sidecar.stores import Store
from tests.stores import NOON, redis_client

SIGHTING = Sighting("d" * 64, "read", '{"description":"\\u202eä","name":"a"}')


def pin(name: str, *, approved: Sighting | None = SIGHTING, seen: Sighting | None = SIGHTING) -> Pin:
    if approved is None:
        return Pin(name, None, None, None, seen, NOON + 0.25)
    return Pin(name, approved, NOON, "first_use", seen, NOON + 0.25)


async def put(store: Store, version: int, *pins: Pin, upstream: str = "u", is_complete: bool = True) -> int | None:
    return await store.change_pins(upstream, version, [(each.name, each) for each in pins], is_complete=is_complete)


async def test_of_an_upstream_that_nobody_met_nothing_is_kept(store: Store) -> None:
    assert await store.pinned("u") == Pinned(0, False, {})
    assert await store.pins_version("u") == 0


async def test_pins_are_read_back_as_they_were_put(store: Store) -> None:
    pins = [pin("a"), pin("ä {b} * version"), pin("version", approved=None), pin("gone", seen=None)]
    assert await put(store, 0, *pins, is_complete=False) == 1
    assert await store.pinned("u") == Pinned(1, False, {each.name: each for each in pins})
    assert await put(store, 1) == 2
    assert await store.pinned("u") == Pinned(2, True, {each.name: each for each in pins})
    assert await store.pins_version("u") == 2


async def test_a_pin_is_replaced_and_dropped(store: Store) -> None:
    await put(store, 0, pin("a"), pin("b"))
    assert await store.change_pins("u", 1, [("a", pin("a", seen=None)), ("b", None)], is_complete=True) == 2
    assert (await store.pinned("u")).pins == {"a": pin("a", seen=None)}


async def test_a_change_of_what_was_changed_meanwhile_changes_nothing(store: Store) -> None:
    await put(store, 0, pin("a"))
    assert await put(store, 0, pin("b")) is None
    assert await put(store, 7, pin("b")) is None
    assert await store.pinned("u") == Pinned(1, True, {"a": pin("a")})


async def test_of_many_changes_at_once_one_is_made(store: Store) -> None:
    versions = await asyncio.gather(*[put(store, 0, pin(f"t{i}")) for i in range(10)])
    assert sorted(map(str, versions)) == ["1"] + ["None"] * 9
    assert len((await store.pinned("u")).pins) == 1


async def test_upstreams_have_pins_of_their_own(store: Store) -> None:
    await put(store, 0, pin("a"))
    await put(store, 0, pin("b"), upstream="other")
    assert set((await store.pinned("u")).pins) == {"a"}
    assert set((await store.pinned("other")).pins) == {"b"}


async def test_thousands_of_pins_are_read_back(store: Store) -> None:
    long = Sighting("e" * 64, None, "x" * 2_000)
    version = 0
    for begin in range(0, 2_000, 50):
        version = await put(store, version, *[pin(f"t{i}", seen=long) for i in range(begin, begin + 50)]) or -1
    assert len((await store.pinned("u")).pins) == 2_000
    assert version == await store.pins_version("u") == 40


@pytest.mark.parametrize("text", [b"{}", b"\xff", b"nothing"])
async def test_a_pin_that_nobody_can_read_is_no_permission(text: bytes, redis_url: str) -> None:
    store = RedisStore.from_url(redis_url, timeout_s=5)
    await put(store, 0, pin("a"))
    async with redis_client(redis_url) as client:
        await client.hset("sidecar:{upstream u}:pins", "pin:a", text)
    with pytest.raises(StoreUnavailable):
        await store.pinned("u")
    await store.aclose()
