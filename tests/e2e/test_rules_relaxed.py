"""The rules may have changed since a person was asked: their word counts, and what is ours never goes further."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.confirming import CLOSED, DROP, NO, YES, able, answer_to, at, begin, calling, calls, retry, text_of
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream, reply

RELAXED: list[dict[str, Any]] = [
    {"mode": {"confirmation": "shadow"}},
    {"access": {"tools": {"read": [], "write": ["drop"], "destructive": []}}},
    {"confirmation": {"tools": "never"}},
]
WANTS = {"resultType": "input_required", "inputRequests": {"which": {"method": "elicitation/create", "params": {}}}}


@pytest.mark.parametrize("settings", RELAXED)
async def test_a_no_is_a_no_whatever_the_rule_is_by_now(
    start: Start, stub: StubUpstream, settings: dict[str, Any]
) -> None:
    one, other = await start("redis"), await start("redis", **settings)
    token = one.token()
    for said in (NO, CLOSED):
        asked = (await one.post(able(DROP), token=token, era="modern")).json()
        refused = await other.post(retry(asked, said), token=token, era="modern")
        assert "was not run" in text_of(refused.json())
    assert calls(stub) == []


@pytest.mark.parametrize("settings", RELAXED)
async def test_what_is_ours_never_reaches_the_upstream(
    start: Start, stub: StubUpstream, settings: dict[str, Any]
) -> None:
    one, other = await start("redis"), await start("redis", **settings)
    token = one.token()
    asked = (await one.post(able(DROP), token=token, era="modern")).json()
    await other.post(able(DROP, requestState=asked["result"]["requestState"]), token=token, era="modern")
    await other.post(retry(asked), token=token, era="modern")
    assert len(calls(stub)) == 2
    for got in calls(stub):
        assert json.loads(got.body)["params"].keys() == {"name", "arguments", "_meta"}


async def test_what_nobody_has_confirmed_is_not_confirmed_because_the_rule_was_relaxed_in_between(
    start: Start, stub: StubUpstream
) -> None:
    one, other = await start("redis"), await start("redis", confirmation={"tools": "never"})
    token = one.token()
    asked = (await one.post(able(DROP), token=token, era="modern")).json()
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 7, "result": {**WANTS, "requestState": "theirs"}})
    carries = able(DROP, requestState=asked["result"]["requestState"])
    wanted = (await other.post(carries, token=token, era="modern")).json()
    assert wanted["result"]["requestState"] == "theirs"


async def test_a_state_of_a_sidecar_behind_passes_where_nothing_has_to_be_confirmed(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start(confirmation={"tools": "never"})
    carries = able(DROP, requestState="sc1.of-the-inner-one", inputResponses={"sidecar.confirm": NO})
    await bed.post(carries, token=bed.token(), era="modern")
    sent = json.loads(stub.only.body)["params"]
    assert (sent["requestState"], sent["inputResponses"]) == ("sc1.of-the-inner-one", {"sidecar.confirm": NO})


@pytest.mark.parametrize("settings", RELAXED[::2])
@pytest.mark.parametrize(("said", "count"), [(YES, 1), (NO, 0)])
async def test_an_answer_is_taken_and_not_passed_on_while_the_rules_change(
    start: Start, stub: StubUpstream, settings: dict[str, Any], said: dict[str, Any], count: int
) -> None:
    one, other = await start("redis"), await start("redis", **settings)
    token = one.token()
    await begin(one, stub, token=token)
    async with calling(one, token=token) as call:
        question = await call.message()
        await other.post(answer_to(question, said), token=token, headers=at("s-1"))
        await call.message()
    assert [json.loads(got.body)["method"] for got in stub.received] == ["tools/call"] * count


async def test_a_client_s_own_word_ends_with_another_approver(start: Start, stub: StubUpstream) -> None:
    one, other = await start("redis"), await start("redis", confirmation={"approver": "other"})
    token = one.token()
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 8, "result": {**WANTS, "requestState": "theirs"}})
    asked = (await one.post(able(DROP), token=token, era="modern")).json()
    yes = await other.post(retry(asked), token=token, era="modern")
    assert "/approvals/" in text_of(yes.json())
    wanted = (await one.post(retry(asked), token=token, era="modern")).json()
    stub.received.clear()
    for again in (retry(wanted), retry(wanted)):
        waits = await other.post(again, token=token, era="modern")
        assert "/approvals/" in text_of(waits.json())
    asked = (await one.post(able(DROP), token=token, era="modern")).json()
    no = await other.post(retry(asked, NO), token=token, era="modern")
    assert "declined" in text_of(no.json())
    assert calls(stub) == []


async def test_what_somebody_else_approved_stays_approved_when_the_upstream_asks_for_more(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start(confirmation={"approver": "other"}, key_page={"client_id": "page"})
    token = bed.token(client_id="agent")
    waits = text_of((await bed.post(able(DROP), token=token, era="modern")).json())
    page = bed.token("openid", client_id="page")
    await bed.rest("POST", f"/api/approvals/{waits.partition('/approvals/')[2][:32]}/approve", page)
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 7, "result": {**WANTS, "requestState": "theirs"}})
    wanted = (await bed.post(able(DROP), token=token, era="modern")).json()
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 8, "result": {"done": True}})
    assert (await bed.post(retry(wanted), token=token, era="modern")).json()["result"] == {"done": True}
    assert json.loads(stub.received[-1].body)["params"]["requestState"] == "theirs"


async def test_a_sidecar_behind_a_sidecar_can_be_answered(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    theirs = {"sidecar.confirm": {"method": "elicitation/create", "params": {}}}
    wants = {"resultType": "input_required", "inputRequests": theirs, "requestState": "sc1.of-the-inner-one"}
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 8, "result": wants})
    asked = (await bed.post(able(DROP), token=token, era="modern")).json()
    wanted = (await bed.post(retry(asked), token=token, era="modern")).json()
    await bed.post(retry(wanted), token=token, era="modern")
    sent = json.loads(stub.received[-1].body)["params"]
    assert sent["requestState"] == "sc1.of-the-inner-one"
    assert sent["inputResponses"] == {"sidecar.confirm": YES}
