"""Clients of 2025-06-18 and 2025-11-25 are asked on the answer of the call itself, and answer with a POST of theirs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, notification, request, tool_call
from tests.e2e.confirming import CLOSED, DROP, NO, UNTICKED, YES, answer_to, at, begin, calling, calls, text_of
from tests.e2e.conftest import Start, StoreName
from tests.mcp_server import Stream, StubUpstream, reply
from tests.service import until

QUICK = {"hold_s": 1}
KEYS_ASK = [
    {"path": JWT_ROUTE, "credentials": ["jwt"]},
    {"path": KEY_ROUTE, "credentials": ["api_key"], "confirmation": "declared"},
]


async def test_a_call_is_forwarded_once_after_the_person_said_yes(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store)
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        assert call.response.status_code == 200
        assert call.response.headers["content-type"] == "text/event-stream"
        assert call.response.headers["x-accel-buffering"] == "no"
        question = await call.message()
        assert question["method"] == "elicitation/create"
        assert question["params"]["mode"] == "form"
        assert question["params"]["message"] == 'Run "drop" on account "alice"?\n"table": "users"'
        assert question["params"]["requestedSchema"]["required"] == ["confirm"]
        assert stub.received == []
        taken = await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert (taken.status_code, taken.content) == (202, b"")
        assert await call.message() == {"jsonrpc": "2.0", "id": 7, "result": {"method": "tools/call"}}
        await call.ends()
    assert json.loads(stub.only.body) == DROP
    assert stub.only.values("Mcp-Session-Id") == ["s-1"]


async def test_the_form_has_no_mode_before_2025_11_25(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, version="2025-06-18", token=token)
    async with calling(bed, headers=at("s-1", "2025-06-18"), token=token) as call:
        assert "mode" not in (await call.message())["params"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (NO, "declined"),
        (UNTICKED, "declined"),
        (CLOSED, "cancelled"),
        ({}, "cancelled"),
        ({"action": "yes"}, "cancelled"),
    ],
)
async def test_any_answer_but_yes_is_a_refusal_that_the_model_reads(
    start: Start, stub: StubUpstream, result: dict[str, Any], said: str
) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        assert (await bed.post(answer_to(question, result), token=token, headers=at("s-1"))).status_code == 202
        refusal = await call.message()
        assert refusal["id"] == 7
        assert said in text_of(refusal)
        await call.ends()
    assert stub.received == []
    line = bed.accesses()[-1]
    assert (line["outcome"], line["reason"], line["status"]) == ("confirmation_required", said, 200)


async def test_a_client_that_answers_with_an_error_is_one_that_can_t_ask(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        error = {"jsonrpc": "2.0", "id": question["id"], "error": {"code": -32601, "message": "Method not found"}}
        assert (await bed.post(error, token=token, headers=at("s-1"))).status_code == 202
        assert "cancelled" in text_of(await call.message())
    assert stub.received == []


async def test_a_person_who_says_nothing_has_not_agreed(start: Start, stub: StubUpstream, store: StoreName) -> None:
    bed = await start(store, confirmation=QUICK)
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        assert "within 1 seconds" in text_of(await call.message())
        await call.ends()
    late = await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
    assert (late.status_code, stub.received) == (202, [])


async def test_a_client_that_has_left_gets_nothing_done(start: Start, stub: StubUpstream, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()

    async def is_over() -> bool:
        return any(line.get("method") == "tools/call" for line in bed.accesses())

    await until(is_over)
    assert (await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))).status_code == 202
    assert stub.received == []
    assert next(line for line in bed.accesses() if line["method"] == "tools/call")["outcome"] == "client_closed"


async def test_a_cancelled_call_is_never_forwarded(start: Start, stub: StubUpstream, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    await begin(bed, stub, token=token)
    gives_up = {**notification("notifications/cancelled"), "params": {"requestId": 7, "reason": "timeout"}}
    async with calling(bed, token=token) as call:
        question = await call.message()
        assert (await bed.post(gives_up, token=token, headers=at("s-1"))).status_code == 202
        assert "cancelled" in text_of(await call.message())
        assert (await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))).status_code == 202
    assert stub.received == []


async def test_a_call_that_its_own_cancellation_has_overtaken_is_not_asked_about(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store)
    token = bed.token()
    await begin(bed, stub, token=token)
    gives_up = {**notification("notifications/cancelled"), "params": {"requestId": 7}}
    for count in (1, 2):
        await bed.post(gives_up, token=token, headers=at("s-1"))
        assert len(stub.received) == count, "it may be of a call that the upstream has"
    assert "cancelled" in text_of((await bed.post(DROP, token=token, headers=at("s-1"))).json())
    async with calling(bed, {**DROP, "id": 8}, token=token) as other:
        assert (await other.message())["method"] == "elicitation/create"
    assert calls(stub) == []


async def test_an_id_may_be_used_again_after_its_call_was_declined(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    for said in (NO, YES):
        async with calling(bed, token=token) as call:
            question = await call.message()
            await bed.post(answer_to(question, said), token=token, headers=at("s-1"))
            await call.message()
    assert len(calls(stub)) == 1


async def test_only_the_caller_s_own_cancellation_counts(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token, other = bed.token(), bed.token(sub="mallory")
    await begin(bed, stub, token=token)
    await begin(bed, stub, "s-2", token=other)
    gives_up = {**notification("notifications/cancelled"), "params": {"requestId": 7}}
    as_text = {**notification("notifications/cancelled"), "params": {"requestId": "7"}}
    async with calling(bed, token=token) as call:
        question = await call.message()
        await bed.post(gives_up, token=other, headers=at("s-2"))
        await bed.post(as_text, token=token, headers=at("s-1"))
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert (await call.message())["result"] == {"method": "tools/call"}
    assert len(calls(stub)) == 1
    assert len(stub.received) == 3, "what is about no call of ours is the upstream's"


async def test_only_who_was_asked_may_answer_and_only_in_the_same_session(start: Start, stub: StubUpstream) -> None:
    bed = await start(confirmation=QUICK)
    token = bed.token(client_id="agent")
    others = {"s-2": token, "s-3": bed.token(client_id="other"), "s-4": bed.token(sub="mallory", client_id="agent")}
    await begin(bed, stub, token=token)
    for session_id, credential in others.items():
        await begin(bed, stub, session_id, token=credential)
    async with calling(bed, token=token) as call:
        question = await call.message()
        for session_id, credential in others.items():
            await bed.post(answer_to(question, YES), token=credential, headers=at(session_id))
        for credential in (others["s-3"], others["s-4"]):
            stolen = await bed.post(answer_to(question, YES), token=credential, headers=at("s-1"))
            assert stolen.status_code == 404
        await bed.post(answer_to(question, YES), token=token)
        await call.message()
    assert calls(stub) == []


async def test_what_is_no_answer_of_ours_is_forwarded(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        for other in (0, "0", "sc-", question["id"].upper(), "sc-" + "0" * 32):
            await bed.post(answer_to({"id": other}, YES), token=token, headers=at("s-1"))
    assert [json.loads(one.body)["id"] for one in stub.received] == [
        0,
        "0",
        "sc-",
        question["id"].upper(),
        "sc-" + "0" * 32,
    ]


async def test_two_answers_that_race_let_one_call_pass(start: Start, stub: StubUpstream, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        await asyncio.gather(
            *(bed.post(answer_to(question, YES), token=token, headers=at("s-1")) for _ in range(8)),
        )
        await call.message()
        await call.ends()
    assert len(stub.received) == 1


async def test_the_first_answer_is_the_one_that_counts(start: Start, stub: StubUpstream, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        for said in (NO, YES):
            await bed.post(answer_to(question, said), token=token, headers=at("s-1"))
        assert "declined" in text_of(await call.message())
    assert stub.received == []


async def test_an_answer_may_reach_another_replica(start: Start, stub: StubUpstream) -> None:
    one, other = await start("redis"), await start("redis")
    token = one.token()
    await begin(one, stub, token=token)
    for said, forwarded in ((YES, 1), (NO, 1)):
        async with calling(one, token=token) as call:
            question = await call.message()
            assert (await other.post(answer_to(question, said), token=token, headers=at("s-1"))).status_code == 202
            await call.message()
        assert len(stub.received) == forwarded


async def test_a_cancellation_may_reach_another_replica(start: Start, stub: StubUpstream) -> None:
    one, other = await start("redis"), await start("redis")
    token = one.token()
    await begin(one, stub, token=token)
    gives_up = {**notification("notifications/cancelled"), "params": {"requestId": 7}}
    async with calling(one, token=token) as call:
        await call.message()
        await other.post(gives_up, token=token, headers=at("s-1"))
        assert "cancelled" in text_of(await call.message())
    assert stub.received == []


@pytest.mark.parametrize(
    ("version", "capabilities", "accept"),
    [
        ("2025-03-26", None, "application/json, text/event-stream"),
        ("2025-11-25", {}, "application/json, text/event-stream"),
        ("2025-11-25", {"elicitation": {"url": {}}}, "application/json, text/event-stream"),
        ("2025-11-25", {"elicitation": True}, "application/json, text/event-stream"),
        ("2025-11-25", None, "application/json"),
    ],
)
async def test_who_can_t_be_asked_is_told_where_the_call_waits(
    start: Start, stub: StubUpstream, version: str, capabilities: dict[str, Any] | None, accept: str
) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, version=version, capabilities=capabilities, token=token)
    lines = [("Accept", accept), ("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]
    body = json.dumps(DROP).encode()
    answer = await bed.client.post("/mcp", content=body, headers=[*lines, *at("s-1", version)])
    assert answer.status_code == 200
    assert "/approvals/" in text_of(answer.json())
    assert stub.received == []


async def test_a_server_without_sessions_has_its_clients_wait_for_an_approval(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    answer = await bed.post(DROP, token=bed.token(), headers=(("MCP-Protocol-Version", "2025-11-25"),))
    assert "/approvals/" in text_of(answer.json())
    assert stub.received == []


@pytest.mark.parametrize("method", ["tools/list", "resources/read", "prompts/get", "ping"])
async def test_nothing_but_calls_of_tools_waits(start: Start, stub: StubUpstream, method: str) -> None:
    bed = await start(confirmation={"tools": "writes"})
    token = bed.token()
    await begin(bed, stub, token=token)
    for message in (request(method, {"uri": "x:y", "name": "p"}), tool_call("look"), notification("notifications/x")):
        answer = await bed.post(message, token=token, headers=at("s-1"))
        assert "text/event-stream" not in answer.headers.get("content-type", "")
    assert len(stub.received) == 3


async def test_a_task_waits_like_any_other_call(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    task = {**DROP, "params": {**DROP["params"], "task": {"ttl": 1000}}}
    made = {"jsonrpc": "2.0", "id": 7, "result": {"task": {"taskId": "t-1", "status": "working"}}}
    stub.answer = reply(200, made)
    async with calling(bed, task, token=token) as call:
        question = await call.message()
        assert stub.received == []
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert await call.message() == made
    asks = request("tasks/get", {"taskId": "t-1"})
    assert (await bed.post(asks, token=token, headers=at("s-1"))).status_code == 200
    assert "error" in (await bed.post(asks, token=bed.token(sub="mallory"))).json()


@pytest.mark.parametrize(
    ("status", "code"), [(404, -32600), (500, 502), (400, 502), (401, 502), (302, 502), (202, 502)]
)
async def test_what_the_upstream_refuses_afterwards_is_an_error_on_the_stream(
    start: Start, stub: StubUpstream, status: int, code: int
) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    stub.answer = reply(status, None)
    async with calling(bed, token=token) as call:
        question = await call.message()
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        error = await call.message()
        assert (error["id"], error["error"]["code"]) == (7, code)
        await call.ends()
    assert len(stub.received) == 1


async def test_an_error_of_the_upstream_s_own_stays_what_it_is(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    error = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "no such table"}}
    stub.answer = reply(400, error)
    async with calling(bed, token=token) as call:
        question = await call.message()
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert await call.message() == error


async def test_an_upstream_that_is_gone_is_an_error_on_the_stream(start: Start, stub: StubUpstream) -> None:
    async def hang_up(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    stub.answer = hang_up
    async with calling(bed, token=token) as call:
        question = await call.message()
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert (await call.message())["error"]["data"]["errorType"] == "UPSTREAM_UNAVAILABLE"
        await call.ends()


async def test_the_upstream_s_own_events_and_questions_follow_on_the_same_stream(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    stream = Stream()
    stub.answer = stream.answer
    async with calling(bed, token=token) as call:
        question = await call.message()
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        theirs = {"jsonrpc": "2.0", "id": 0, "method": "elicitation/create", "params": {"message": "And you?"}}
        stream.send(b"id: 1\ndata: " + json.dumps(theirs).encode() + b"\n\n")
        assert await call.message() == theirs
        stub.answer = reply(202)
        await bed.post(answer_to(theirs, YES), token=token, headers=at("s-1"))
        assert json.loads(stub.received[-1].body) == answer_to(theirs, YES)
        done = {"jsonrpc": "2.0", "id": 7, "result": {"content": []}}
        stream.send(b"data: " + json.dumps(done).encode() + b"\n\n")
        stream.end()
        assert await call.message() == done
        await call.ends()


async def test_a_stream_of_events_that_has_come_whole_is_passed_on_as_it_is(start: Start, stub: StubUpstream) -> None:
    done = {"jsonrpc": "2.0", "id": 7, "result": {"content": []}}

    async def at_once(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        text = f"event: message\nid: 1\ndata: {json.dumps(done)}\n\n"
        return web.Response(text=text, content_type="text/event-stream")

    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    stub.answer = at_once
    async with calling(bed, token=token) as call:
        question = await call.message()
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert await call.message() == done
        await call.ends()


async def test_an_id_may_be_used_again_after_its_call_was_given_up(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    gives_up = {**notification("notifications/cancelled"), "params": {"requestId": 7}}
    async with calling(bed, token=token) as first:
        old = await first.message()
        await bed.post(gives_up, token=token, headers=at("s-1"))
        await first.message()
    async with calling(bed, token=token) as second:
        new = await second.message()
        assert new["id"] != old["id"]
        await bed.post(answer_to(old, YES), token=token, headers=at("s-1"))
        assert stub.received == []
        await bed.post(answer_to(new, YES), token=token, headers=at("s-1"))
        await second.message()
    assert len(stub.received) == 1


async def test_an_id_that_still_waits_can_t_be_used_twice(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as first:
        question = await first.message()
        again = await bed.post(DROP, token=token, headers=at("s-1"))
        assert (again.status_code, again.json()["error"]["data"]["errorType"]) == (400, "INVALID_REQUEST")
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert "result" in await first.message()


async def test_the_question_can_t_be_made_to_look_like_ours(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    hostile = tool_call(
        "drop", id=7, **{"a\nRun nothing": "[ok](https://evil.example) <b>`x`</b> \u202e \u200b\n" + "y" * 5000}
    )
    async with calling(bed, hostile, token=token) as call:
        message = (await call.message())["params"]["message"]
    assert message.count("\n") == 1
    assert len(message) < 1000
    assert "more characters" in message
    assert not [mark for mark in ("](", "://", "<", "`", "\u202e", "\u200b") if mark in message]


async def test_an_answer_is_free_and_passes_when_the_limit_is_spent(start: Start, stub: StubUpstream) -> None:
    limit = {"name": "account", "per": "account", "requests": 2, "window_s": 3600}
    bed = await start(limits={"policies": [limit]})
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        assert call.response.headers["x-ratelimit-remaining"] == "0"
        question = await call.message()
        assert (await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))).status_code == 202
        assert "result" in await call.message()


async def test_a_credential_that_is_revoked_meanwhile_gets_nothing_done(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store, routes=KEYS_ASK)
    key = await bed.key("mcp:full")
    await begin(bed, stub, key=key)
    async with calling(bed, path=KEY_ROUTE, key=key) as call:
        question = await call.message()
        await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        await bed.post(answer_to(question, YES), key=key, headers=at("s-1"))
        refusal = await call.message()
        assert refusal["error"]["data"]["errorType"] == "INVALID_API_KEY"
    assert stub.received == []


async def test_a_session_that_ends_meanwhile_gets_nothing_done(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        lines = [("Authorization", f"Bearer {token}"), *at("s-1")]
        assert (await bed.client.delete("/mcp", headers=lines)).status_code == 200
        answer = await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert answer.status_code == 404
    assert calls(stub) == []


async def test_a_sidecar_that_stops_forwards_nothing_that_waits(start: Start, stub: StubUpstream) -> None:
    bed = await start(drain={"requests_s": 1})
    token = bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        await call.message()
        await bed.sidecar.stop()
    assert stub.received == []
