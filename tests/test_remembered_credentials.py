"""What is remembered of a credential proves no more than was proved, and for no longer."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.authenticators import JwtAuthenticator
from sidecar.denials import InvalidApiKey, InvalidToken
from sidecar.model import BearerToken, VerificationKey
from sidecar.policy import apikeys
from tests.keyrings import START, Bench, opened
from tests.test_authenticators import FACTS, ISSUER, POLICY, SECRET, Away, Keys, other_secret, token


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as bench:
        yield bench


class KeySet:
    """One key that can be replaced, and how often it was asked for."""

    def __init__(self) -> None:
        self.key = VerificationKey(None, frozenset({"HS256"}), SECRET)
        self.number = 1
        self.asked = 0

    def generation(self, issuer: str) -> int:
        return self.number

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> VerificationKey | None:
        self.asked += 1
        return self.key

    def replace(self) -> None:
        self.key, self.number = replace(self.key, key=b"another secret of thirty-two bytes or more"), 2


def authenticator(bench: Bench, keys: KeySet) -> JwtAuthenticator:
    return JwtAuthenticator({ISSUER: POLICY}, keys, Away(bench.store), bench.clock, require_store=False)  # type: ignore[arg-type]  # of the store it meets tokens alone


async def test_a_token_is_forgotten_with_the_key_set_that_proved_it(bench: Bench) -> None:
    keys = KeySet()
    tokens = authenticator(bench, keys)
    await tokens.authenticate(token(), FACTS)
    keys.replace()
    with pytest.raises(InvalidToken):
        await tokens.authenticate(token(), FACTS)


async def test_a_remembered_token_expires_to_the_second(bench: Bench) -> None:
    """Also when that is sooner than the store would be asked about it again."""
    tokens = authenticator(bench, KeySet())
    brief = token(exp=int(START) + 10)
    principal = await tokens.authenticate(brief, FACTS)
    bench.clock.now = principal.expires_at - 0.001
    assert await tokens.authenticate(brief, FACTS) is principal
    bench.clock.now = principal.expires_at
    with pytest.raises(InvalidToken) as caught:
        await tokens.authenticate(brief, FACTS)
    assert caught.value.reason == "token_expired"


@pytest.mark.parametrize("algorithm", ["RS256", "none", "HS512"])
async def test_an_algorithm_that_the_issuer_may_not_use_asks_for_no_key(bench: Bench, algorithm: str) -> None:
    """Else a stranger could have the key set fetched."""
    keys = KeySet()
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "new"}).encode()).rstrip(b"=").decode()
    forged = BearerToken(".".join((header, *token().token.split(".")[1:])))
    with pytest.raises(InvalidToken):
        await authenticator(bench, keys).authenticate(forged, FACTS)
    assert keys.asked == 0


async def test_the_right_secret_of_one_key_is_wrong_for_another(bench: Bench) -> None:
    """However the two are remembered: who holds one key must not get into another by its public part."""
    keys = Keys(bench)
    record, key = await keys.make()
    other, other_key = await keys.make()
    assert await keys.check(key.text) == await keys.check(other_key.text) == "acme"
    text = f"mcp_{other.id[4:]}{key.secret}"
    with pytest.raises(InvalidApiKey):
        await keys.check(text + apikeys.checksum(text))
    assert record.id != other.id


async def test_a_secret_is_proved_again_when_the_hash_that_it_matched_was_replaced(bench: Bench) -> None:
    keys = Keys(bench)
    record, key = await keys.make()
    _, other = await keys.make()
    await keys.check(key.text)
    replaced = replace(record, secret_hash=await bench.hasher.hash(other.secret), version=record.version + 1)
    keys.authenticator.judge(replaced)
    with pytest.raises(InvalidApiKey):
        await keys.check(key.text)
    assert keys.hasher.checks == 2


@pytest.mark.parametrize("state", ["good", "revoked", "expired"])
async def test_a_wrong_secret_takes_the_same_path_whatever_became_of_the_key(bench: Bench, state: str) -> None:
    """Else the time that it takes would tell a stranger of which keys something became."""
    keys = Keys(bench)
    record, _ = await keys.make()
    wrong = await other_secret(keys, record)
    if state == "revoked":
        await bench.keyring.revoke("acme", record.id)
    if state == "expired":
        assert record.expires_at is not None
        bench.clock.now = record.expires_at + 1
    with pytest.raises(InvalidApiKey) as caught:
        await keys.check(wrong)
    assert keys.hasher.checks == 1
    assert caught.value.reason == "key_secret"
