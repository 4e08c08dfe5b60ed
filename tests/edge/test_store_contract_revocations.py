from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sidecar.model import Limit
from sidecar.stores import Store
from tests.stores import NOON, ask, ask_with, make_key

LIMIT = Limit("account", 2, 60)


async def test_the_store_answers(store: Store) -> None:
    await store.ping()


async def test_a_token_met_first_is_refused_from_its_revocation_on(store: Store) -> None:
    asked = ask(LIMIT, token_id="t")
    assert await store.meet("t", "acme", NOON + 3600)
    assert (await store.admit(asked)).standing == "good"
    await store.revoke_token("t")
    refused = await store.admit(asked)
    assert (refused.standing, refused.quotas, refused.admitted) == ("revoked", (), False)
    assert not await store.meet("t", "acme", NOON + 3600)


async def test_a_token_revoked_first_is_refused_at_first_sight(store: Store) -> None:
    await store.revoke_token("t")
    assert not await store.meet("t", "acme", NOON + 3600)
    assert not await store.meet("t", "acme", NOON + 3600)


async def test_whether_a_token_is_revoked_can_be_asked_without_meeting_it(store: Store) -> None:
    assert not await store.is_revoked("t1")
    await store.revoke_token("t1")
    assert await store.is_revoked("t1")
    assert not await store.is_revoked("t2")


async def test_whichever_comes_first_a_revoked_token_gets_nowhere(store: Store) -> None:
    tokens = [f"t{i}" for i in range(20)]
    meetings = [store.meet(token, "acme", NOON + 3600) for token in tokens]
    revocations = [store.revoke_token(token) for token in tokens]
    met, _ = await asyncio.gather(asyncio.gather(*meetings), asyncio.gather(*revocations))
    for token, good in zip(tokens, met, strict=True):
        assert not good or (await store.admit(ask(token_id=token))).standing == "revoked"


async def test_one_revoked_token_leaves_the_others_alone(store: Store) -> None:
    for token in ("t", "u"):
        await store.meet(token, "acme", NOON + 3600)
    await store.revoke_token("t")
    assert (await store.admit(ask(token_id="u"))).admitted
    assert (await store.admit(ask())).admitted
    assert await store.meet("u", "acme", NOON + 3600)


async def test_a_token_id_that_two_accounts_share_is_refused_for_both(store: Store) -> None:
    for account in ("acme", "other"):
        await store.meet("t", account, NOON + 3600)
    await store.revoke_token("t")
    for account in ("acme", "other"):
        assert (await store.admit(ask(account=account, token_id="t"))).standing == "revoked"


@pytest.mark.parametrize("expires_at", [0.0, NOON - 60, NOON + 1e12])
async def test_a_token_of_any_expiry_can_be_revoked(store: Store, expires_at: float) -> None:
    """One that expired a moment ago is still honoured for its leeway."""
    await store.meet("t", "acme", expires_at)
    await store.revoke_token("t")
    if expires_at > 0:
        assert (await store.admit(ask(token_id="t"))).standing == "revoked"


async def test_what_was_issued_to_an_account_before_the_moment_is_revoked(store: Store) -> None:
    key = make_key(created_at=NOON - 0.001)
    await store.add(key, max_active=None, now=NOON)
    assert await store.revoked_before("acme") == 0
    await store.revoke_account("acme", NOON)
    assert await store.revoked_before("acme") == NOON
    assert (await store.admit(ask(issued_at=0.0))).standing == "revoked"
    assert (await store.admit(ask(issued_at=NOON - 0.001))).standing == "revoked"
    assert (await store.admit(ask_with(key))).standing == "revoked"
    assert (await store.admit(ask(issued_at=NOON))).standing == "good"
    assert (await store.admit(ask(account="acme2", issued_at=0.0))).standing == "good"


async def test_the_moment_never_moves_back(store: Store) -> None:
    for moment in (NOON, NOON - 100, NOON + 0.5, 5):
        await store.revoke_account("acme", moment)
    assert await store.revoked_before("acme") == NOON + 0.5


async def test_a_key_that_changed_is_handed_back_and_nothing_is_spent(store: Store) -> None:
    key = make_key()
    await store.add(key, max_active=None, now=NOON)
    changed = replace(key, revoked_at=NOON, version=2)
    assert await store.replace(changed)
    verdict = await store.admit(ask_with(key, LIMIT))
    assert (verdict.standing, verdict.key, verdict.quotas) == ("key_changed", changed, ())
    assert (await store.admit(ask_with(changed, LIMIT))).quotas[0].remaining == 1


async def test_a_key_that_is_gone_has_changed(store: Store) -> None:
    verdict = await store.admit(ask_with(make_key()))
    assert (verdict.standing, verdict.key, verdict.admitted) == ("key_changed", None, False)


async def test_a_changed_key_is_told_before_a_revocation_and_a_revocation_before_a_limit(store: Store) -> None:
    key, full = make_key(), Limit("account", 0, 60)
    await store.add(key, max_active=None, now=NOON)
    await store.revoke_account("acme", NOON + 1)
    assert (await store.admit(ask_with(replace(key, version=2), full))).standing == "key_changed"
    assert (await store.admit(ask_with(key, full))).standing == "revoked"


async def test_the_revoked_spend_nothing(store: Store) -> None:
    await store.meet("t", "acme", NOON + 3600)
    await store.revoke_token("t")
    for _ in range(3):
        await store.admit(ask(LIMIT, token_id="t"))
    assert (await store.admit(ask(LIMIT))).quotas[0].remaining == 1


async def test_nothing_has_changed_for_who_begins_to_ask(store: Store) -> None:
    await store.revoke_account("acme", NOON)
    _, changed = await store.changes(None)
    assert changed == frozenset()


async def test_a_change_is_told_of_once_and_again_when_that_is_asked_for(store: Store) -> None:
    """Who made the change can't always know whether it was heard."""
    key = make_key()
    await store.add(key, max_active=None, now=NOON)
    begin, _ = await store.changes(None)
    await store.replace(replace(key, revoked_at=NOON, version=2))
    reached, changed = await store.changes(begin)
    assert changed == frozenset({"acme"})
    reached, changed = await store.changes(reached)
    assert changed == frozenset()
    await store.note_change("acme")
    reached, changed = await store.changes(reached)
    assert changed == frozenset({"acme"})
    assert (await store.changes(reached))[1] == frozenset()


async def test_those_and_only_those_are_told_of_whose_credentials_have_changed(store: Store) -> None:
    """Who has many streams open looks at these accounts' alone. A new key changes nothing for what is running."""
    keys = [make_key(name, name) for name in ("a", "b", "c")]
    for key in keys:
        await store.add(key, max_active=None, now=NOON)
    begin, _ = await store.changes(None)
    await store.add(make_key("d", "d"), max_active=None, now=NOON)
    await store.replace(replace(keys[0], revoked_at=NOON, version=2))
    between, _ = await store.changes(begin)
    await store.replace(replace(keys[1], expires_at=NOON, version=2), successor=make_key("e", "b"))
    await store.revoke_account("f", NOON)
    assert (await store.changes(begin))[1] == frozenset({"a", "b", "f"})
    assert (await store.changes(between))[1] == frozenset({"b", "f"})
    await store.revoke_account("f", NOON + 1)
    await store.replace(replace(keys[0], revoked_at=NOON, version=3))
    assert (await store.changes(between))[1] == frozenset({"a", "b", "f"})


async def test_each_revoked_token_is_told_of(store: Store) -> None:
    """By its account, or, where that is not known, as anybody's."""
    reached, _ = await store.changes(None)
    for token in ("t", "u"):
        await store.meet(token, "acme", NOON + 3600)
        await store.revoke_token(token)
        reached, changed = await store.changes(reached)
        assert changed in (None, frozenset({"acme"}))
        assert (await store.changes(reached))[1] == frozenset()
