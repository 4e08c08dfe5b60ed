from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sidecar.records import KeyRecord, StoredKey
from sidecar.stores import Store
from tests.stores import NOON, ask_with, make_key


async def add(store: Store, *keys: KeyRecord) -> None:
    for key in keys:
        assert await store.add(key, max_active=None, now=NOON)


async def names(store: Store, account: str, *, limit: int = 100, after: str | None = None) -> list[str]:
    return [
        key.record.id.removeprefix("key_").lstrip("0") for key in await store.page(account, limit=limit, after=after)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": 'wíth "quotes", \n and \x00', "scopes": (), "created_by": "cli", "origin": "cli"},
        {"revoked_at": NOON, "replaced_by": "key_b", "version": 7, "created_at": 1.000001, "expires_at": 2.5e9 + 0.1},
    ],
)
async def test_a_key_comes_back_as_it_was_put_in(store: Store, changes: dict[str, Any]) -> None:
    key = make_key(**changes)
    await add(store, key)
    assert await store.get("acme", key.id) == StoredKey(key, None)
    assert await store.account_of(key.id) == "acme"


async def test_what_is_not_there_is_not_there(store: Store) -> None:
    await add(store, make_key())
    assert await store.account_of("key_unknown") is None
    assert await store.get("acme", "key_unknown") is None
    assert await store.page("nobody", limit=10, after=None) == []


async def test_a_key_is_reached_only_through_its_account(store: Store) -> None:
    key = make_key()
    await add(store, key, make_key("b", "other"))
    assert await store.get("other", key.id) is None
    assert await names(store, "other") == ["b"]
    assert await store.page("other", limit=10, after=key.id) == []
    assert not await store.replace(replace(key, account="other", name="stolen", version=2))
    assert (await store.admit(ask_with(key, account="other"))).standing == "key_changed"
    assert await store.get("acme", key.id) == StoredKey(key, None)


async def test_an_id_that_is_taken_is_not_added_again(store: Store) -> None:
    key = make_key()
    await add(store, key)
    assert not await store.add(replace(key, name="again"), max_active=None, now=NOON)
    assert not await store.add(replace(key, account="other"), max_active=None, now=NOON)
    assert await store.account_of(key.id) == "acme"
    assert await store.get("acme", key.id) == StoredKey(key, None)


async def test_only_active_keys_count_towards_the_maximum(store: Store) -> None:
    revoked, expired = make_key("b", revoked_at=NOON - 1), make_key("c", expires_at=NOON)
    await add(store, make_key("a"), revoked, expired, make_key("d", "other"))
    assert await store.add(make_key("e"), max_active=2, now=NOON)
    assert not await store.add(make_key("f"), max_active=2, now=NOON)
    assert await store.get("acme", make_key("f").id) is None
    assert await store.replace(replace(make_key("a"), revoked_at=NOON, version=2))
    assert await store.add(make_key("f"), max_active=2, now=NOON)
    assert await store.add(make_key("g"), max_active=2, now=NOON + 86_400)


async def test_ten_at_once_do_not_exceed_the_maximum(store: Store) -> None:
    added = await asyncio.gather(*[store.add(make_key(str(i)), max_active=4, now=NOON) for i in range(10)])
    assert sum(added) == 4


async def test_a_change_must_follow_the_stored_version(store: Store) -> None:
    key = make_key()
    await add(store, key)
    changed = replace(key, name="changed", scopes=("mcp:read",), expires_at=NOON + 5, version=2)
    assert not await store.replace(replace(changed, version=1))
    assert not await store.replace(replace(changed, version=3))
    assert await store.replace(changed)
    assert not await store.replace(replace(changed, name="late"))
    assert await store.get("acme", key.id) == StoredKey(changed, None)


async def test_one_of_two_changes_at_once_wins(store: Store) -> None:
    key = make_key()
    await add(store, key)
    won = await asyncio.gather(*[store.replace(replace(key, name=str(i), version=2)) for i in range(5)])
    stored = await store.get("acme", key.id)
    assert sum(won) == 1
    assert stored is not None
    assert stored.record.name == str(won.index(True))


async def test_an_unknown_key_is_not_changed(store: Store) -> None:
    assert not await store.replace(make_key(version=1))
    assert not await store.replace(make_key(version=2), successor=make_key("b"))
    assert await names(store, "acme") == []


async def test_a_successor_comes_with_the_change_or_not_at_all(store: Store) -> None:
    key, successor = make_key(), make_key("b", created_at=NOON)
    await add(store, key)
    change = replace(key, replaced_by=successor.id, version=2)
    assert not await store.replace(replace(change, version=3), successor=successor)
    assert await store.get("acme", successor.id) is None
    assert await names(store, "acme") == ["a"]
    assert await store.replace(change, successor=successor)
    assert await store.get("acme", successor.id) == StoredKey(successor, None)
    assert await store.account_of(successor.id) == "acme"
    assert await names(store, "acme") == ["b", "a"]
    assert not await store.add(make_key("c"), max_active=2, now=NOON)


async def test_a_successor_that_is_there_already_stops_the_change(store: Store) -> None:
    key, other, foreign = make_key(), make_key("b"), make_key("d", "other")
    await add(store, key, other, foreign)
    assert not await store.replace(replace(key, version=2), successor=replace(other, name="again"))
    assert not await store.replace(replace(key, version=2), successor=make_key("c", id=foreign.id))
    assert await store.get("acme", key.id) == StoredKey(key, None)
    assert await store.get("acme", other.id) == StoredKey(other, None)
    assert await store.get("other", foreign.id) == StoredKey(foreign, None)


async def test_pages_go_from_the_newest_and_equal_times_by_id(store: Store) -> None:
    times = {"a": NOON - 3, "b": NOON - 2, "c": NOON - 2, "d": NOON - 2, "e": NOON - 1.5}
    await add(store, *[make_key(name, created_at=created_at) for name, created_at in times.items()])
    await add(store, make_key("z", "other"))
    assert await names(store, "acme") == ["e", "d", "c", "b", "a"]
    walked, after = list[str](), None
    while page := await store.page("acme", limit=2, after=after):
        walked += [key.record.id for key in page]
        after = walked[-1]
    assert walked == [make_key(name).id for name in ("e", "d", "c", "b", "a")]
    assert await names(store, "acme", after="key_unknown") == []


async def test_accounts_are_walked_each_once(store: Store) -> None:
    accounts = [f"tenant|{i}:x@y.z/+=-" for i in range(30)]
    for i, account in enumerate(accounts):
        await add(store, make_key(f"{i}x", account), make_key(f"{i}y", account))
    assert sorted([account async for account in store.accounts()]) == sorted(accounts)
