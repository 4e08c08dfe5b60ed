"""What operators build on: the members of the log, the names of the metrics, and the endpoints for orchestrators."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from sidecar.denials import StoreUnavailable
from tests.e2e.bed import JWT_ROUTE, Bed, request, tool_call
from tests.e2e.conftest import Start
from tests.mcp_server import Stream, StubUpstream

MEMBERS = {
    *("ts", "level", "event", "request_id", "account", "principal", "route", "era", "method", "tool", "outcome"),
    *("reason", "status", "duration_ms", "upstream_ms"),
}
METRICS = {
    "sidecar_requests_total": {"route", "outcome", "era"},
    "sidecar_request_seconds_count": set[str](),
    "sidecar_upstream_seconds_count": set[str](),
    "sidecar_open_streams": {"route"},
    "sidecar_limit_decisions_total": {"policy", "decision"},
    "sidecar_store_up": set[str](),
    "sidecar_auth_failures_total": {"reason"},
}
SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


async def samples(bed: Bed) -> list[tuple[str, dict[str, str], float]]:
    answer = await bed.admin.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
        for name, labels, value in SAMPLE.findall(answer.text)
    ]


async def test_every_request_leaves_one_line_with_the_documented_members(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    key = await bed.key("mcp:full")
    await bed.post(tool_call("put"), key=key, era="modern")
    await bed.post(tool_call("put"), token=bed.token("mcp:read"))
    await bed.post(request("ping"), token=bed.secret("not.a.token-signature"))
    await bed.post(b"{", token=bed.token())
    allowed, forbidden, stranger, malformed = bed.accesses()
    for line in (allowed, forbidden, stranger, malformed):
        assert set(line) <= MEMBERS | {"detail"}, "a member that nobody was promised"
        assert {"ts", "level", "event", "request_id", "route", "era", "outcome", "status", "duration_ms"} <= set(line)
        assert line["duration_ms"] >= 0
    assert (allowed["account"], allowed["method"], allowed["tool"]) == ("alice", "tools/call", "put")
    assert (allowed["route"], allowed["era"], allowed["status"]) == ("/mcp/inspector", "modern", 200)
    assert key[4:16] in allowed["principal"]
    assert 0 <= allowed["upstream_ms"] <= allowed["duration_ms"]
    assert (forbidden["status"], forbidden["reason"], forbidden["tool"]) == (403, "insufficient_scope", "put")
    assert (stranger["status"], stranger.get("account")) == (401, None)
    assert stranger["reason"]
    assert malformed["status"] == 400
    assert len({line["outcome"] for line in (allowed, forbidden, stranger, malformed)}) == 4


async def test_what_a_client_writes_cannot_forge_a_line(start: Start) -> None:
    bed = await start()
    text = 'x\n{"event":"forged"}\r\u2028\u0085'
    await bed.post(request(text), token=bed.token())
    await bed.post(tool_call("é\u2028" + "y" * 200), token=bed.token("mcp:read"))
    lines = bed.log.getvalue().splitlines()
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in lines)
    assert not [record for record in bed.records() if record["event"] == "forged"]
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", bed.log.getvalue())


async def test_the_access_log_can_be_turned_off(start: Start) -> None:
    bed = await start(log={"access": False})
    await bed.post(request("ping"), token=bed.token())
    assert bed.accesses() == []


async def test_the_metrics_have_the_documented_names_and_labels(start: Start) -> None:
    policies = [{"name": "account", "per": "account", "requests": 1, "window_s": 60}]
    bed = await start(limits={"policies": policies})
    token = bed.token()
    for _ in range(2):
        await bed.post(request("ping"), token=token)
    await bed.post(request("ping"), token=bed.secret("not.a.token-signature"))
    await bed.post(request("ping"), path="/no/such/path")
    found = await samples(bed)
    for name, labels in METRICS.items():
        if name == "sidecar_open_streams":
            continue  # has a sample once there was a stream
        assert [given for sample, given, _ in found if sample == name], name
        assert all(set(given) == labels for sample, given, _ in found if sample == name), name
    decisions = {
        (labels["policy"], labels["decision"]): value
        for name, labels, value in found
        if name == "sidecar_limit_decisions_total"
    }
    assert set(decisions.values()) == {1.0}
    assert {policy for policy, _ in decisions} == {"account"}
    assert ("sidecar_store_up", {}, 1.0) in found


async def test_what_a_client_chooses_never_becomes_a_label(start: Start) -> None:
    bed = await start()
    token = bed.token()
    await bed.post(tool_call("chosen-by-client"), token=token)
    await bed.post(request("chosen-by-client"), token=token, headers=(("MCP-Protocol-Version", "chosen-by-client"),))
    await bed.client.request("CHOSENBYCLIENT", JWT_ROUTE)
    await bed.client.get("/chosen-by-client")
    await bed.post(request("ping"), token=bed.token(sub="chosen-by-client"))
    text = (await bed.admin.get("/metrics")).text.lower()
    assert "chosen" not in text


async def test_open_streams_are_counted_while_they_are_open(start: Start, stub: StubUpstream) -> None:
    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    headers = {"Authorization": f"Bearer {bed.token()}", "Accept": "text/event-stream"}
    async with bed.client.stream("GET", JWT_ROUTE, headers=headers) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        assert ("sidecar_open_streams", {"route": JWT_ROUTE}, 1.0) in await samples(bed)
        stream.end()
        assert [piece async for piece in pieces] == []
    assert ("sidecar_open_streams", {"route": JWT_ROUTE}, 0.0) in await samples(bed)


async def test_a_client_that_leaves_a_stream_has_got_its_answer(start: Start, stub: StubUpstream) -> None:
    """Many leave as soon as they have the response, before the upstream has ended the stream."""
    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    stream.send(b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n')
    headers = {"Authorization": f"Bearer {bed.token()}"}
    async with bed.client.stream("POST", JWT_ROUTE, json=request("ping"), headers=headers) as answer:
        assert await anext(answer.aiter_raw())
    await stream.left.wait()
    async with asyncio.timeout(5):
        while not bed.accesses():  # noqa: ASYNC110 - the line comes when our side has ended too
            await asyncio.sleep(0.01)
    (line,) = bed.accesses()
    assert (line["outcome"], line["status"], line["reason"]) == ("forwarded", 200, "client_closed")


async def test_it_says_that_it_lives_and_is_ready(start: Start) -> None:
    bed = await start()
    assert (await bed.admin.get("/livez")).status_code == 200
    ready = await bed.admin.get("/readyz")
    assert ready.status_code == 200
    issuers = {bed.issuer.url: "ok"}
    assert ready.json() == {"status": "ready", "checks": {"store": "ok", "issuers": issuers, "upstream": "ok"}}
    assert (await bed.admin.get("/elsewhere")).status_code == 404


async def test_a_lost_upstream_is_reported_and_never_gates(start: Start) -> None:
    bed = await start(upstream={"url": "http://127.0.0.1:9/mcp"})
    ready = await bed.admin.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"]["upstream"] != "ok"


async def test_an_idle_connection_does_not_hold_up_the_end(start: Start) -> None:
    bed = await start()
    await bed.post(request("ping"), token=bed.token())
    async with asyncio.timeout(5):
        await bed.sidecar.stop()


async def test_the_end_closes_open_streams_cleanly(start: Start, stub: StubUpstream) -> None:
    bed, stream = await start(), Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    headers = {"Authorization": f"Bearer {bed.token()}"}
    async with asyncio.timeout(5), bed.client.stream("GET", JWT_ROUTE, headers=headers) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        await bed.sidecar.stop()
        await stream.left.wait()
        assert [piece async for piece in pieces] == []
    assert [line["reason"] for line in bed.accesses()] == ["shutdown"]
    with pytest.raises(httpx.ConnectError):
        await bed.client.get(JWT_ROUTE)


async def test_a_store_that_is_away_at_the_start_is_told_of_with_its_reason(start: Start) -> None:
    bed = await start("redis", store={"url": "redis://127.0.0.1:9"})
    [lost] = [line for line in bed.records() if line["event"] == "store_lost"]
    assert lost["level"] == "error"
    assert "Connect" in lost["problem"]
    assert ("sidecar_store_up", {}, 0.0) in await samples(bed)


async def test_a_second_process_may_not_serve_with_the_same_file(start: Start) -> None:
    """Its limits live in memory: two would let twice as much through."""
    bed = await start()
    with pytest.raises(StoreUnavailable) as refused:
        await start(store=bed.settings["store"])
    assert refused.value.reason == "store_claimed"
    await bed.sidecar.stop()
    await start(store=bed.settings["store"])
