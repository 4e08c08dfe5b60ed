from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sidecar.denials import IssuerUnavailable
from sidecar.edge.jwks import KeySets, KeySource
from sidecar.edge.jwks.freshness import MAX_STALE_S
from tests.edge.key_keeping import Keeper, keeping, kid
from tests.issuer import KEY_SET, OAUTH, OPENID, FailingIssuer, Failure

DISCOVERY = KeySource()


async def test_a_rotated_key_is_fetched_when_first_seen_once_for_all_who_ask(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        issuer.rotate()
        found = await asyncio.gather(*(keeper.keys.find(issuer.url, kid(issuer), "ES256") for _ in range(50)))
        assert all(found)
        assert issuer.requests[KEY_SET] == 2


async def test_a_storm_of_unknown_key_ids_costs_one_fetch_in_ten_seconds(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        for attempt in range(1000):
            assert await keeper.keys.find(issuer.url, f"made up {attempt}", "ES256") is None
        assert issuer.requests[KEY_SET] == 2
        issuer.rotate()
        await keeper.clock.advance(9.9)
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256") is None
        await keeper.clock.advance(0.1)
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")
        assert issuer.requests[KEY_SET] == 3


async def test_a_known_key_asked_for_another_algorithm_fetches_nothing(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        assert await keeper.keys.find(issuer.url, kid(issuer), "HS256") is None
        assert issuer.requests[KEY_SET] == 1


async def test_a_retired_key_stops_working_when_the_set_is_fetched_again(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        old, generation = kid(issuer), keeper.keys.generation(issuer.url)
        issuer.rotate()
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")
        assert await keeper.keys.find(issuer.url, old, "ES256")
        issuer.retire()
        await keeper.clock.advance(240)
        assert await keeper.keys.find(issuer.url, old, "ES256") is None
        assert keeper.keys.generation(issuer.url) == generation + 2


async def test_the_generation_stays_while_the_keys_do(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        assert keeper.keys.generation(issuer.url) == 1
        for _ in range(3):
            await keeper.clock.advance(240)
        assert issuer.requests[KEY_SET] == 4
        assert keeper.keys.generation(issuer.url) == 1
        assert [event for event, _ in keeper.reports] == ["keys_changed"]


@pytest.mark.parametrize("failure", ["html", "500", "hang", "empty", "huge", "redirect", "no_keys", "gzip", "cut"])
async def test_a_fetch_that_fails_never_empties_the_set(issuer: FailingIssuer, failure: Failure) -> None:
    async with keeping(issuer.url, DISCOVERY, timeout_s=0.5) as keeper:
        good, generation = kid(issuer), keeper.keys.generation(issuer.url)
        issuer.broken[KEY_SET] = failure
        await keeper.clock.advance(240)
        assert keeper.reports[-1][0] == "keys_unavailable"
        assert await keeper.keys.find(issuer.url, good, "ES256")
        assert keeper.keys.status() == {issuer.url: "ok"}
        await keeper.clock.advance(60)
        assert keeper.keys.status() == {issuer.url: "stale"}
        assert await keeper.keys.find(issuer.url, good, "ES256")
        with pytest.raises(IssuerUnavailable):  # it may be a new key, which could not be fetched
            await keeper.keys.find(issuer.url, "unknown", "ES256")
        issuer.broken.clear()
        await keeper.clock.advance(60)
        assert keeper.keys.status() == {issuer.url: "ok"}
        assert keeper.keys.generation(issuer.url) == generation
        assert keeper.reports[-1][0] == "keys_recovered"
        assert issuer.requests["/elsewhere.json"] == 0


async def test_a_stopped_issuer_leaves_its_keys_behind(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        await issuer.stop()
        await keeper.clock.advance(240)
        assert keeper.reports[-1][0] == "keys_unavailable"
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")


async def test_failures_are_tried_again_more_and_more_slowly(issuer: FailingIssuer) -> None:
    issuer.broken = {OAUTH: "500", OPENID: "500"}
    async with keeping(issuer.url, DISCOVERY) as keeper:
        for _ in range(8):
            await keeper.clock.advance(keeper.clock.pauses[-1])
        assert keeper.clock.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        issuer.broken.clear()
        await keeper.clock.advance(60)
        assert keeper.clock.pauses[-1] == 240


@pytest.mark.parametrize(("max_age_s", "pause_s"), [(None, 240), (600, 480), (1, 48), (86400, 2880)])
async def test_a_set_is_fetched_again_ahead_of_its_end(
    issuer: FailingIssuer, max_age_s: int | None, pause_s: float
) -> None:
    issuer.max_age_s = max_age_s
    async with keeping(issuer.url, DISCOVERY) as keeper:
        assert keeper.clock.pauses == [pause_s]


async def test_without_a_set_the_issuer_is_unavailable_and_asking_is_cheap(issuer: FailingIssuer) -> None:
    issuer.broken[KEY_SET] = "500"
    async with keeping(issuer.url, DISCOVERY) as keeper:
        for _ in range(100):
            with pytest.raises(IssuerUnavailable) as refused:
                await keeper.keys.find(issuer.url, kid(issuer), "ES256")
            assert refused.value.retry_after_s in (1, 2)
        assert issuer.requests[KEY_SET] == 2
        assert keeper.keys.status() == {issuer.url: "unavailable"}
        assert keeper.keys.generation(issuer.url) == 0


async def test_who_asks_during_the_first_fetch_waits_for_it(issuer: FailingIssuer) -> None:
    issuer.gate = asyncio.Event()
    keeper = Keeper({issuer.url: DISCOVERY}, timeout_s=5)
    await keeper.keys.start()
    asking = [asyncio.create_task(keeper.keys.find(issuer.url, kid(issuer), "ES256")) for _ in range(20)]
    async with asyncio.timeout(5):
        await issuer.asked.wait()
        issuer.gate.set()
        assert all(await asyncio.gather(*asking))
    assert issuer.requests == {OAUTH: 1, KEY_SET: 1}
    await keeper.keys.aclose()


async def test_a_caller_that_leaves_takes_nobody_elses_keys_along(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        issuer.rotate()
        issuer.gate = asyncio.Event()
        issuer.asked.clear()
        leaving, staying = (asyncio.create_task(keeper.keys.find(issuer.url, kid(issuer), "ES256")) for _ in range(2))
        async with asyncio.timeout(5):
            await issuer.asked.wait()
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            issuer.gate.set()
            assert await staying


async def test_closing_ends_a_fetch_under_way(issuer: FailingIssuer) -> None:
    issuer.broken[KEY_SET] = "hang"
    keeper = Keeper({issuer.url: DISCOVERY}, timeout_s=60)
    await keeper.keys.start()
    asking = asyncio.create_task(keeper.keys.find(issuer.url, kid(issuer), "ES256"))
    async with asyncio.timeout(5):
        while not issuer.requests[KEY_SET]:
            issuer.asked.clear()
            await issuer.asked.wait()
        await keeper.keys.aclose()
        with pytest.raises(IssuerUnavailable):
            await asking
        with pytest.raises(IssuerUnavailable):
            await keeper.keys.find(issuer.url, kid(issuer), "ES256")


WEAK = {"kty": "oct", "k": "AAAA"}
LEFT_OUT = "keys[1]: carries a private or shared key, which is no secret any more"


async def test_keys_left_out_are_reported_when_that_changes_and_not_each_time(
    issuer: FailingIssuer, tmp_path: Path
) -> None:
    path = tmp_path / "jwks.json"
    [good] = issuer.documents()[KEY_SET]["keys"]
    async with keeping("https://idp.example", KeySource(file=str(path))) as keeper:
        for keys in ([good], [good, WEAK], [good, WEAK], [good, WEAK, good], [good]):
            path.write_text(json.dumps({"keys": keys}))
            await keeper.clock.advance(10)
        assert keeper.reports[1:] == [
            ("keys_changed", "1 usable"),
            ("keys_left_out", LEFT_OUT),
            (
                "keys_unavailable",
                f"no usable key; {LEFT_OUT}; kid {good['kid']!r}: on several keys; keys of 10 s ago stay in use",
            ),
            ("keys_recovered", "after 1 failed fetches"),
            ("keys_left_out", "none any more"),
        ]


async def test_of_very_many_keys_left_out_a_few_are_named(issuer: FailingIssuer, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [*issuer.documents()[KEY_SET]["keys"], *[WEAK] * 9000]}))
    async with keeping("https://idp.example", KeySource(file=str(path))) as keeper:
        assert [event for event, _ in keeper.reports] == ["keys_changed", "keys_left_out"]
        assert keeper.reports[1][1].endswith("; and 8995 more")
        assert len(keeper.reports[1][1]) < 500


async def test_a_failed_fetch_tells_how_old_the_keys_in_use_are(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        issuer.broken[KEY_SET] = "500"
        await keeper.clock.advance(240)
        assert keeper.reports[-1][1].endswith("answered 500; keys of 240 s ago stay in use")
        await keeper.clock.advance(3600)
        assert keeper.reports[-1][1].endswith("answered 500; keys of 3840 s ago stay in use")
    async with keeping(issuer.url, DISCOVERY) as keeper:
        assert keeper.reports[-1][1].endswith("answered 500")


async def test_a_set_that_can_not_be_fetched_for_a_day_is_given_up_and_comes_back(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        generation = keeper.keys.generation(issuer.url)
        issuer.broken[KEY_SET] = "500"
        await keeper.clock.advance(MAX_STALE_S)
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")
        for _ in range(10):
            await keeper.clock.advance(60)
        with pytest.raises(IssuerUnavailable):
            await keeper.keys.find(issuer.url, kid(issuer), "ES256")
        assert keeper.keys.generation(issuer.url) == generation + 1
        assert keeper.keys.status() == {issuer.url: "unavailable"}
        assert [event for event, _ in keeper.reports].count("keys_given_up") == 1
        issuer.broken.clear()
        await keeper.clock.advance(60)
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")


async def test_those_who_watch_are_told_how_old_a_set_is_and_for_how_long_it_has_outlived_its_lifetime(
    issuer: FailingIssuer,
) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        fresh = keeper.keys.states()[issuer.url]
        assert (fresh.keys, fresh.age_s, fresh.stale_s) == (1, 0.0, 0.0)
        assert (fresh.fetches, fresh.failed_fetches) == (1, 0)
        await issuer.stop()
        await keeper.clock.advance(100_000)
        old = keeper.keys.states()[issuer.url]
        assert (old.fetches, old.age_s) == (1, 100_000)
        assert old.failed_fetches >= 1
        assert 0 < old.stale_s < 100_000


async def test_of_a_shared_secret_nothing_is_told_and_of_a_set_never_fetched_no_age(issuer: FailingIssuer) -> None:
    secret = KeySets({"https://a.example": KeySource(secret=b"s" * 32)}, report=lambda *_: None)
    assert secret.states() == {}
    await issuer.stop()
    async with keeping(issuer.url, DISCOVERY) as keeper:
        never = keeper.keys.states()[issuer.url]
        assert (never.keys, never.age_s, never.stale_s, never.fetches, never.failed_fetches) == (0, None, 0.0, 0, 1)


async def test_other_sources_are_fetched_before_they_hold_and_what_has_not_changed_keeps_its_keys(
    issuer: FailingIssuer, tmp_path: Path
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(issuer.documents()[KEY_SET]))
    async with keeping(issuer.url, DISCOVERY) as keeper:
        await keeper.keys.use({issuer.url: DISCOVERY, "https://other.example": KeySource(file=str(file))})
        assert issuer.requests[KEY_SET] == 1
        for name in (issuer.url, "https://other.example"):
            assert await keeper.keys.find(name, kid(issuer), "ES256")
        assert keeper.keys.status() == {issuer.url: "ok", "https://other.example": "ok"}
        issuer.rotate()
        await keeper.keys.use({issuer.url: KeySource(url=f"{issuer.url}{KEY_SET}")})
        assert keeper.keys.status() == {issuer.url: "ok"}
        assert issuer.requests[KEY_SET] == 2
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")
        assert await keeper.keys.find("https://other.example", kid(issuer), "ES256") is None


async def test_who_waits_for_a_fetch_from_a_source_that_is_given_up_hears_its_outcome(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        issuer.rotate()
        issuer.gate = asyncio.Event()
        issuer.asked.clear()
        asking = asyncio.create_task(keeper.keys.find(issuer.url, kid(issuer), "ES256"))
        await issuer.asked.wait()
        changing = asyncio.create_task(keeper.keys.use({}))
        await asyncio.sleep(0)
        issuer.gate.set()
        assert await asking
        await changing
        assert keeper.keys.status() == {}


async def test_a_new_source_that_does_not_answer_is_taken_up_and_asked_again(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY, timeout_s=0.1) as keeper:
        await keeper.keys.use({issuer.url: DISCOVERY, "http://127.0.0.1:9": KeySource(url="http://127.0.0.1:9/jwks")})
        assert keeper.keys.status() == {issuer.url: "ok", "http://127.0.0.1:9": "unavailable"}
