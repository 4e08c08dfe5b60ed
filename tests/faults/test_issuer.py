"""The issuer's documents are late, long, wrong or somewhere else: nobody who is known is told to sign in again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest

from sidecar.edge.jwks import freshness
from tests.e2e.bed import Bed, assert_refused, request
from tests.e2e.conftest import Start
from tests.issuer import KEY_SET, OAUTH, OPENID, FailingIssuer, Failure

PATIENCE_S = 15.0
FAILURES: tuple[Failure, ...] = get_args(Failure)
UNUSABLE: dict[str, Any] = {
    "a secret": {"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "made-up"}]},
    "no list": {"keys": {}},
    "no object": [],
    "an error": {"error": "temporarily_unavailable"},
}


class Issuer(FailingIssuer):
    """It may also publish what it should not."""

    def __init__(self) -> None:
        super().__init__()
        self.says: dict[str, Any] = {}

    def documents(self) -> Any:
        return {**super().documents(), **self.says}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for an unknown key again at once."""
    monkeypatch.setattr(freshness, "_COOL_DOWN_S", 0.0)


async def status(bed: Bed, **how: str) -> int:
    return (await bed.post(request("ping"), **how)).status_code  # type: ignore[arg-type]  # a token or a key


async def passes(bed: Bed, token: str) -> None:
    """Wait until a token passes; until then it is our fault or the issuer's, and never its own."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await bed.post(request("ping"), token=token)).status_code != 200:
            assert answer.status_code == 503
            await asyncio.sleep(0.05)


async def judged_without_new_keys(bed: Bed, known: str, new: str, key: str) -> None:
    """Check that who is known passes, and that whose key can't be had is told to come back."""
    async with asyncio.timeout(PATIENCE_S):
        waiting = asyncio.ensure_future(bed.post(request("ping"), token=new))
        known_to_us = [status(bed, token=known) for _ in range(10)] + [status(bed, key=key) for _ in range(10)]
        assert Counter(await asyncio.gather(*known_to_us)) == {200: 20}
        assert_refused(await waiting, 503, "ISSUER_UNAVAILABLE")
        assert await status(bed, token=known) == await status(bed, key=key) == 200


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_key_set_that_fails_later_leaves_the_known_keys_good(
    start: Start, issuer: Issuer, failure: Failure
) -> None:
    bed = await start()
    key, known = await bed.key("mcp:full"), bed.token()
    assert await status(bed, token=known) == 200
    issuer.broken[KEY_SET] = failure
    issuer.rotate()
    await judged_without_new_keys(bed, known, new := bed.token(), key)
    assert issuer.requests["/elsewhere.json"] == 0
    issuer.broken.clear()
    await passes(bed, new)


@pytest.mark.parametrize("said", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_key_set_without_a_usable_key_is_none(start: Start, issuer: Issuer, said: Any) -> None:
    bed = await start()
    key, known = await bed.key("mcp:full"), bed.token()
    assert await status(bed, token=known) == 200
    issuer.says[KEY_SET] = said
    issuer.rotate()
    await judged_without_new_keys(bed, known, new := bed.token(), key)
    issuer.says.clear()
    await passes(bed, new)


async def test_a_key_set_that_has_shrunk_ends_the_tokens_of_the_keys_that_are_gone_and_no_others(
    start: Start, issuer: Issuer
) -> None:
    bed = await start()
    gone = bed.token()
    issuer.rotate()
    kept = bed.token()
    assert await status(bed, token=gone) == await status(bed, token=kept) == 200
    issuer.retire()
    issuer.rotate()
    assert await status(bed, token=bed.token()) == 200, "its key is new here, so the set was fetched again"
    assert await status(bed, token=kept) == 200
    assert await status(bed, token=gone) == 401


async def test_another_key_under_a_known_name_makes_no_token_good_that_the_issuer_did_not_sign(
    start: Start, issuer: Issuer
) -> None:
    bed, other = await start(), Issuer()
    known, other.url = bed.token(), issuer.url
    other.keys[-1].kid = issuer.keys[-1].kid
    forged = bed.secret(other.mint(sub="alice", aud=bed.settings["public_url"] + "/mcp", scope="mcp:full"))
    assert await status(bed, token=known) == 200
    assert await status(bed, token=forged) == 401


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("of", ["metadata", "key set"])
async def test_what_fails_at_the_start_is_asked_again_and_keys_work_meanwhile(
    start: Start, issuer: Issuer, failure: Failure, of: str
) -> None:
    issuer.broken = {KEY_SET: failure} if of == "key set" else {OAUTH: failure, OPENID: failure}
    bed = await start()
    key, token = await bed.key("mcp:full"), bed.token()
    async with asyncio.timeout(PATIENCE_S):
        assert await status(bed, key=key) == 200
        assert_refused(await bed.post(request("ping"), token=token), 503, "ISSUER_UNAVAILABLE")
        assert (await bed.admin.get("/readyz")).json()["checks"]["issuers"] == {issuer.url: "unavailable"}
    issuer.broken.clear()
    await passes(bed, token)
    assert issuer.requests["/elsewhere.json"] == 0
