"""Traces, on a real collector: what they say, whose they are, and that they never cost a request anything."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import time
from typing import Any

import pytest

from sidecar import verify
from tests.collector import Collector
from tests.e2e.bed import (
    JWT_ROUTE,
    KEYS,
    LEGACY,
    Bed,
    Era,
    assert_refused,
    credentials,
    notification,
    request,
    tool_call,
)
from tests.e2e.conftest import Start
from tests.mcp_server import Stream, StubUpstream, reply

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
OTHER_TRACE, OTHER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = f"00-{OTHER_TRACE}-{OTHER_SPAN}-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
BAGGAGE = "userId=alice,serverNode=DF%2028;p=1"


async def traced(start: Start, collector: Collector, **settings: Any) -> Bed:
    return await start(tracing={"otlp_endpoint": collector.url}, **settings)


def parts(traceparent: str) -> tuple[str, str, bool]:
    """Return trace, span, and whether it is sampled."""
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", traceparent)
    assert found
    return found[1], found[2], bool(int(found[3], 16) & 1)


@pytest.mark.parametrize(
    "lines",
    [
        (("traceparent", PARENT), ("tracestate", STATE), ("baggage", BAGGAGE)),
        (("traceparent", "anything at all"), ("tracestate", "=,="), ("baggage", "")),
        (("traceparent", PARENT.upper()),),
    ],
)
async def test_without_tracing_a_trace_goes_through_as_it_came(
    start: Start, stub: StubUpstream, lines: tuple[tuple[str, str], ...]
) -> None:
    """Who takes no part in a trace passes it on, well-formed or not (W3C Trace Context, section 3.4)."""
    bed = await start()
    assert (await bed.post(request("ping"), token=bed.token(), headers=lines)).status_code == 200
    for name in ("traceparent", "tracestate", "baggage"):
        assert stub.only.values(name) == [value for line, value in lines if line == name]
    assert "trace_id" not in bed.accesses()[0]
    assert "sidecar_trace" not in (await bed.admin.get("/metrics")).text


async def test_without_tracing_nothing_of_opentelemetry_is_needed_or_imported_by_us() -> None:
    """redis-py looks for some of it by itself, hence what is looked for here."""
    script = """if True:
        import sys

        class Absent:
            def find_spec(self, name, path, target=None):
                if name.split(".")[0] == "opentelemetry":
                    raise ModuleNotFoundError(name=name)

        if "absent" in sys.argv:
            sys.meta_path.insert(0, Absent())
        import sidecar.app, sidecar.cli, sidecar.worker
        sys.exit(sum(name in sys.modules for name in ("sidecar.edge.tracing", "opentelemetry.exporter")))
    """
    for argument in ("absent", "present"):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, argument)
        assert await process.wait() == 0


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_call_is_two_spans_in_the_clients_trace(
    collector: Collector, start: Start, stub: StubUpstream, era: Era
) -> None:
    bed = await traced(start, collector)
    lines = (("traceparent", PARENT), ("tracestate", STATE), ("baggage", BAGGAGE), ("X-Request-Id", "request-1"))
    version = () if era == "modern" else (("MCP-Protocol-Version", LEGACY),)
    message = tool_call("look", id="seven", city="a secret place")
    answer = await bed.post(message, token=bed.token(), era=era, headers=(*lines, *version))
    assert answer.status_code == 200
    server, client = await collector.having(2)

    assert (server.name, server.kind, server.parent_id) == ("tools/call look", "server", SPAN)
    assert (client.name, client.kind, client.parent_id) == ("tools/call look", "client", server.span_id)
    assert server.trace_id == client.trace_id == TRACE
    assert server.state == client.state == STATE
    assert parts(stub.only.value("traceparent")) == (TRACE, client.span_id, True)
    assert stub.only.value("tracestate") == STATE
    assert stub.only.value("baggage") == BAGGAGE
    assert bed.accesses()[0]["trace_id"] == TRACE
    said = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look",
        "jsonrpc.request.id": "seven",
        "mcp.protocol.version": "2026-07-28" if era == "modern" else LEGACY,
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "http.request.method": "POST",
        "http.response.status_code": 200,
    }
    assert server.attributes == {
        **said,
        "network.protocol.version": "1.1",
        "http.route": JWT_ROUTE,
        "server.address": "127.0.0.1",
        "server.port": 8080,
        "mcp_sidecar.request_id": "request-1",
        "mcp_sidecar.era": era,
        "mcp_sidecar.outcome": "forwarded",
    }
    port = int(stub.url.rpartition(":")[2].partition("/")[0])
    assert client.attributes == {**said, "server.address": "127.0.0.1", "server.port": port}
    assert not server.is_error
    assert not client.is_error
    assert 0 < client.seconds <= server.seconds
    resource = server.resource
    assert (resource["service.name"], resource["telemetry.sdk.language"]) == ("mcp-sidecar", "python")
    assert resource["service.version"]
    assert resource["service.instance.id"]


async def test_the_trace_that_the_message_names_is_the_parent_and_that_of_the_headers_is_linked(
    collector: Collector, start: Start, stub: StubUpstream
) -> None:
    bed = await traced(start, collector)
    message = request("ping", {"_meta": {"traceparent": PARENT, "tracestate": STATE}})
    await bed.post(message, token=bed.token(), headers=(("traceparent", OTHER), ("tracestate", "a=b")))
    server, client = await collector.having(2)
    assert (server.trace_id, server.parent_id, server.state) == (TRACE, SPAN, STATE)
    assert server.links == ((OTHER_TRACE, OTHER_SPAN),)
    assert parts(stub.only.value("traceparent"))[:2] == (TRACE, client.span_id)
    assert stub.only.value("tracestate") == STATE
    assert f'"traceparent": "{PARENT}"'.encode() in stub.only.body  # judged bytes are never changed


@pytest.mark.parametrize(
    "traceparent",
    [
        *("anything at all", PARENT.upper(), PARENT + "-x", ""),
        *(f"01-{TRACE}-{SPAN}-01-" + "a" * 1000, f"00-{'0' * 32}-{SPAN}-01", f"{PARENT}, {PARENT}"),
    ],
)
async def test_a_malformed_trace_is_dropped_with_its_state_and_a_new_one_begins(
    collector: Collector, start: Start, stub: StubUpstream, traceparent: str
) -> None:
    bed = await traced(start, collector)
    lines = (("traceparent", traceparent), ("tracestate", STATE), ("baggage", BAGGAGE))
    await bed.post(request("ping"), token=bed.token(), headers=lines)
    server, client = await collector.having(2)
    assert (server.parent_id, server.state) == ("", "")
    assert server.trace_id != TRACE
    assert parts(stub.only.value("traceparent")) == (server.trace_id, client.span_id, True)
    assert stub.only.values("tracestate") == []
    assert stub.only.value("baggage") == BAGGAGE


async def test_a_trace_that_is_sent_twice_is_none(collector: Collector, start: Start, stub: StubUpstream) -> None:
    bed = await traced(start, collector)
    lines = (("traceparent", PARENT), ("traceparent", OTHER), ("tracestate", STATE))
    await bed.post(request("ping"), token=bed.token(), headers=lines)
    server, _ = await collector.having(2)
    assert server.trace_id not in (TRACE, OTHER_TRACE)
    assert stub.only.values("tracestate") == []
    assert len(stub.only.values("traceparent")) == 1


@pytest.mark.parametrize(
    ("sent", "goes_on"),
    [
        ((STATE, "last=1"), f"{STATE},last=1"),  # lines of one name are one list
        ((",".join(f"k{n}=v" for n in range(32)),), ",".join(f"k{n}=v" for n in range(32))),
        ((",".join(f"k{n}=v" for n in range(33)),), None),
        (("a=" + "b" * 512,), None),
        (("NO KEY=1",), None),
    ],
)
async def test_a_state_goes_on_where_it_is_one_and_is_left_out_where_not(
    collector: Collector, start: Start, stub: StubUpstream, sent: tuple[str, ...], goes_on: str | None
) -> None:
    """W3C Trace Context, section 3.3.1: at most 32 members; what can't be read is no reason to drop the trace."""
    bed = await traced(start, collector)
    lines = (("traceparent", PARENT), *(("tracestate", state) for state in sent))
    await bed.post(request("ping"), token=bed.token(), headers=lines)
    server, _ = await collector.having(2)
    assert server.trace_id == TRACE
    assert stub.only.values("tracestate") == ([] if goes_on is None else [goes_on])


async def test_nothing_that_a_message_says_of_its_trace_becomes_a_header_of_its_own(
    collector: Collector, start: Start, stub: StubUpstream
) -> None:
    bed = await traced(start, collector)
    evil = "a=b\r\nX-Account-Id: mallory\r\n\r\nGET / HTTP/1.1"
    for meta in (
        {"traceparent": PARENT, "tracestate": evil},
        {"traceparent": f"{PARENT}\r\nX-Account-Id: mallory"},
        {"traceparent": f"01-{TRACE}-{SPAN}-01-x\r\nX-Account-Id: mallory"},
    ):
        assert (await bed.post(request("ping", {"_meta": meta}), token=bed.token())).status_code == 200
        received = stub.received.pop()
        assert received.values("X-Account-Id") == ["alice"]
        assert received.values("tracestate") == []
        assert len(received.values("traceparent")) == 1
        assert "mallory" not in str(received.headers)


async def test_our_trace_is_no_part_of_what_is_signed(collector: Collector, start: Start, stub: StubUpstream) -> None:
    bed = await traced(start, collector)
    await bed.post(request("ping"), token=bed.token(), headers=(("traceparent", PARENT),))
    keys = (await bed.client.get("/.well-known/sidecar-keys.json")).json()
    received = stub.only
    signed = verify.verify(received.method, received.target, list(received.headers), received.body, keys, time.time())
    assert signed.account == "alice"
    assert "traceparent" not in received.value("Signature-Input")


async def test_a_refusal_is_an_error_with_our_reason(collector: Collector, start: Start, stub: StubUpstream) -> None:
    bed = await traced(start, collector)
    answer = await bed.post(tool_call("drop"), token=bed.token("mcp:read"), headers=(("traceparent", PARENT),))
    assert_refused(answer, 403, "INSUFFICIENT_SCOPE")
    (server,) = await collector.having(1)
    assert (server.name, server.trace_id, server.parent_id) == ("tools/call drop", TRACE, SPAN)
    assert (server.is_error, server.problem) == (True, "INSUFFICIENT_SCOPE")
    told = {
        "error.type": "insufficient_scope",
        "rpc.response.status_code": "403",
        "http.response.status_code": 403,
        "mcp_sidecar.outcome": "insufficient_scope",
        "mcp_sidecar.reason": "insufficient_scope",
        "gen_ai.tool.name": "drop",
    }
    assert told.items() <= server.attributes.items()
    assert bed.accesses()[0]["trace_id"] == TRACE
    assert stub.received == []


async def test_who_is_not_known_is_told_of_by_the_route_alone(collector: Collector, start: Start) -> None:
    bed = await traced(start, collector)
    headers = (("traceparent", PARENT), ("Mcp-Method", "tools/call"), ("Mcp-Session-Id", "somebody-elses"))
    assert_refused(await bed.post(tool_call("drop"), token="no.token.either", headers=headers), 401, "INVALID_TOKEN")
    (server,) = await collector.having(1)
    assert (server.name, server.problem) == (f"POST {JWT_ROUTE}", "INVALID_TOKEN")
    assert "mcp.method.name" not in server.attributes
    assert "mcp_sidecar.session" not in server.attributes


async def test_no_span_holds_a_credential_an_argument_or_who_called(
    collector: Collector, start: Start, stub: StubUpstream
) -> None:
    bed = await traced(start, collector, trusted_proxies=["127.0.0.1/32"])
    key, token = await bed.key("mcp:full", account="the-account"), bed.token(sub="the-account")
    lines = (("X-Forwarded-For", "192.0.2.77"), ("X-Forwarded-Proto", "https"), ("Cookie", "the-cookie"))
    await bed.post(tool_call("put", city="the-argument"), key=key, headers=lines)
    await bed.post(request("resources/read", {"uri": "file:///the-resource"}), token=token, headers=lines)
    await bed.post(tool_call("put", city="the-argument"), key=key[:-1] + "!", headers=lines)
    await bed.client.get("/the-path?the-query=1", headers=credentials(token=token))
    await bed.rest("GET", f"{KEYS}/key_{key[4:16]}", token)
    text = str(await collector.having(7))
    for secret in (*bed.secrets, key[4:16], "the-"):
        assert secret not in text
    assert "192.0.2.77" not in text


async def test_every_other_request_has_a_span_too(collector: Collector, start: Start, stub: StubUpstream) -> None:
    bed = await traced(start, collector)
    token = bed.token()
    await bed.post(notification("notifications/initialized"), token=token)
    await bed.client.get("/nothing/here")
    await bed.rest("GET", KEYS, token)
    await bed.client.request("DELETE", JWT_ROUTE, headers=credentials(token=token))
    names = [(span.kind, span.name) for span in await collector.having(6)]
    assert sorted(names) == [
        ("client", "DELETE /mcp"),
        ("client", "notifications/initialized"),
        ("server", "DELETE /mcp"),
        ("server", "GET"),
        ("server", "GET /api/api-keys"),
        ("server", "notifications/initialized"),
    ]


async def test_a_session_is_told_of_by_a_digest_where_it_is_the_callers(
    collector: Collector, start: Start, stub: StubUpstream
) -> None:
    bed = await traced(start, collector)
    token = bed.token()
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}}, Mcp_Session_Id="the-session")
    await bed.post(request("initialize"), token=token)
    await bed.post(request("ping"), token=token, headers=(("Mcp-Session-Id", "the-session"),))
    other = await bed.post(request("ping"), token=bed.token(sub="bob"), headers=(("Mcp-Session-Id", "the-session"),))
    assert other.status_code == 404
    spans = await collector.having(5)
    assert "the-session" not in str(spans)
    named = [(span.kind, span.attributes["mcp_sidecar.outcome"]) for span in spans if span.kind == "server"]
    assert sorted(named) == [("server", "forwarded"), ("server", "forwarded"), ("server", "session_not_found")]
    digest = hashlib.sha256(b"the-session").hexdigest()[:16]
    told = [span.kind for span in spans if span.attributes.get("mcp_sidecar.session") == digest]
    assert told == ["server", "client"]


async def test_a_stream_is_a_span_as_long_as_it_lasts(collector: Collector, start: Start, stub: StubUpstream) -> None:
    bed, stream = await traced(start, collector), Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    headers = [*credentials(token=bed.token()), ("traceparent", PARENT)]
    async with bed.client.stream("POST", JWT_ROUTE, json=tool_call("look"), headers=headers) as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: {}\n\n"
        assert collector.spans == []
        stream.end()
        assert [piece async for piece in pieces] == []
    server, client = await collector.having(2)
    assert (server.name, client.name, server.trace_id) == ("tools/call look", "tools/call look", TRACE)
    assert not server.is_error


async def test_a_stream_that_we_end_says_why(collector: Collector, start: Start, stub: StubUpstream) -> None:
    bed, stream = await traced(start, collector), Stream()
    key, stub.answer = await bed.key("mcp:full"), stream.answer
    stream.send(b"data: {}\n\n")
    async with bed.client.stream("GET", "/mcp/inspector", headers=credentials(key=key)) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        await bed.sidecar.keyring.revoke("alice", f"key_{key[4:16]}")
        assert [piece async for piece in pieces] == []
    server, _ = await collector.having(2)
    assert (server.name, server.attributes["mcp_sidecar.reason"]) == ("GET /mcp/inspector", "revoked")


async def test_a_client_that_leaves_ends_its_span(collector: Collector, start: Start, stub: StubUpstream) -> None:
    bed, stream = await traced(start, collector), Stream("application/json")
    stub.answer = stream.answer
    headers = credentials(token=bed.token())
    async with bed.client.stream("POST", JWT_ROUTE, json=request("ping"), headers=headers):
        await stream.opened.wait()
    server, _ = await collector.having(2)
    assert server.attributes["mcp_sidecar.outcome"] == "client_closed"


@pytest.mark.parametrize("status", [404, 500])
async def test_what_the_upstream_answers_badly_is_its_spans_error(
    collector: Collector, start: Start, stub: StubUpstream, status: int
) -> None:
    bed = await traced(start, collector)
    stub.answer = reply(status)
    await bed.post(request("ping"), token=bed.token())
    server, client = await collector.having(2)
    assert (client.is_error, client.attributes["error.type"]) == (True, str(status))
    assert server.is_error == (status == 500)


async def test_an_upstream_that_is_away_is_the_error_of_both_spans(collector: Collector, start: Start) -> None:
    bed = await traced(start, collector, upstream={"url": "http://127.0.0.1:9/mcp"})
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 502
    server, client = await collector.having(2)
    assert server.is_error
    assert client.is_error
    assert server.attributes["error.type"] == client.attributes["error.type"] == bed.accesses()[0]["reason"]
    assert "http.response.status_code" not in client.attributes


async def test_a_client_that_is_not_sampled_is_not_recorded_and_its_trace_goes_on(
    collector: Collector, start: Start, stub: StubUpstream
) -> None:
    bed = await traced(start, collector)
    await bed.post(request("ping"), token=bed.token(), headers=(("traceparent", PARENT[:-2] + "00"),))
    assert parts(stub.only.value("traceparent"))[::2] == (TRACE, False)
    assert bed.accesses()[0]["trace_id"] == TRACE
    await bed.post(request("ping"), token=bed.token())
    assert TRACE not in {span.trace_id for span in await collector.having(2)}


async def test_a_ratio_samples_by_the_trace_whatever_the_client_has_decided(
    collector: Collector, start: Start, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    bed, low, high = await traced(start, collector), f"{1:032x}", f"{2**64 - 1:032x}"
    for trace, flag in ((low, "00"), (high, "01"), (low, "01"), (high, "00")):
        headers = (("traceparent", f"00-{trace}-{SPAN}-{flag}"),)
        assert (await bed.post(request("ping"), token=bed.token(), headers=headers)).status_code == 200
    assert [parts(one.value("traceparent"))[::2] for one in stub.received] == [
        (low, True),
        (high, False),
        (low, True),
        (high, False),
    ]
    assert {span.trace_id for span in await collector.having(4)} == {low}


async def test_the_environment_says_what_is_sampled_and_what_the_resource_is(
    collector: Collector, start: Start, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=mine")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    bed = await traced(start, collector)
    await bed.post(request("ping"), token=bed.token())
    assert parts(stub.only.value("traceparent"))[2] is False
    await bed.post(request("ping"), token=bed.token(), headers=(("traceparent", PARENT),))
    server, _ = await collector.having(2)
    told = {"service.name": "gate", "service.version": "mine", "deployment.environment.name": "test"}
    assert told.items() <= server.resource.items()
    assert (collector.headers[0]["x-team"], collector.headers[0]["Content-Encoding"]) == ("blue", "gzip")


async def test_an_sdk_that_is_disabled_leaves_traces_as_they_are(
    collector: Collector, start: Start, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    bed = await traced(start, collector)
    await bed.post(request("ping"), token=bed.token(), headers=(("traceparent", PARENT), ("tracestate", STATE)))
    assert (stub.only.value("traceparent"), stub.only.value("tracestate")) == (PARENT, STATE)
    await bed.client.aclose()
    await bed.sidecar.stop()
    assert collector.spans == []


async def test_a_setting_of_the_sdk_that_means_nothing_is_told(
    collector: Collector, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "nonsense")
    bed = await traced(start, collector)
    (warning,) = [line for line in bed.records() if line["event"] == "tracing_warning"]
    assert "nonsense" in warning["problem"]
