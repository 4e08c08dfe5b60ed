"""What waits for a person takes no more time, room or names than its share, whoever makes the calls."""

from __future__ import annotations

import pytest
import redis

from sidecar.policy.confirmation import MOST_WAITING
from tests.e2e.bed import Era, notification, tool_call
from tests.e2e.confirming import DROP, NO, YES, able, answer_to, at, begin, calling, calls, retry, text_of
from tests.e2e.conftest import Start, StoreName
from tests.mcp_server import StubUpstream, reply


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_call_that_nobody_can_judge_is_refused(start: Start, stub: StubUpstream, era: Era) -> None:
    bed = await start()
    big = tool_call("drop", a=[1] * 100_000)

    refused = await bed.post(able(big) if era == "modern" else big, token=bed.token(), era=era)

    assert "32768 bytes" in text_of(refused.json())
    assert bed.accesses()[-1]["reason"] == "too_large"
    assert 'sidecar_confirmations_total{outcome="too_large"} 1.0' in (await bed.admin.get("/metrics")).text
    assert stub.received == []


async def test_what_an_upstream_has_its_client_carry_does_not_make_a_call_too_large(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start()
    token = bed.token()
    message = able(tool_call("drop"), requestState="s" * 100_000, inputResponses={"theirs": {"text": "é" * 1_000}})
    asked = (await bed.post(message, token=token, era="modern")).json()

    await bed.post(retry(asked, YES, tool_call("drop")), token=token, era="modern")

    assert len(calls(stub)) == 1


async def test_a_large_answer_to_a_question_is_none(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        large = {**YES, "content": {"confirm": True, "more": "x" * 65_536}}
        taken = await bed.post(answer_to(await call.message(), large), token=token, headers=at("s-1"))
        assert taken.status_code == 202
        assert "cancelled" in text_of(await call.message())
    assert stub.received == []


@pytest.mark.parametrize("request_id", [{"a": 1}, [7], 7.0, None])
async def test_a_request_id_that_is_none_gives_nothing_up(start: Start, stub: StubUpstream, request_id: object) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        gives_up = {**notification("notifications/cancelled"), "params": {"requestId": request_id}}
        await bed.post(gives_up, token=token, headers=at("s-1"))
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        await call.message()
    assert len(calls(stub)) == 1


async def test_a_credential_has_as_many_calls_held_as_streams(start: Start, stub: StubUpstream) -> None:
    bed = await start(limits={"streams": {"per_credential": 1}})
    token, other = bed.token(), bed.token(sub="bob")
    await begin(bed, stub, token=token)
    await begin(bed, stub, "s-2", token=other)
    for _ in range(2):
        async with calling(bed, token=token) as call, calling(bed, headers=at("s-2"), token=other) as theirs:
            question = await call.message()
            await theirs.message()
            async with calling(bed, {**DROP, "id": 8}, token=token) as more:
                assert more.response.status_code == 429
            stream = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
            assert (await bed.client.get("/mcp", headers=stream)).status_code == 429
            await bed.post(answer_to(question, NO), token=token, headers=at("s-1"))
            assert "declined" in text_of(await call.message())
    assert stub.received == []


async def test_with_limits_in_shadow_mode_calls_are_held_and_it_is_told_that_they_are_too_many(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start(mode={"limits": "shadow"}, limits={"streams": {"per_credential": 1}})
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call, calling(bed, {**DROP, "id": 8}, token=token) as more:
        await call.message()
        await bed.post(answer_to(await more.message(), NO), token=token, headers=at("s-1"))
        assert "declined" in text_of(await more.message())
        await more.ends()
        assert [line["shadow_detail"] for line in bed.accesses() if "shadow" in line] == ["streams"]


async def test_no_more_calls_of_an_account_wait_than_somebody_may_look_at(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store)
    token = bed.token()
    for number in range(MOST_WAITING):
        assert "/approvals/" in text_of((await bed.post(tool_call("drop", n=number), token=token)).json())

    refused = await bed.post(tool_call("drop", n=-1), token=token)

    assert "100 calls of this account wait" in text_of(refused.json())
    assert bed.accesses()[-1]["reason"] == "too_many"
    assert "/approvals/" in text_of((await bed.post(tool_call("drop", n=0), token=token)).json())
    assert "/approvals/" in text_of((await bed.post(tool_call("drop"), token=bed.token(sub="bob"))).json())


async def test_what_a_client_can_ask_is_forgotten_with_its_session(
    start: Start, stub: StubUpstream, redis_url: str
) -> None:
    bed = await start("redis")
    token = bed.token()
    await begin(bed, stub, token=token)
    stub.answer = reply(200)
    headers = [("Authorization", f"Bearer {token}"), *at("s-1")]
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("sidecar:{alice}:session:*")
        assert (await bed.client.delete("/mcp", headers=headers)).status_code == 200
        assert not [name for name in client.keys("sidecar:{alice}:*") if client.ttl(name) > 3600]
        assert not client.keys("sidecar:{alice}:session:*")
