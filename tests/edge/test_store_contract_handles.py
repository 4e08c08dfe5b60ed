"""Sessions and tasks work for whom they were given to: one suite over both stores."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from sidecar.edge.embedded import EmbeddedStore
from sidecar.model import Handle, Limit
from sidecar.stores import Store
from tests.stores import NOON, PATIENT_S, FakeClock, ask, opened

LIMIT = Limit("account", 2, 60)
SESSION = Handle("session", "s-1", "jwt jwt:1", 3600)
TASK = Handle("task", "s-1", "jwt jwt:1", 3600)


async def is_known(store: Store, *handles: Handle, account: str = "acme") -> bool:
    verdict = await store.admit(ask(account=account, handles=handles))
    assert (verdict.standing == "handle_unknown") == (verdict.unknown is not None)
    return verdict.standing == "good"


async def test_a_session_is_known_to_its_owner_alone(store: Store) -> None:
    await store.bind("acme", SESSION, NOON)
    assert await is_known(store, SESSION)
    assert not await is_known(store, replace(SESSION, owner="jwt jwt:2"))
    assert not await is_known(store, replace(SESSION, owner="api_key jwt:1"))
    assert not await is_known(store, replace(SESSION, id="s-2"))
    assert not await is_known(store, SESSION, account="other")


async def test_a_task_is_not_a_session_of_the_same_id(store: Store) -> None:
    await store.bind("acme", SESSION, NOON)
    assert not await is_known(store, TASK)
    await store.bind("acme", TASK, NOON)
    verdict = await store.admit(ask(handles=(SESSION, replace(TASK, id="other"))))
    assert verdict.unknown == replace(TASK, id="other")
    assert await is_known(store, SESSION, TASK)


async def test_an_unknown_session_spends_nothing(store: Store) -> None:
    refused = await store.admit(ask(LIMIT, handles=(SESSION,)))
    assert (refused.admitted, refused.quotas) == (False, ())
    assert [quota.remaining for quota in (await store.admit(ask(LIMIT))).quotas] == [1]


async def test_a_released_session_is_unknown_and_nobody_else_can_release_it(store: Store) -> None:
    await store.bind("acme", SESSION, NOON)
    await store.release("acme", replace(SESSION, owner="jwt jwt:2"))
    await store.release("other", SESSION)
    assert await is_known(store, SESSION)
    await store.release("acme", SESSION)
    assert not await is_known(store, SESSION)
    await store.release("acme", SESSION)


async def test_an_id_that_is_given_out_again_belongs_to_the_last(store: Store) -> None:
    await store.bind("acme", SESSION, NOON)
    await store.bind("acme", replace(SESSION, owner="jwt jwt:2"), NOON)
    assert not await is_known(store, SESSION)
    assert await is_known(store, replace(SESSION, owner="jwt jwt:2"))


async def test_what_was_begun_before_the_account_was_revoked_is_unknown(store: Store) -> None:
    await store.bind("acme", SESSION, NOON)
    await store.revoke_account("acme", NOON + 1)
    assert (await store.admit(ask(handles=(SESSION,), issued_at=NOON + 2))).standing == "handle_unknown"
    await store.bind("acme", SESSION, NOON + 3)
    assert (await store.admit(ask(handles=(SESSION,), issued_at=NOON + 2))).standing == "good"


async def test_ids_may_be_any_text(store: Store) -> None:
    for text in ("{}", "a b", "é", "x" * 5000, "s-1}:key"):
        handle = replace(SESSION, id=text)
        await store.bind("acme", handle, NOON)
        assert await is_known(store, handle)


async def test_of_many_those_of_one_owner_are_found(store: Store) -> None:
    for task_id, owner in (("a", "me"), ("b", "you"), ("c", "me")):
        await store.bind("acme", Handle("task", task_id, owner, 60), NOON)
    assert await store.owned("acme", "me", "task", ["a", "b", "c", "d"]) == {"a", "c"}
    assert await store.owned("other", "me", "task", ["a"]) == frozenset()
    assert await store.owned("acme", "me", "task", []) == frozenset()
    assert await store.owned("acme", "me", "task", [f"x{n}" for n in range(1234)] + ["c"]) == {"c"}


async def elicits(store: Store, owner: str = SESSION.owner, session_id: str = SESSION.id) -> bool:
    return await store.elicits("acme", owner, session_id)


async def test_whether_a_sessions_client_can_ask_a_person_is_known_for_as_long_as_the_session(store: Store) -> None:
    await store.bind("acme", replace(SESSION, elicits=True), NOON)
    await store.bind("acme", replace(SESSION, id="s-2"), NOON)
    assert await is_known(store, SESSION)

    assert await elicits(store)
    assert not await elicits(store, owner="jwt jwt:2")
    assert not await elicits(store, session_id="s-2")
    assert not await store.elicits("other", SESSION.owner, SESSION.id)

    await store.release("acme", SESSION)
    assert not await elicits(store)


async def test_a_session_that_can_ask_a_person_ends_with_the_accounts_revocation_too(store: Store) -> None:
    await store.bind("acme", replace(SESSION, elicits=True), NOON)
    await store.revoke_account("acme", NOON + 1)
    assert not await is_known(store, SESSION)


async def test_of_an_id_that_is_given_out_again_the_last_client_counts(store: Store) -> None:
    await store.bind("acme", replace(SESSION, elicits=True), NOON)
    await store.bind("acme", SESSION, NOON)
    assert not await elicits(store)


async def test_embedded_sessions_idle_out_and_every_use_puts_that_off(tmp_path: Path, clock: FakeClock) -> None:
    """On Redis the same is a key's own expiry, by Redis's clock."""
    async with opened("embedded", tmp_path, clock) as store:
        await store.bind("acme", replace(SESSION, elicits=True), clock.now)
        for _ in range(3):
            clock.now += 3599
            assert await is_known(store, SESSION)
            assert await elicits(store)
        clock.now += 3600
        assert not await elicits(store)
        assert not await is_known(store, SESSION)


async def test_embedded_sessions_survive_a_restart_with_their_last_use(tmp_path: Path, clock: FakeClock) -> None:
    path = str(tmp_path / "sidecar.db")
    store = await EmbeddedStore.open(path, clock=clock)
    await store.bind("acme", replace(SESSION, elicits=True), clock.now)
    clock.now += 3000
    assert await is_known(store, SESSION)
    await store.aclose()
    clock.now += 3000
    again = await EmbeddedStore.open(path, clock=clock)
    assert await elicits(again)
    assert await is_known(again, SESSION)
    await again.aclose()


async def test_redis_forgets_an_idle_session_by_its_own_expiry(tmp_path: Path, clock: FakeClock) -> None:
    brief = replace(SESSION, idle_s=0.02)
    async with opened("redis", tmp_path, clock) as store:
        await store.bind("acme", brief, NOON)
        async with asyncio.timeout(PATIENT_S):
            while await store.owned("acme", brief.owner, "session", [brief.id]):  # noqa: ASYNC110 - Redis's time passes
                await asyncio.sleep(0.005)
        assert not await is_known(store, brief)
