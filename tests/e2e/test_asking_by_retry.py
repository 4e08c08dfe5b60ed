"""Clients of 2026-07-28 are told what to ask, and come back with the answer and with what we gave them to carry."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.bed import Bed, tool_call
from tests.e2e.confirming import CLOSED, DROP, NO, UNTICKED, YES, able, retry, text_of
from tests.e2e.conftest import Start, StoreName
from tests.mcp_server import Stream, StubUpstream, reply
from tests.service import until

KEY = "sidecar.confirm"


async def ask(bed: Bed, token: str, message: Any = None) -> dict[str, Any]:
    """Make the call, and return the answer that asks for input."""
    answer = await bed.post(able(DROP) if message is None else message, token=token, era="modern")
    assert answer.status_code == 200, answer.text
    asked: dict[str, Any] = answer.json()
    assert asked["result"]["resultType"] == "input_required"
    assert list(asked["result"]["inputRequests"]) == [KEY]
    return asked


async def test_a_call_is_forwarded_clean_when_it_comes_back_with_a_yes(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store)
    token = bed.token()
    asked = await ask(bed, token)
    assert asked["id"] == 7
    question = asked["result"]["inputRequests"][KEY]
    assert question["method"] == "elicitation/create"
    assert question["params"]["mode"] == "form"
    assert question["params"]["message"] == 'Run "drop" on account "alice"?\n"table": "users"'
    assert stub.received == []
    done = await bed.post(retry(asked), token=token, era="modern")
    assert done.json() == {"jsonrpc": "2.0", "id": 8, "result": {"method": "tools/call"}}
    sent = json.loads(stub.only.body)["params"]
    assert sent.keys() == {"name", "arguments", "_meta"}
    assert sent["arguments"] == {"table": "users"}


@pytest.mark.parametrize("said", [NO, UNTICKED, CLOSED, {}, {"action": "accept"}])
async def test_any_answer_but_yes_is_a_refusal_that_the_model_reads(
    start: Start, stub: StubUpstream, said: dict[str, Any]
) -> None:
    bed = await start()
    token = bed.token()
    refused = await bed.post(retry(await ask(bed, token), said), token=token, era="modern")
    assert refused.json()["result"]["resultType"] == "complete"
    assert "was not run" in text_of(refused.json())
    assert stub.received == []


async def test_an_answer_is_used_once(start: Start, stub: StubUpstream, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    again = retry(await ask(bed, token))
    answers = await asyncio.gather(*(bed.post(again, token=token, era="modern") for _ in range(6)))
    assert sorted("isError" in answer.json()["result"] for answer in answers) == [False, *[True] * 5]
    assert "used before" in text_of((await bed.post(again, token=token, era="modern")).json())
    assert len(stub.received) == 1


async def test_a_no_can_t_be_turned_into_a_yes(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    asked = await ask(bed, token)
    for said in (NO, YES):
        await bed.post(retry(asked, said), token=token, era="modern")
    assert stub.received == []


async def test_an_answer_is_used_once_whichever_replica_it_reaches(start: Start, stub: StubUpstream) -> None:
    one, other = await start("redis"), await start("redis")
    token = one.token()
    again = retry(await ask(one, token))
    answers = [await bed.post(again, token=token, era="modern") for bed in (other, one, other)]
    assert ["isError" in answer.json()["result"] for answer in answers] == [False, True, True]
    assert len(stub.received) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"arguments": {"table": "accounts"}},
        {"arguments": {"table": "users", "cascade": True}},
        {"arguments": {}},
        {"task": {"ttl": 1}},
    ],
)
async def test_an_answer_is_for_the_arguments_that_were_shown(
    start: Start, stub: StubUpstream, changed: dict[str, Any]
) -> None:
    bed = await start()
    token = bed.token()
    other = await bed.post(retry(await ask(bed, token), **changed), token=token, era="modern")
    assert (other.status_code, other.json()["error"]["code"]) == (400, -32602)
    assert stub.received == []


async def test_an_answer_is_for_the_tool_and_the_caller_that_were_asked(start: Start, stub: StubUpstream) -> None:
    bed = await start(access={"tools": {"read": [], "write": [], "destructive": ["drop", "put"]}})
    token = bed.token(client_id="agent")
    asked = await ask(bed, token)
    strangers = (bed.token(client_id="other"), bed.token(sub="mallory", client_id="agent"))
    for message, credential in (
        (retry(asked, message=tool_call("put", id=7, table="users")), token),
        *((retry(asked), stranger) for stranger in strangers),
    ):
        refused = await bed.post(message, token=credential, era="modern")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
    assert stub.received == []


async def test_what_was_carried_can_t_be_changed_or_made_up(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    asked = await ask(bed, token)
    state = asked["result"]["requestState"]
    for forged in (state[:-2] + ("AA" if state[-2:] != "AA" else "BB"), "sc1.", "sc1.AAAA", f"{state}A", "sc1.é"):
        refused = await bed.post(retry(asked, requestState=forged), token=token, era="modern")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
    assert stub.received == []


async def test_an_answer_without_what_was_carried_is_asked_for_again(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    asked = await ask(bed, token)
    for message in (
        able(DROP, inputResponses={KEY: YES}),
        able(DROP, requestState=asked["result"]["requestState"]),
        able(DROP, requestState="theirs", inputResponses={KEY: YES}),
    ):
        await ask(bed, token, message)
    assert stub.received == []


async def test_an_answer_that_comes_too_late_does_not_count(start: Start, stub: StubUpstream) -> None:
    bed = await start(confirmation={"ttl_s": 1})
    token = bed.token()
    asked = await ask(bed, token)
    carries = able(DROP, requestState=asked["result"]["requestState"])

    async def is_over() -> bool:
        return (await bed.post(carries, token=token, era="modern")).status_code == 400

    await until(is_over)
    late = await bed.post(retry(asked), token=token, era="modern")
    assert (late.status_code, late.json()["error"]["code"]) == (400, -32602)
    assert stub.received == []


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"url": {}}}, {"elicitation": []}])
async def test_a_client_that_can_t_ask_is_told_what_it_lacks_and_where_the_call_waits(
    start: Start, stub: StubUpstream, capabilities: dict[str, Any]
) -> None:
    bed = await start()
    refused = await bed.post(able(DROP, capabilities), token=bed.token(), era="modern")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, -32021)
    assert error["data"]["requiredCapabilities"] == {"elicitation": {}}
    assert "/approvals/" in error["data"]["message"]
    assert stub.received == []


@pytest.mark.parametrize("form", ["json", "events"])
async def test_an_upstream_that_asks_itself_is_answered_without_a_second_confirmation(
    start: Start, stub: StubUpstream, form: str
) -> None:
    bed = await start()
    token = bed.token()
    theirs = {"method": "elicitation/create", "params": {"mode": "form", "message": "Which?", "requestedSchema": {}}}
    wants = {"resultType": "input_required", "inputRequests": {"which": theirs}, "requestState": "of the upstream"}
    message = {"jsonrpc": "2.0", "id": 8, "result": wants}
    if form == "json":
        stub.answer = reply(200, message)
    else:
        stream = Stream()
        stub.answer = stream.answer
        stream.send(b"data: " + json.dumps(message).encode() + b"\n\n")
        stream.end()
    answer = await bed.post(retry(await ask(bed, token)), token=token, era="modern")
    wanted = answer.json() if form == "json" else json.loads(answer.text.removeprefix("data: "))
    assert wanted["result"]["inputRequests"] == {"which": theirs}
    assert wanted["result"]["requestState"] != "of the upstream"
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 8, "result": {"done": True}})
    assert (await bed.post(retry(wanted), token=token, era="modern")).json()["result"] == {"done": True}
    sent = json.loads(stub.received[-1].body)["params"]
    assert sent["requestState"] == "of the upstream"
    assert sent["inputResponses"] == {"which": YES}
    assert "used before" in text_of((await bed.post(retry(wanted), token=token, era="modern")).json())
    assert len(stub.received) == 2


async def test_what_an_upstream_asks_of_a_call_that_needs_no_confirmation_is_left_alone(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start()
    wants = {"resultType": "input_required", "inputRequests": {}, "requestState": "theirs"}
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": wants})
    answer = await bed.post(able(tool_call("put")), token=bed.token(), era="modern")
    assert answer.json()["result"] == wants
    again = able(tool_call("put"), requestState="theirs", inputResponses={})
    await bed.post(again, token=bed.token(), era="modern")
    assert json.loads(stub.received[-1].body)["params"]["requestState"] == "theirs"
