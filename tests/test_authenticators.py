"""What is remembered of credentials, and what is asked again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jwt
import pytest

from sidecar.authenticators import ApiKeyAuthenticator, FailedAttempts, JwtAuthenticator
from sidecar.denials import InvalidApiKey, InvalidToken, RateLimited, StoreUnavailable
from sidecar.edge.jwks import KeySets, KeySource
from sidecar.model import BearerToken, Limit, PresentedKey, Quota
from sidecar.policy import apikeys
from sidecar.policy.claims import IssuerPolicy
from sidecar.records import ApiKey, KeyRecord
from sidecar.stores import Store
from tests.keyrings import START, Bench, opened
from tests.policy.facts import facts

ISSUER = "https://idp.example"
SECRET = b"a shared secret of thirty-two bytes or more"
POLICY = IssuerPolicy(ISSUER, ("me",), ("HS256",), leeway_s=0)
FACTS = facts()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as bench:
        yield bench


class Away:
    """A store's revocations, which can be away, and which count how often a token was met."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.away = False
        self.meetings = 0

    async def meet(self, token_id: str, account: str, expires_at: float) -> bool:
        if self.away:
            raise StoreUnavailable("store_unavailable")
        self.meetings += 1
        return bool(await self._store.meet(token_id, account, expires_at))


def token(**claims: Any) -> BearerToken:
    good = {"iss": ISSUER, "aud": "me", "sub": "alice", "iat": int(START), "exp": int(START) + 600, "jti": "t"}
    present = {name: value for name, value in (good | claims).items() if value is not None}
    return BearerToken(jwt.encode(present, SECRET, "HS256"))


def tokens(bench: Bench, store: Any, *, require_store: bool = False) -> JwtAuthenticator:
    keys = KeySets({ISSUER: KeySource(secret=SECRET)}, report=lambda *_: None)
    return JwtAuthenticator({ISSUER: POLICY}, keys, store, bench.clock, require_store=require_store)


async def test_a_verified_token_is_remembered_until_it_expires(bench: Bench) -> None:
    store = Away(bench.store)
    authenticator = tokens(bench, store)
    first = await authenticator.authenticate(token(), FACTS)

    assert await authenticator.authenticate(token(), FACTS) is first
    assert store.meetings == 1
    bench.clock.now = first.expires_at
    with pytest.raises(InvalidToken):
        await authenticator.authenticate(token(), FACTS)


async def test_a_token_of_another_issuer_is_refused_and_told_beside_the_right_one(bench: Bench) -> None:
    with pytest.raises(InvalidToken) as refused:
        await tokens(bench, bench.store).authenticate(token(iss=f"{ISSUER}/"), FACTS)
    assert refused.value.reason == "token_issuer"
    assert refused.value.detail == f"iss is '{ISSUER}/', and must be '{ISSUER}', character by character"


async def test_the_store_is_told_again_of_each_token_in_case_it_lost_what_it_knew(bench: Bench) -> None:
    store = Away(bench.store)
    authenticator = tokens(bench, store)
    principal = await authenticator.authenticate(token(), FACTS)
    assert principal.token_id is not None
    await bench.store.revoke_token(principal.token_id)

    bench.clock.now += 60
    with pytest.raises(InvalidToken):
        await authenticator.authenticate(token(), FACTS)


async def test_what_the_store_refused_is_not_looked_at_again(bench: Bench) -> None:
    store = Away(bench.store)
    authenticator = tokens(bench, store)
    await authenticator.authenticate(token(), FACTS)
    authenticator.revoked(token())

    with pytest.raises(InvalidToken):
        await authenticator.authenticate(token(), FACTS)
    assert store.meetings == 1
    assert await authenticator.authenticate(token(jti="u"), FACTS)


async def test_while_the_store_is_away_a_proved_token_passes_unless_the_store_is_required(bench: Bench) -> None:
    store = Away(bench.store)
    store.away = True

    assert await tokens(bench, store).authenticate(token(), FACTS)
    with pytest.raises(StoreUnavailable):
        await tokens(bench, store, require_store=True).authenticate(token(), FACTS)


async def test_a_token_that_passed_unmet_is_met_as_soon_as_the_store_is_back(bench: Bench) -> None:
    store = Away(bench.store)
    authenticator = tokens(bench, store)
    store.away = True
    principal = await authenticator.authenticate(token(), FACTS)
    assert principal.token_id is not None
    await bench.store.revoke_token(principal.token_id)
    store.away = False

    with pytest.raises(InvalidToken):
        await authenticator.authenticate(token(), FACTS)


async def test_a_token_without_an_id_needs_no_meeting(bench: Bench) -> None:
    store = Away(bench.store)
    store.away = True

    assert await tokens(bench, store, require_store=True).authenticate(token(jti=None), FACTS)


@pytest.mark.parametrize("claims", [{"iss": "https://other.example"}, {"aud": "other"}, {"exp": 1}])
async def test_what_does_not_verify_is_nobody(bench: Bench, claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        await tokens(bench, Away(bench.store)).authenticate(token(**claims), FACTS)


class CountingHasher:
    """Bcrypt that counts, and waits while told to."""

    def __init__(self, bench: Bench) -> None:
        self._hasher = bench.hasher
        self.checks = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def hash(self, secret: str) -> str:
        return await self._hasher.hash(secret)

    async def verify(self, secret: str, secret_hash: str) -> bool:
        self.checks += 1
        await self.gate.wait()
        return await self._hasher.verify(secret, secret_hash)


class Counter:
    """A store's counts of failures, which can be away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False

    async def peek(self, address: str, limit: Limit) -> Quota:
        return await self._asked().peek(address, limit)

    async def record(self, address: str, limit: Limit) -> Quota:
        return await self._asked().record(address, limit)

    def _asked(self) -> Store:
        if self.away:
            raise StoreUnavailable("store_unavailable")
        return self._store


class Keys:
    """An authenticator of API keys on a real store and real bcrypt."""

    def __init__(self, bench: Bench, failures: int = 100) -> None:
        self.bench = bench
        self.hasher = CountingHasher(bench)
        limit = Limit("failed_auth", failures, 60, per="address")
        self.counter = Counter(bench.store)
        self.reports: list[StoreUnavailable | None] = []
        self.attempts = FailedAttempts(self.counter, limit, bench.clock, report=self.reports.append)
        self.authenticator = ApiKeyAuthenticator(
            bench.store, self.hasher, self.attempts, clock=bench.clock, process_secret=os.urandom(32)
        )

    async def make(self) -> tuple[KeyRecord, ApiKey]:
        return await self.bench.keyring.create("acme", "k", created_by="cli", origin="cli", granted=None)

    async def check(self, text: str, client: str = "192.0.2.1") -> str:
        principal = await self.authenticator.authenticate(PresentedKey(text), replace(FACTS, client=client))
        return principal.account


async def other_secret(keys: Keys, record: KeyRecord) -> str:
    """Return a well-formed key with this record's lookup id and the secret of another."""
    _, other = await keys.make()
    text = f"mcp_{record.id[4:]}{other.secret}"
    return text + apikeys.checksum(text)


async def test_a_secret_is_proved_by_bcrypt_once_in_a_while(bench: Bench) -> None:
    keys = Keys(bench)
    _, key = await keys.make()

    assert [await keys.check(key.text) for _ in range(3)] == ["acme"] * 3
    assert keys.hasher.checks == 1
    bench.clock.now += 600
    assert await keys.check(key.text) == "acme"
    assert keys.hasher.checks == 2


async def test_while_the_store_is_away_a_secret_that_was_proved_is_not_proved_again(bench: Bench) -> None:
    """How long its key passes then is decided elsewhere; a grace longer than our memory must not end with it."""
    keys = Keys(bench)
    record, key = await keys.make()
    await keys.check(key.text)
    bench.clock.now += 601
    keys.counter.away = True

    assert await keys.check(key.text) == "acme"
    with pytest.raises(StoreUnavailable):
        await keys.check(await other_secret(keys, record))
    assert keys.hasher.checks == 1
    keys.counter.away = False
    assert await keys.check(key.text) == "acme"
    assert keys.hasher.checks == 2


async def test_a_failure_that_could_not_be_counted_is_reported(bench: Bench) -> None:
    keys = Keys(bench)
    await keys.attempts.count("192.0.2.1")
    keys.counter.away = True
    await keys.attempts.count("192.0.2.1")

    assert [type(report) for report in keys.reports] == [StoreUnavailable]


async def test_those_who_present_the_same_secret_at_once_share_one_check(bench: Bench) -> None:
    keys = Keys(bench)
    _, key = await keys.make()
    keys.hasher.gate.clear()
    waiting = [asyncio.ensure_future(keys.check(key.text)) for _ in range(10)]
    async with asyncio.timeout(5):
        while not keys.hasher.checks:  # noqa: ASYNC110 - the store answers on a thread of its own
            await asyncio.sleep(0.001)
        keys.hasher.gate.set()
        assert await asyncio.gather(*waiting) == ["acme"] * 10

    assert keys.hasher.checks == 1


async def test_another_secret_for_the_same_key_is_never_taken_for_the_right_one(bench: Bench) -> None:
    keys = Keys(bench)
    record, key = await keys.make()
    wrong = await other_secret(keys, record)

    assert await keys.check(key.text) == "acme"
    for _ in range(2):
        with pytest.raises(InvalidApiKey):
            await keys.check(wrong)
    assert keys.hasher.checks == 3


async def test_what_is_malformed_or_unknown_never_reaches_bcrypt(bench: Bench) -> None:
    keys = Keys(bench)
    _, key = await keys.make()
    stranger = apikeys.mint(os.urandom(apikeys.ENTROPY_BYTES))
    for text in ("", "mcp_", key.text[:-1] + ("0" if key.text[-1] != "0" else "1"), stranger.text):
        with pytest.raises(InvalidApiKey):
            await keys.check(text)

    assert keys.hasher.checks == 0


async def test_what_is_malformed_never_reaches_the_store(bench: Bench) -> None:
    """Its checksum tells, which needs nobody: a flood of made-up keys is no flood of questions."""
    key = apikeys.mint(os.urandom(apikeys.ENTROPY_BYTES))
    keys = Keys(replace(bench, store=cast(Any, None)))
    for text in ("", "mcp_", key.text[:-1] + ("0" if key.text[-1] != "0" else "1"), key.text + "0"):
        with pytest.raises(InvalidApiKey):
            await keys.check(text)


async def test_a_known_secret_opens_nothing_once_the_record_is_revoked(bench: Bench) -> None:
    keys = Keys(bench)
    record, key = await keys.make()
    await keys.check(key.text)
    await bench.keyring.revoke("acme", record.id)
    changed = (await bench.keyring.get("acme", record.id)).record

    with pytest.raises(InvalidApiKey):
        keys.authenticator.judge(changed)
    with pytest.raises(InvalidApiKey):  # and from now on without the store
        await keys.check(key.text)
    with pytest.raises(InvalidApiKey):
        keys.authenticator.judge(None)


async def test_checks_under_way_count_against_the_room_for_failures(bench: Bench) -> None:
    """Else all that start before the first one fails get through to bcrypt."""
    keys = Keys(bench, failures=2)
    record, key = await keys.make()
    wrong = [await other_secret(keys, record) for _ in range(6)]
    keys.hasher.gate.clear()
    waiting = [asyncio.ensure_future(keys.check(text)) for text in wrong]
    async with asyncio.timeout(5):
        while sum(future.done() for future in waiting) < 4:  # noqa: ASYNC110 - the store answers on its thread
            await asyncio.sleep(0.001)
        keys.hasher.gate.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)

    assert keys.hasher.checks <= 2
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["InvalidApiKey"] * 2 + ["RateLimited"] * 4
    assert await keys.check(key.text, client="192.0.2.2") == "acme"


async def test_an_address_that_has_used_up_its_failures_is_not_refused_what_is_known(bench: Bench) -> None:
    keys = Keys(bench, failures=1)
    record, key = await keys.make()
    await keys.check(key.text)
    await keys.attempts.count("192.0.2.1")

    assert await keys.check(key.text) == "acme"
    with pytest.raises(RateLimited):
        await keys.check(await other_secret(keys, record))
