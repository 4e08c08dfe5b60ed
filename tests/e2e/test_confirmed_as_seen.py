"""What a person said yes to is what the upstream sees: all of it counts, and all of it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.bed import Bed
from tests.e2e.confirming import DROP, able, retry, text_of
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream

PAGE: dict[str, Any] = {"key_page": {"client_id": "page"}, "upstream": {"pass_headers": ["X-Project"]}}
SCRATCH: dict[str, dict[str, Any]] = {
    "query": {"path": "/mcp?project_ref=scratch"},
    "mcp-param": {"headers": (("Mcp-Param-Database", "scratch"),)},
    "passed header": {"headers": (("X-Project", "scratch"),)},
}


def production(what: str) -> dict[str, Any]:
    how = SCRATCH[what]
    if "path" in how:
        return {"path": how["path"].replace("scratch", "PRODUCTION")}
    return {"headers": tuple((name, "PRODUCTION") for name, _ in how["headers"])}


async def approve(bed: Bed, token: str, how: dict[str, Any]) -> dict[str, Any]:
    """Make a call that waits, and approve it; return how it was shown."""
    waits = text_of((await bed.post(DROP, token=token, **how)).json()).partition("/approvals/")[2][:32]
    decided = await bed.rest("POST", f"/api/approvals/{waits}/approve", bed.token("openid", client_id="page"))
    assert decided.status_code == 200
    shown: dict[str, Any] = decided.json()
    return shown


@pytest.mark.parametrize("what", SCRATCH)
async def test_an_approval_is_for_all_that_the_upstream_sees(start: Start, stub: StubUpstream, what: str) -> None:
    bed = await start(**PAGE)
    token = bed.token(client_id="agent")
    shown = await approve(bed, token, SCRATCH[what])
    assert "scratch" in shown["besides"]
    await bed.post(DROP, token=token, **production(what))
    await bed.post(DROP, token=token)
    assert stub.received == []
    await bed.post(DROP, token=token, **SCRATCH[what])
    assert len(stub.received) == 1


@pytest.mark.parametrize("what", SCRATCH)
async def test_an_answer_is_for_all_that_the_upstream_sees(start: Start, stub: StubUpstream, what: str) -> None:
    bed = await start(**PAGE)
    token = bed.token()
    asked = (await bed.post(able(DROP), token=token, era="modern", **SCRATCH[what])).json()
    assert "scratch" in asked["result"]["inputRequests"]["sidecar.confirm"]["params"]["message"]
    other = await bed.post(retry(asked), token=token, era="modern", **production(what))
    assert (other.status_code, other.json()["error"]["code"]) == (400, -32602)
    assert stub.received == []
    await bed.post(retry(asked), token=token, era="modern", **SCRATCH[what])
    assert len(stub.received) == 1


async def test_members_that_the_specification_does_not_know_count_too(start: Start, stub: StubUpstream) -> None:
    bed = await start(**PAGE)
    token = bed.token(client_id="agent")
    assert (await approve(bed, token, {}))["besides"] is None
    more = {**DROP["params"], "input": {"table": "accounts"}, "connection": "prod"}
    await bed.post({**DROP, "params": more}, token=token)
    assert stub.received == []


async def test_what_the_operator_s_url_says_is_not_shown(start: Start, stub: StubUpstream) -> None:
    bed = await start(upstream={"url": f"{stub.url}?key=of-the-operator"})
    asked = await bed.post(able(DROP), token=bed.token(), era="modern", path="/mcp?a=1")
    assert 'query "a": "1"' in asked.json()["result"]["inputRequests"]["sidecar.confirm"]["params"]["message"]
    assert "of-the-operator" not in asked.text


@pytest.mark.parametrize("arguments", ['{"table":"users"}', ["users"]])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_arguments_that_can_not_be_shown_are_refused(
    start: Start, stub: StubUpstream, arguments: object, era: Any
) -> None:
    bed = await start()
    message = {**DROP, "params": {"name": "drop", "arguments": arguments}}
    refused = await bed.post(able(message), token=bed.token(), era=era)
    assert refused.status_code == 400
    assert refused.json()["error"]["data"]["errorType"] == "INVALID_REQUEST"
    if era == "modern":
        assert refused.json()["error"]["code"] == -32602
    assert stub.received == []


async def test_a_number_is_shown_as_it_is_sent(start: Start) -> None:
    bed = await start()
    message = able(DROP)
    meta = {**message["params"]["_meta"], "io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    message["params"] = {**DROP["params"], "_meta": meta}
    headers = (("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "drop"))
    body = json.dumps(message).replace('"users"', "98765432109876543210").encode()
    asked = await bed.post(body, token=bed.token(), headers=headers)
    shown = asked.json()["result"]["inputRequests"]["sidecar.confirm"]["params"]["message"]
    assert '"table": 98765432109876543210' in shown


async def test_a_call_that_asked_for_a_task_is_refused_by_an_error(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    task = {**DROP, "params": {**DROP["params"], "task": {"ttl": 1000}}}
    refused = await bed.post(task, token=bed.token())
    error = refused.json()["error"]
    assert (refused.status_code, refused.json()["id"], error["code"]) == (200, 7, 403)
    assert "/approvals/" in error["message"]
    assert error["data"] == {"errorType": "CONFIRMATION_REQUIRED", "message": error["message"]}
    assert stub.received == []
