"""Lists show what the caller may use, and tasks belong to whom they were made for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.e2e.bed import KEY_ROUTE, Bed, assert_refused, request, tool_call
from tests.e2e.conftest import Start, StoreName
from tests.mcp_server import Stream, StubUpstream, reply

TOOLS = [
    {"name": "look", "inputSchema": {"maximum": 18446744073709551616}, "vendor": [1.0, None]},
    {"name": "put", "annotations": {"readOnlyHint": True}},
    {"name": "drop"},
]


def listing(message_id: Any = 1, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message_id, "result": {"tools": TOOLS, "nextCursor": "n", **more}}


async def shown(bed: Bed, **how: Any) -> list[str]:
    answer = await bed.post(request("tools/list"), **how)
    assert answer.status_code == 200
    assert answer.json()["result"]["nextCursor"] == "n"
    return [tool["name"] for tool in answer.json()["result"]["tools"]]


async def test_a_key_sees_what_it_may_call_and_a_token_all(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    stub.answer = reply(200, listing())
    assert await shown(bed, key=await bed.key("mcp:read")) == ["look"]
    assert await shown(bed, key=await bed.key("mcp:tools:list")) == ["look"]
    assert await shown(bed, key=await bed.key("mcp:full")) == ["look", "put", "drop"]
    assert await shown(bed, token=bed.token("mcp:read")) == ["look", "put", "drop"]


@pytest.mark.parametrize(("policy", "seen"), [("all", ["look"]), ("none", ["look", "put", "drop"])])
async def test_the_operator_says_whose_lists_are_filtered(
    start: Start, stub: StubUpstream, policy: str, seen: list[str]
) -> None:
    bed = await start(access={"filter_lists": policy})
    stub.answer = reply(200, listing())
    assert await shown(bed, token=bed.token("mcp:read")) == seen
    assert await shown(bed, key=await bed.key("mcp:read")) == seen


async def test_what_is_kept_is_kept_to_the_byte_and_is_private(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    stub.answer = reply(200, listing(cacheScope="public"), ETag='"1"')
    answer = await bed.post(request("tools/list"), key=await bed.key("mcp:read"), era="modern")
    assert answer.json()["result"]["cacheScope"] == "private"
    assert '{"name": "look", "inputSchema": {"maximum": 18446744073709551616}, "vendor": [1.0, null]}' in answer.text
    assert "ETag" not in answer.headers


async def test_a_list_in_an_event_is_filtered_however_it_is_cut(start: Start, stub: StubUpstream) -> None:

    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    event = f": hello\nid: 7\ndata: {json.dumps(listing())}\n\n".encode()
    for cut in range(0, len(event), 7):
        stream.send(event[cut : cut + 7])
    stream.end()
    answer = await bed.post(request("tools/list"), key=await bed.key("mcp:read"))
    assert answer.text.startswith(": hello\nid: 7\ndata: ")
    assert '"look"' in answer.text
    assert '"put"' not in answer.text
    assert '"drop"' not in answer.text


async def test_a_list_that_cannot_be_read_for_certain_is_not_passed_on(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    key = await bed.key("mcp:read")
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"title": "nameless"}]}})
    assert_refused(await bed.post(request("tools/list"), key=key), 502, "UPSTREAM_UNAVAILABLE")
    stream = Stream()
    stub.answer = stream.answer
    stream.send(b'data: {"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"drop","name":"look"}]}}\n\n')
    stream.end()
    answer = await bed.post(request("tools/list"), key=key)
    assert '"code":502' in answer.text
    assert "drop" not in answer.text
    for line in bed.accesses():
        assert (line["outcome"], line["reason"]) == ("upstream_unavailable", "upstream_list_malformed")
    metrics = (await bed.admin.get("/metrics")).text
    (counted,) = re.findall(r'sidecar_requests_total{.*outcome="upstream_unavailable".* (\S+)', metrics)
    assert float(counted) == 2


async def test_what_is_not_shown_can_still_not_be_called(start: Start, stub: StubUpstream) -> None:
    bed = await start(access={"filter_lists": "none"})
    assert_refused(
        await bed.post(tool_call("drop"), key=await bed.key("mcp:read")),
        403,
        "INSUFFICIENT_SCOPE",
        text="API key does not have permission for this operation",
    )
    assert stub.received == []


def task(task_id: str) -> dict[str, Any]:
    return {"taskId": task_id, "status": "working", "createdAt": "2026-01-01T00:00:00Z", "ttl": 60000}


async def make_task(bed: Bed, stub: StubUpstream, task_id: str, **credential: Any) -> None:
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {"task": task(task_id)}})
    call = request("tools/call", {"name": "put", "arguments": {}, "task": {"ttl": 60000}})
    assert (await bed.post(call, **credential)).status_code == 200


async def test_a_task_is_its_makers_alone(start: Start, stub: StubUpstream, store: StoreName) -> None:
    bed = await start(store)
    mine, other = await bed.key("mcp:full"), await bed.key("mcp:full")
    await make_task(bed, stub, "t-1", key=mine)
    await make_task(bed, stub, "t-2", key=other)
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": task("t-1")})
    for method in ("tasks/get", "tasks/result", "tasks/cancel"):
        asked = request(method, {"taskId": "t-1"})
        assert (await bed.post(asked, key=mine)).status_code == 200
        seen = len(stub.received)
        refused = await bed.post(asked, key=other)
        unknown = await bed.post(request(method, {"taskId": "never"}), key=other)
        assert refused.status_code == unknown.status_code == 400
        assert refused.json() == unknown.json()
        assert len(stub.received) == seen
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {"tasks": [task("t-1"), task("t-2"), task("t-3")]}})
    for key, own in ((mine, ["t-1"]), (other, ["t-2"])):
        answer = await bed.post(request("tasks/list"), key=key, path=KEY_ROUTE)
        assert [each["taskId"] for each in answer.json()["result"]["tasks"]] == own


async def test_a_task_that_a_stream_tells_of_is_bound_too(start: Start, stub: StubUpstream) -> None:

    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    stream.send(b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n')
    made = {"jsonrpc": "2.0", "id": 1, "result": {"task": task("t-9")}}
    stream.send(f"data: {json.dumps(made)}\n\n".encode())
    stream.end()
    token = bed.token()
    call = request("tools/call", {"name": "put", "arguments": {}, "task": {}})
    assert (await bed.post(call, token=token)).status_code == 200
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": task("t-9")})
    assert (await bed.post(request("tasks/get", {"taskId": "t-9"}), token=token)).status_code == 200
    assert (await bed.post(request("tasks/get", {"taskId": "t-9"}), token=bed.token(sub="bob"))).status_code == 400
