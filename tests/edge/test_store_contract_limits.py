from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.edge.embedded import EmbeddedStore
from sidecar.model import Handle, Limit
from sidecar.stores import Store
from tests.stores import FakeClock, ask, ask_with, make_key, opened

ACCOUNT = Limit("account", 3, 60)
BURST = Limit("burst", 2, 1, per="credential")
names = count()


@pytest.fixture
async def both(tmp_path: Path, clock: FakeClock) -> AsyncIterator[tuple[Store, Store]]:
    async with opened("embedded", tmp_path, clock) as embedded, opened("redis", tmp_path, clock) as redis:
        yield embedded, redis


async def test_a_request_without_limits_is_admitted(store: Store, clock: FakeClock) -> None:
    verdict = await store.admit(ask())
    assert verdict.admitted
    assert (verdict.quotas, verdict.now) == ((), clock.now)


async def test_limits_are_judged_together_and_answered_in_order(store: Store, clock: FakeClock) -> None:
    for _ in range(2):
        assert (await store.admit(ask(ACCOUNT, BURST))).admitted
    refused = await store.admit(ask(ACCOUNT, BURST))
    assert not refused.admitted
    assert [(q.limit, q.remaining, q.reset_s, q.retry_s) for q in refused.quotas] == [
        (ACCOUNT, 1, 60.0, 0.0),
        (BURST, 0, 1.0, 1.0),
    ]
    clock.advance(1)
    admitted = await store.admit(ask(ACCOUNT, BURST))
    assert [(q.remaining, q.reset_s, q.retry_s) for q in admitted.quotas] == [(0, 59.0, 0.0), (1, 1.0, 0.0)]


async def test_an_account_limit_is_shared_and_a_credential_limit_is_not(store: Store) -> None:
    for credential in ("one", "one", "two"):
        assert (await store.admit(ask(ACCOUNT, BURST, credential_id=credential))).admitted
    quotas = (await store.admit(ask(ACCOUNT, BURST, credential_id="two"))).quotas
    assert [(q.remaining, q.retry_s > 0) for q in quotas] == [(0, True), (1, False)]


async def test_accounts_share_no_limit(store: Store) -> None:
    for _ in range(3):
        await store.admit(ask(ACCOUNT))
    assert (await store.admit(ask(ACCOUNT, account="acme2"))).quotas[0].remaining == 2


async def test_two_hundred_at_once_get_exactly_fifty_in(store: Store) -> None:
    limit = Limit("account", 50, 60)
    verdicts = await asyncio.gather(*[store.admit(ask(limit)) for _ in range(200)])
    assert sum(verdict.admitted for verdict in verdicts) == 50
    assert sorted(v.quotas[0].remaining for v in verdicts if v.admitted) == list(range(50))


async def test_a_failure_is_counted_when_recorded_and_not_when_looked_at(store: Store, clock: FakeClock) -> None:
    limit = Limit("failed_auth", 2, 60, per="address")
    assert [(await store.peek("192.0.2.1", limit)).remaining for _ in range(3)] == [2, 2, 2]
    assert [(await store.record("192.0.2.1", limit)).retry_s for _ in range(3)] == [0, 0, 60]
    assert (await store.peek("192.0.2.1", limit)).retry_s == 60
    assert (await store.peek("2001:db8::/64", limit)).retry_s == 0
    clock.advance(60)
    assert (await store.peek("192.0.2.1", limit)).remaining == 2


async def test_a_failure_window_survives_a_clock_set_back(store: Store, clock: FakeClock) -> None:
    """Looking and refusing spend nothing, and time passes for the log all the same."""
    limit = Limit("failed_auth", 1, 60, per="address")
    await store.record("192.0.2.1", limit)
    clock.advance(-3600)
    assert (await store.peek("192.0.2.1", limit)).retry_s == 60
    clock.advance(59)
    assert (await store.record("192.0.2.1", limit)).retry_s == 1
    clock.advance(1)
    assert (await store.record("192.0.2.1", limit)).retry_s == 0


async def test_a_full_limit_survives_a_clock_set_back(store: Store, clock: FakeClock) -> None:
    for _ in range(3):
        await store.admit(ask(ACCOUNT))
    clock.advance(-3600)
    for _ in range(4):
        assert not (await store.admit(ask(ACCOUNT))).admitted
        clock.advance(15)
    assert (await store.admit(ask(ACCOUNT))).admitted


steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.000001, 0.01, 0.099, 0.1, 0.5, 1.0, 3.3, 10.0, -0.2, -7.0]),
        st.sampled_from(["one", "two"]),
        st.integers(1, 7),
    ),
    max_size=60,
)


@given(sizes=st.tuples(*[st.sampled_from([1, 2, 4, 20, 128, 129, 200])] * 3), steps=steps, lowered=st.integers(0, 60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_both_stores_give_the_same_verdicts_hit_by_hit(
    both: tuple[Store, Store],
    clock: FakeClock,
    sizes: tuple[int, int, int],
    steps: list[tuple[float, str, int]],
    lowered: int,
) -> None:
    """Several limits at once, exact and quantised, a limit that changes on the way, a clock that jumps."""
    account = f"same-{next(names)}"
    for credential in ("one", "two"):  # all logs are there from the start, so that none is swept at its own moment
        first = (Limit("account", 9, 10), Limit("burst", 9, 1, per="credential"), Limit("writes", 9, 3))
        for store in both:
            assert (await store.admit(ask(*first, account=account, credential_id=credential))).admitted
    for i, (step_s, credential, burst) in enumerate(steps):
        clock.advance(step_s)
        per_account = Limit("account", sizes[0] if i < lowered else max(1, sizes[0] // 2), 10)
        limits = (per_account, Limit("burst", sizes[1], 1, per="credential"), Limit("writes", sizes[2], 3))
        for _ in range(burst):
            asked = ask(*limits, account=account, credential_id=credential)
            verdicts = [await store.admit(asked) for store in both]
            assert verdicts[0] == verdicts[1]


@given(
    requests=st.sampled_from([1, 3, 10, 129]),
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.013, 0.4, 2.0, 9.9, 10.0]), st.integers(1, 30)), max_size=20),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_window_holds_more_than_its_limit_and_refusals_spend_nothing(
    store: Store, clock: FakeClock, requests: int, steps: list[tuple[float, int]]
) -> None:
    """Against a model: the plain list of what was admitted."""
    account, admitted = f"model-{next(names)}", list[float]()
    always_full = Limit("full", 0, 10)
    for step_s, hits in steps:
        clock.advance(step_s)
        for _ in range(hits):
            await store.admit(ask(Limit("account", requests, 10), always_full, account=account))
            verdict = await store.admit(ask(Limit("account", requests, 10), account=account))
            spent = sum(clock.now - hit < 10 - 1e-6 for hit in admitted)
            if verdict.admitted:
                admitted.append(clock.now)
                assert spent < requests
            elif requests <= 128:
                assert spent == requests


async def test_a_limit_that_only_watches_counts_and_keeps_nothing_from_being_done(
    store: Store, clock: FakeClock
) -> None:
    key = make_key()
    await store.add(key, max_active=None, now=clock.now)
    session = Handle("session", "s", "o", 60.0)
    await store.bind(key.account, session, clock.now)
    limit = Limit("account", 1, 3600)
    asked = ask_with(key, limit, how="shadow", handles=(session,), write=True)
    exceeded = []
    for _ in range(3):
        exceeded.append(not (await store.admit(asked)).admitted)
        clock.advance(50)  # the session lives on by being used
    assert exceeded == [False, True, True]
    today = (await store.usage(key.account, key.id, clock.now)).days[-1]
    assert (today.requests, today.writes, today.refused) == (3, 3, 0)
    found = await store.get(key.account, key.id)
    assert found is not None
    assert found.last_used_at == clock.now - 50
    clock.advance(3600 - 150)
    assert (await store.admit(ask(limit))).admitted, "what was over the limit spent nothing"


async def test_a_look_at_the_limits_tells_how_they_stand_and_changes_nothing(store: Store, clock: FakeClock) -> None:
    key = make_key()
    await store.add(key, max_active=None, now=clock.now)
    session = Handle("session", "s", "o", 60.0)
    await store.bind(key.account, session, clock.now)
    asked = ask_with(key, ACCOUNT, BURST, handles=(session,))
    look = replace(asked, how="peek")
    assert [(q.remaining, q.retry_s) for _ in range(4) for q in (await store.admit(look)).quotas] == [
        (3, 0),
        (2, 0),
    ] * 4
    for _ in range(2):
        await store.admit(asked)
    assert [(q.remaining, q.retry_s) for q in (await store.admit(look)).quotas] == [(1, 0), (0, 1)]
    assert not (await store.admit(look)).admitted
    used = (await store.usage(key.account, key.id, clock.now)).days[-1]
    assert (used.requests, used.refused) == (2, 0)
    if isinstance(store, EmbeddedStore):  # Redis lets handles go by its own clock
        clock.advance(59)
        await store.admit(look)
        clock.advance(2)
        assert (await store.admit(look)).standing == "handle_unknown", "looking is no use"
    assert (await store.admit(replace(look, key_version=9, handles=()))).standing == "key_changed"
