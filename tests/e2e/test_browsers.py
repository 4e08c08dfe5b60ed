"""Pages in browsers: ours and those the operator lists may ask, no other one, and no name but ours leads here."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, PUBLIC_URL, assert_refused, credentials, request, tool_call
from tests.e2e.conftest import Start
from tests.mcp_server import Stream, StubUpstream, reply

APP = "https://app.example"
EVIL = "https://evil.example"
BODY = json.dumps(request("ping")).encode()
WANTS_POST = (("Access-Control-Request-Method", "POST"),)
EXPOSED = {
    *("mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after", "x-request-id"),
    *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy", "ratelimit"),
}
ALLOWED_HEADERS = {
    *("authorization", "content-type", "accept", "x-api-key", "mcp-session-id", "mcp-protocol-version"),
    *("last-event-id", "mcp-method", "mcp-name", "x-custom-auth-headers"),
}


def names(value: str) -> set[str]:
    return {name.strip().lower() for name in value.split(",")}


def assert_readable(answer: httpx.Response, origin: str = APP) -> None:
    """The page sees this answer, and all of it that it needs."""
    assert answer.headers.get_list("Access-Control-Allow-Origin") == [origin]
    assert "origin" in names(answer.headers["Vary"])
    assert names(answer.headers["Access-Control-Expose-Headers"]) >= EXPOSED
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_request_under_another_name_is_refused_wherever_it_goes(start: Start, stub: StubUpstream) -> None:
    """DNS rebinding: the page's own name leads here, and the browser takes us for the page's server."""
    bed = await start()
    for path in (JWT_ROUTE, KEY_ROUTE, KEYS, f"{KEYS}/key_x", "/", "/mcp/"):
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]", ""):
            lines = f"Host: {host}\r\nAuthorization: Bearer {bed.token()}\r\nContent-Type: application/json"
            head = f"POST {path} HTTP/1.1\r\n{lines}\r\nContent-Length: {len(BODY)}\r\n\r\n"
            answer = await bed.raw(head.encode() + BODY)
            assert answer.status == 421
            assert b'"HOST_NOT_ALLOWED"' in answer.body
            assert not answer.values("WWW-Authenticate")
            assert not answer.values("X-RateLimit-Limit")
    assert stub.received == []


async def test_a_foreign_name_gets_a_json_rpc_error_with_the_id_and_rest_gets_a_problem(start: Start) -> None:
    bed = await start()
    elsewhere = (("Host", "evil.example"),)
    answer = await bed.post(request("ping", id="seven"), token=bed.token(), headers=elsewhere)
    assert_refused(answer, 421, "HOST_NOT_ALLOWED", id="seven")
    problem = await bed.client.get(KEYS, headers=[*elsewhere, *credentials(token=bed.token())])
    assert (problem.status_code, problem.json()["errorType"]) == (421, "HOST_NOT_ALLOWED")
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert {record["reason"] for record in bed.accesses()} == {"host_not_allowed"}


@pytest.mark.parametrize("host", ["", "Host: sidecar\r\nHost: sidecar\r\n", "Host: sidecar\r\nhost: evil.example\r\n"])
async def test_a_request_has_exactly_one_host(start: Start, stub: StubUpstream, host: str) -> None:
    """RFC 9112 section 3.2."""
    bed = await start(allowed_hosts=["*"])
    for version in ("1.1", "1.0"):
        lines = f"{host}Authorization: Bearer {bed.token()}\r\nContent-Type: application/json"
        head = f"POST /mcp HTTP/{version}\r\n{lines}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        assert (await bed.raw(head.encode() + BODY)).status == 400
    assert stub.received == []


async def test_the_operators_names_lead_here(start: Start) -> None:
    bed = await start(allowed_hosts=["mcp.internal", "*.cluster.example"])
    for host in ("127.0.0.1:1", "LOCALHOST", "[::1]", "mcp.internal:80", "a.b.cluster.example."):
        answer = await bed.post(request("ping"), token=bed.token(), headers=(("Host", host),))
        assert answer.status_code == 200
    for host in ("sidecar", "cluster.example"):
        answer = await bed.post(request("ping"), token=bed.token(), headers=(("Host", host),))
        assert answer.status_code == 421
    anyone = await start(allowed_hosts=["*"])
    assert (await anyone.post(request("ping"), token=anyone.token(), headers=(("Host", "x.test"),))).status_code == 200


async def test_the_admin_port_asks_for_no_name(start: Start) -> None:
    bed = await start()
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await bed.admin.get(path, headers={"Host": "10.1.2.3:9090"})).status_code == 200


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:9999", f"{PUBLIC_URL}/", "", f"{APP}.evil.example"])
async def test_a_page_of_another_origin_is_refused_and_can_not_even_read_why(
    start: Start, stub: StubUpstream, origin: str
) -> None:
    """MCP 2025-11-25, transports, "Security Warning"."""
    bed = await start(allowed_origins=[APP])
    page = (("Origin", origin),)
    answer = await bed.post(request("ping", id=5), token=bed.token(), headers=page)
    assert_refused(answer, 403, "ORIGIN_NOT_ALLOWED", id=5)
    others = [
        *[
            await bed.client.request(m, JWT_ROUTE, headers=[*page, *credentials(token=bed.token())])
            for m in ("GET", "DELETE")
        ],
        await bed.post(request("ping"), key=await bed.key(), headers=page),
        await bed.client.get(KEYS, headers=[*page, *credentials(token=bed.token())]),
        await bed.client.options(JWT_ROUTE, headers=[*page, *WANTS_POST]),
        await bed.client.get("/nowhere", headers=page),
    ]
    for refused in (answer, *others):
        assert refused.status_code == 403
        assert "WWW-Authenticate" not in refused.headers
        assert not any(name.startswith("access-control-") for name in refused.headers)
    assert stub.received == []


async def test_a_foreign_page_and_a_foreign_name_stay_http_refusals_where_others_are_in_band(start: Start) -> None:
    bed = await start(routes=[{"path": JWT_ROUTE, "credentials": ["jwt"], "denials": "in_band"}])
    for lines, status in (((("Origin", EVIL),), 403), ((("Host", "evil.example"),), 421)):
        answer = await bed.post(request("ping"), token=bed.token(), headers=lines)
        assert answer.status_code == status


@pytest.mark.parametrize("origin", [PUBLIC_URL, "http://localhost:8080", "http://[::1]:8080", APP, "app://inspector"])
async def test_our_own_pages_and_those_the_operator_lists_may_ask(start: Start, origin: str) -> None:
    bed = await start(allowed_origins=[APP, "app://inspector"])
    answer = await bed.post(request("ping"), token=bed.token(), headers=(("Origin", origin),))
    assert answer.status_code == 200
    assert_readable(answer, origin)


async def test_who_is_no_page_is_asked_for_no_origin(start: Start) -> None:
    bed = await start()
    answer = await bed.post(request("ping"), token=bed.token())
    assert answer.status_code == 200
    assert answer.headers["Vary"] == "Origin"
    assert not any(name.startswith("access-control-") for name in answer.headers)


async def test_every_answer_is_readable_by_an_allowed_page_whatever_it_says(start: Start, stub: StubUpstream) -> None:
    policy = {"name": "account", "requests": 1, "window_s": 3600}
    bed = await start(allowed_origins=[APP], limits={"policies": [policy]}, max_body_bytes=1000)
    page: tuple[tuple[str, str], ...] = (("Origin", APP),)

    async def post(message: Any = None, *, sub: str = "alice", scope: str = "mcp:full", **how: Any) -> httpx.Response:
        return await bed.post(message or request("ping"), token=bed.token(scope, sub=sub), headers=page, **how)

    answers = {
        401: await bed.post(request("ping"), headers=page),
        403: await post(tool_call("put"), scope="mcp:read"),
        400: await post(b"{"),
        413: await post(tool_call("look", text="x" * 1000)),
        405: await bed.client.put(JWT_ROUTE, headers=page),
        404: await bed.client.get("/nowhere", headers=page),
        202: await post({"jsonrpc": "2.0", "method": "notifications/gossip"}, scope="mcp:read"),
        421: await bed.client.get(JWT_ROUTE, headers=[*page, ("Host", "evil.example")]),
        200: await post(),
        429: await post(),
    }
    stub.answer = reply(401)
    answers[502] = await post(sub="bob")
    for status, answer in answers.items():
        assert answer.status_code == status
        assert_readable(answer)


async def test_every_answer_of_the_key_management_is_readable_by_an_allowed_page(start: Start) -> None:
    bed = await start(allowed_origins=[APP])
    page = (("Origin", APP), *credentials(token=bed.token()))
    made = await bed.client.post(KEYS, headers=page, json={"name": "x"})
    bed.secret(made.json()["key"])
    answers = {
        201: made,
        200: await bed.client.get(KEYS, headers=page),
        204: await bed.client.delete(f"{KEYS}/{made.json()['id']}", headers=page),
        404: await bed.client.get(f"{KEYS}/key_000000000000", headers=page),
        405: await bed.client.put(KEYS, headers=page),
        401: await bed.client.get(KEYS, headers=page[:1]),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert_readable(answer)


async def test_a_stream_is_readable_by_an_allowed_page(start: Start, stub: StubUpstream) -> None:
    bed, stream = await start(allowed_origins=[APP]), Stream()
    stub.answer = stream.answer
    async with asyncio.timeout(5):
        asking = bed.client.build_request(
            "GET",
            JWT_ROUTE,
            headers=[("Origin", APP), ("Accept", "text/event-stream"), *credentials(token=bed.token())],
        )
        answer = await bed.client.send(asking, stream=True)
        assert_readable(answer)
        stream.end()
        await answer.aclose()


async def test_what_the_upstream_says_of_pages_is_replaced(start: Start, stub: StubUpstream) -> None:
    bed = await start(allowed_origins=[APP])
    stub.answer = reply(
        200,
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        Access_Control_Allow_Origin="*",
        Access_Control_Allow_Credentials="true",
        Access_Control_Expose_Headers="X-Secret",
        Vary="Accept-Encoding",
    )
    answer = await bed.post(request("ping"), token=bed.token(), headers=(("Origin", APP),))
    assert_readable(answer)
    assert "x-secret" not in names(answer.headers["Access-Control-Expose-Headers"])
    assert names(", ".join(answer.headers.get_list("Vary"))) == {"accept-encoding", "origin"}
    assert "Origin" not in dict(stub.only.headers)


@pytest.mark.parametrize("path", [JWT_ROUTE, KEY_ROUTE])
async def test_a_preflight_is_answered_before_authentication_and_costs_nothing(
    start: Start, stub: StubUpstream, path: str
) -> None:
    bed = await start(allowed_origins=[APP], limits={"failed_auth": {"requests": 1, "window_s": 60}})
    asked = [("Origin", APP), *WANTS_POST, ("Access-Control-Request-Headers", "content-type,mcp-param-Region,x-evil")]
    for _ in range(3):
        answer = await bed.client.options(path, headers=asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert_readable(answer)
        assert names(answer.headers["Access-Control-Allow-Methods"]) == {"get", "post", "delete", "options"}
        allowed = names(answer.headers["Access-Control-Allow-Headers"])
        assert allowed >= ALLOWED_HEADERS | {"mcp-param-region"}
        assert not allowed & {"x-evil", "*"}
        assert 600 <= int(answer.headers["Access-Control-Max-Age"]) <= 86_400
        assert not any("ratelimit" in name for name in answer.headers)
    assert {(record["outcome"], record["status"]) for record in bed.accesses()} == {("answered", 204)}
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
    assert len(stub.received) == 1


async def test_a_preflight_of_the_key_management_names_the_methods_of_its_path(start: Start) -> None:
    bed = await start()
    asked = [("Origin", PUBLIC_URL), *WANTS_POST]
    for path, methods in (
        (KEYS, {"get", "post", "options"}),
        (f"{KEYS}/key_000000000000", {"get", "delete", "options"}),
        (f"{KEYS}/key_000000000000/rotate", {"post", "options"}),
        (f"{KEYS}/key_000000000000/usage", {"get", "options"}),
        (f"{KEYS}/activity", {"get", "options"}),
    ):
        answer = await bed.client.options(path, headers=asked)
        assert answer.status_code == 204
        assert names(answer.headers["Access-Control-Allow-Methods"]) == methods
    for path in ("/nowhere", f"{KEYS}/key_000000000000/nothing"):
        assert (await bed.client.options(path, headers=asked)).status_code == 404


async def test_headers_that_the_operator_lets_pass_may_be_sent_by_pages(start: Start) -> None:
    bed = await start(upstream={"pass_headers": ["X-Tenant"]})
    answer = await bed.client.options(JWT_ROUTE, headers=[("Origin", PUBLIC_URL), *WANTS_POST])
    assert "x-tenant" in names(answer.headers["Access-Control-Allow-Headers"])


async def test_options_that_is_no_preflight_is_a_method_like_any_other(start: Start) -> None:
    bed = await start()
    for lines in ([("Origin", PUBLIC_URL)], [*WANTS_POST], []):
        answer = await bed.client.options(JWT_ROUTE, headers=lines)
        assert_refused(answer, 405, "METHOD_NOT_ALLOWED", id=None)
        assert names(answer.headers["Allow"]) == {"get", "post", "delete"}
