"""What the upstream receives: the bytes that were judged, an allow-list of headers, and who is calling."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, assert_refused, credentials, notification, request, tool_call
from tests.e2e.conftest import Start
from tests.e2e.sessions import begin
from tests.mcp_server import StubUpstream

ALLOWED = {
    *("Accept", "Accept-Language", "Content-Type", "User-Agent", "MCP-Protocol-Version", "Mcp-Session-Id"),
    *("Mcp-Method", "Mcp-Name", "Mcp-Param-Region", "Last-Event-ID", "traceparent", "tracestate", "baggage"),
}
NOT_ALLOWED = {
    *("Authorization", "X-API-Key", "Cookie", "Origin", "Referer", "Accept-Encoding", "Connection", "Keep-Alive"),
    *("TE", "X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Custom", "Proxy-Authorization", "Priority"),
    *("X-Account-Role", "X-Auth-Anything", "Signature-Agent", "X-HTTP-Method-Override", "If-None-Match"),
}
OURS = {
    *("Host", "Content-Length", "X-Account-Id", "X-Account-Scopes", "X-Auth-Method", "X-Auth-Subject"),
    *("X-Request-Id", "Content-Digest", "Signature-Input", "Signature"),
}


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
        b' {\r\n\t"method" : "ping" , "id":1,"jsonrpc":"2.0" }\n ',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","arguments":'
        b'{"n":18446744073709551616,"f":1.000000000000000005,"z":-0,"e":1E+2,"u":"\\u00e9\\ud83d\\ude00\\/"}}}',
        '{"jsonrpc":"2.0","id":"é","method":"tools/call","params":{"name":"look","arguments":{"ü":"日本"}}}'.encode(),
        json.dumps(tool_call("look", text="x" * 1_000_000)).encode(),
    ],
)
async def test_the_upstream_gets_exactly_the_bytes_that_were_judged(
    start: Start, stub: StubUpstream, body: bytes
) -> None:
    bed = await start()
    assert (await bed.post(body, token=bed.token())).status_code == 200
    assert stub.only.body == body
    assert stub.only.value("Content-Length") == str(len(body))
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert stub.only.value("Content-Digest") == f"sha-256=:{digest}:"


@pytest.mark.parametrize(
    "query", ["a=1", "a=%20b&&c=1+2&=&d", "%zz", "q=%2e%2e/../x;y=?/:@!$&'()*,", "x=" + "y" * 2000]
)
async def test_the_query_arrives_byte_for_byte_and_the_public_path_never(
    start: Start, stub: StubUpstream, query: str
) -> None:
    bed = await start()
    body = json.dumps(request("ping")).encode()
    for path, line in (
        (JWT_ROUTE, f"Authorization: Bearer {bed.token()}"),
        (KEY_ROUTE, f"X-API-Key: {await bed.key()}"),
    ):
        head = f"POST {path}?{query} HTTP/1.1\r\nHost: public.example\r\nContent-Type: application/json\r\n{line}\r\n"
        answer = await bed.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert answer.status == 200
    assert [received.target for received in stub.received] == [f"/mcp?{query}"] * 2
    assert {received.value("Host") for received in stub.received} == {stub.url.split("/")[2]}


async def test_the_upstreams_own_query_comes_first(start: Start, stub: StubUpstream) -> None:
    bed = await start(upstream={"url": f"{stub.url}/v2?tenant=7"})
    token = bed.token()
    await bed.post(request("ping"), token=token)
    await bed.post(request("ping"), token=token, path="/mcp?a=1")
    assert [received.target for received in stub.received] == ["/mcp/v2?tenant=7", "/mcp/v2?tenant=7&a=1"]


async def test_only_the_allowed_headers_pass(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    values = {name: f"value-of-{name}" for name in ALLOWED | NOT_ALLOWED - {"Authorization", "X-API-Key"}}
    values |= {"Content-Type": "application/json", "Accept": "application/json", "Connection": "keep-alive"}
    values |= {"MCP-Protocol-Version": "2025-06-18", "Mcp-Method": "ping", "Origin": bed.settings["public_url"]}
    await begin(bed, stub, values["Mcp-Session-Id"], token=bed.token())
    lines = [*values.items(), *credentials(token=bed.token())]
    answer = await bed.client.post(JWT_ROUTE, content=json.dumps(request("ping")), headers=lines)
    assert answer.status_code == 200
    names = [name.lower() for name, _ in stub.only.headers]
    assert len(names) == len(set(names))
    assert set(names) == {name.lower() for name in ALLOWED | OURS}
    for name in ALLOWED:
        assert stub.only.value(name) == values[name]


async def test_the_operator_can_let_more_headers_pass(start: Start, stub: StubUpstream) -> None:
    bed = await start(upstream={"pass_headers": ["X-Tenant-Hint"]})
    extra = (("x-tenant-hint", "blue"), ("X_Tenant_Hint", "red"), ("X-Tenant", "green"))
    await bed.post(request("ping"), token=bed.token(), headers=extra)
    assert stub.only.values("X-Tenant-Hint") == ["blue"]
    assert stub.only.values("X_Tenant_Hint") == stub.only.values("X-Tenant") == []


@pytest.mark.parametrize(
    "spoof",
    [
        "X-Account-Id: mallory",
        "x-account-id: mallory\r\nX-ACCOUNT-ID: mallory",
        "X_Account_Id: mallory",
        "X-Account_Id: mallory",
        "X-Account-Scopes: mcp:full\r\nX-Auth-Method: jwt\r\nX-Auth-Subject: root",
        "Connection: X-Account-Id\r\nX-Account-Id: mallory",
        "Connection: close, X-Account-Id, X-Account-Scopes, Signature, Signature-Input, Content-Digest",
        "Content-Digest: sha-256=:AAAA:",
        'Signature-Input: sidecar=("x-account-id");keyid="x"\r\nSignature: sidecar=:AAAA:',
        "X-Forwarded-User: mallory\r\nX-Remote-User: mallory",
    ],
)
async def test_identity_headers_of_the_client_never_arrive_and_ours_always_do(
    start: Start, stub: StubUpstream, spoof: str
) -> None:
    bed = await start()
    key, body = await bed.key("mcp:tools:list", "mcp:resources:read"), json.dumps(request("tools/list")).encode()
    head = f"POST {KEY_ROUTE} HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nX-API-Key: {key}\r\n{spoof}\r\n"
    answer = await bed.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.status == 200
    assert "mallory" not in str(stub.only.headers)
    assert stub.only.value("X-Account-Id") == "alice"
    assert stub.only.value("X-Account-Scopes") == "mcp:tools:list mcp:resources:read"
    assert stub.only.value("X-Auth-Method") == "api_key"
    assert stub.only.value("X-Auth-Subject") == f"key_{key[4:16]}"
    assert stub.only.value("Content-Digest") != "sha-256=:AAAA:"
    assert stub.only.value("Signature-Input").count("sidecar=") == 1
    assert len(stub.only.values("Signature")) == 1
    assert not [name for name, _ in stub.only.headers if "_" in name]


async def test_headers_named_by_connection_stay_behind(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    lines = (("Connection", "keep-alive, baggage"), ("baggage", "a=1"), ("tracestate", "b=2"))
    await bed.post(request("ping"), token=bed.token(), headers=lines)
    assert stub.only.values("baggage") == []
    assert stub.only.value("tracestate") == "b=2"


async def test_a_get_passes_without_a_body(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    await begin(bed, stub, "s1", token=bed.token())
    lines = [("Accept", "text/event-stream"), ("Last-Event-ID", "7"), ("Mcp-Session-Id", "s1")]
    answer = await bed.client.get(JWT_ROUTE, headers=[*lines, *credentials(token=bed.token())])
    assert answer.status_code == 405
    assert (stub.only.method, stub.only.target, stub.only.body) == ("GET", "/mcp", b"")
    assert (stub.only.value("Last-Event-ID"), stub.only.value("Mcp-Session-Id")) == ("7", "s1")
    assert stub.only.values("Content-Digest") == stub.only.values("Content-Length") == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_method_without_a_body_gets_none_past(start: Start, stub: StubUpstream, method: str) -> None:
    bed = await start()
    for framing in ("Content-Length: 2\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"):
        head = f"{method} {JWT_ROUTE} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {bed.token()}\r\n"
        assert_refused(await bed.raw(f"{head}{framing}".encode()), 400, "INVALID_REQUEST", id=None)
    assert stub.received == []


async def test_a_delete_passes(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    await begin(bed, stub, "s1", token=bed.token())
    lines = [("Mcp-Session-Id", "s1"), *credentials(token=bed.token())]
    assert (await bed.client.delete(JWT_ROUTE, headers=lines)).status_code == 200
    assert (stub.only.method, stub.only.value("Mcp-Session-Id")) == ("DELETE", "s1")


async def test_notifications_and_responses_pass_without_a_scope(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token(None)
    for message in (
        notification("notifications/initialized"),
        notification("notifications/cancelled"),
        {"jsonrpc": "2.0", "id": 7, "result": {"roots": []}},
        {"jsonrpc": "2.0", "id": "x", "error": {"code": -1, "message": "no"}},
    ):
        assert (await bed.post(message, token=token)).status_code == 202
    for method in ("initialize", "ping", "server/discover"):
        assert (await bed.post(request(method), token=token)).status_code == 200
    assert len(stub.received) == 7
    assert all(received.values("X-Account-Scopes") == [] for received in stub.received)


async def test_every_scope_allows_what_it_says(start: Start, stub: StubUpstream) -> None:
    bed = await start(confirmation={"tools": "never"})
    listing, reading, calling = request("tools/list"), request("resources/read", {"uri": "x:y"}), tool_call("look")
    prompt, writing, dropping = request("prompts/get", {"name": "p"}), tool_call("put"), tool_call("drop")
    odd, messages = request("books/burn"), ("listing", "reading", "calling", "prompt", "writing", "dropping", "odd")
    allowed = {
        "mcp:full": {*messages},
        "mcp:read": {"listing", "reading", "calling", "prompt"},
        "mcp:tools:call": {"listing", "calling"},
        "mcp:tools:list": {"listing"},
        "mcp:resources:read": {"reading"},
    }
    by_name = dict(zip(messages, (listing, reading, calling, prompt, writing, dropping, odd), strict=True))
    for scope, names in allowed.items():
        for credential in ({"token": bed.token(scope)}, {"key": await bed.key(scope)}):
            for name, message in by_name.items():
                before = len(stub.received)
                await bed.post(message, **credential)  # type: ignore[arg-type] # one of two keyword arguments
                assert (len(stub.received) > before) is (name in names), (scope, name)


async def test_the_catalogue_tells_reads_from_writes(start: Start, stub: StubUpstream) -> None:
    bed = await start(access={"tools": {"read": [], "write": [], "destructive": []}})
    token = bed.token("mcp:read")
    answer = await bed.post_when_catalogued(tool_call("look"), token=token)
    assert answer.status_code == 200
    for tool in ("put", "drop", "sly", "bare", "Look", "look ", "unheard-of"):
        assert (await bed.post(tool_call(tool), token=token)).status_code == 403
    assert len(stub.received) == 1
    assert stub.from_catalogue
    assert all(received.values("Signature") for received in stub.from_catalogue)


async def test_the_request_id_is_ours_or_the_clients_and_on_both_sides(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    given = "client.id-1_2"
    answer = await bed.post(request("ping"), token=token, headers=(("X-Request-Id", given),))
    assert answer.headers["X-Request-Id"] == stub.received[0].value("X-Request-Id") == given
    for unusable in ("", "a b", "x" * 65, "a,b", "ä"):
        raw = [(b"X-Request-Id", unusable.encode()), (b"Authorization", f"Bearer {token}".encode())]
        answer = await bed.client.post(JWT_ROUTE, json=request("ping"), headers=raw)
        ours = answer.headers["X-Request-Id"]
        assert ours != unusable
        assert stub.received[-1].value("X-Request-Id") == ours
    refused = await bed.post(request("ping"), headers=(("X-Request-Id", given),))
    assert refused.headers["X-Request-Id"] == given
    assert [record["request_id"] for record in bed.accesses()].count(given) == 2


async def test_http_1_0_is_served_where_a_length_says_where_it_ends(start: Start) -> None:
    """Some proxies still ask by it."""
    bed = await start()
    body = json.dumps(request("ping")).encode()
    head = f"POST {JWT_ROUTE} HTTP/1.0\r\nHost: s\r\nAuthorization: Bearer {bed.token()}\r\n".encode()
    head += b"Content-Type: application/json\r\n"
    answer = await bed.raw(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.status == 200
