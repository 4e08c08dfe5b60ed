"""Every refusal: exactly this status, body and id, and nothing forwarded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sidecar.edge.http import server
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, assert_refused, notification, request, tool_call, with_other_secret
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream

TOKEN_REFUSED = "Token does not have permission for this operation"
KEY_REFUSED = "API key does not have permission for this operation"
BAD_TOKEN = "Invalid or expired authentication token"
BAD_KEY = "API key not found or has been revoked"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def nothing_forwarded(stub: StubUpstream) -> Iterator[None]:
    """None of these requests may ever reach the upstream."""
    yield
    assert stub.received == []


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("message_id", [7, 0, "seven", "", "7"])
async def test_a_refusal_carries_the_id_of_the_request_in_its_own_type(
    start: Start, message_id: str | int, era: Any
) -> None:
    bed = await start()
    message = tool_call("put", id=message_id)
    assert_refused(await bed.post(message, era=era), 401, "INVALID_TOKEN", id=message_id, text=BAD_TOKEN)
    bad_key = bed.secret("mcp_" + "0" * 46)
    assert_refused(await bed.post(message, key=bad_key, era=era), 401, "INVALID_API_KEY", id=message_id, text=BAD_KEY)
    token = bed.token("mcp:read")
    answer = await bed.post(message, token=token, era=era)
    assert_refused(answer, 403, "INSUFFICIENT_SCOPE", id=message_id, text=TOKEN_REFUSED)
    key = await bed.key("mcp:read")
    answer = await bed.post(message, key=key, era=era)
    assert_refused(answer, 403, "INSUFFICIENT_SCOPE", id=message_id, text=KEY_REFUSED)


async def test_a_refusal_after_the_body_was_judged_carries_the_id_whatever_the_size(start: Start) -> None:
    bed = await start()
    message = tool_call("put", id="large", text="x" * 300_000)
    answer = await bed.post(message, token=bed.token("mcp:read"))
    assert_refused(answer, 403, "INSUFFICIENT_SCOPE", id="large")


async def test_a_stranger_with_a_large_body_gets_a_null_id_and_a_closed_connection(start: Start) -> None:
    bed = await start()
    answer = await bed.post(tool_call("put", id=7, text="x" * 3_000_000))
    assert_refused(answer, 401, "INVALID_TOKEN", id=None)
    assert answer.headers["Connection"] == "close"


async def test_a_stranger_that_holds_its_body_back_is_answered_all_the_same(start: Start) -> None:
    bed = await start()
    answer = await bed.raw(b"POST /mcp HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 500\r\n\r\n{")
    assert_refused(answer, 401, "INVALID_TOKEN", id=None)
    assert answer.values("Connection") == ["close"]


async def test_a_stranger_that_asks_before_sending_is_refused_without_an_interim_answer(start: Start) -> None:
    bed = await start()
    head = b"POST /mcp HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n"
    answer = await bed.raw(head)
    assert_refused(answer, 401, "INVALID_TOKEN", id=None)


async def test_a_body_that_waits_to_be_asked_for_is_not_read_for_its_id_even_when_it_is_there(start: Start) -> None:
    bed = await start()
    body = json.dumps(request("ping", id=7)).encode()
    head = f"POST /mcp HTTP/1.1\r\nHost: sidecar\r\nContent-Length: {len(body)}\r\n"
    waiting = await bed.raw(f"{head}Expect: 100-continue\r\n\r\n".encode() + body)
    assert_refused(waiting, 401, "INVALID_TOKEN", id=None)
    assert waiting.values("Connection") == ["close"]
    assert_refused(await bed.raw(f"{head}\r\n".encode() + body), 401, "INVALID_TOKEN", id=7)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_refusal_without_a_message_has_a_null_id(start: Start, method: str) -> None:
    bed = await start()
    assert_refused(await bed.client.request(method, JWT_ROUTE), 401, "INVALID_TOKEN", id=None)
    assert_refused(await bed.client.request(method, KEY_ROUTE), 401, "INVALID_API_KEY", id=None)


async def test_an_account_that_no_header_can_carry_is_403(start: Start) -> None:
    bed = await start()
    for sub in ("", "with space", "ümlaut", "x" * 256, "a\nb"):
        answer = await bed.post(request("ping"), token=bed.token(sub=sub))
        assert_refused(answer, 403, "ACCOUNT_UNUSABLE")
        assert "WWW-Authenticate" not in answer.headers


async def test_401_names_the_scheme_and_403_the_missing_scope(start: Start) -> None:
    bed = await start()
    assert (await bed.post(request("ping"))).headers["WWW-Authenticate"].startswith("Bearer")
    bad = await bed.post(request("ping"), token=bed.secret("not.a.token-signature"))
    assert 'error="invalid_token"' in bad.headers["WWW-Authenticate"]
    missing = await bed.post(tool_call("put"), token=bed.token("mcp:read"))
    challenge = missing.headers["WWW-Authenticate"]
    assert challenge.startswith("Bearer ")
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="mcp:full mcp:read"' in challenge
    keyless = await bed.post(request("ping"), path=KEY_ROUTE)
    assert keyless.headers.get_list("WWW-Authenticate") == ['ApiKey realm="mcp"']
    scopeless = await bed.post(tool_call("put"), key=await bed.key("mcp:read"))
    assert "WWW-Authenticate" not in scopeless.headers


@pytest.mark.parametrize(
    ("era", "body", "code", "message_id"),
    [
        ("legacy", b"{", 400, None),
        ("modern", b"{", -32700, None),
        ("legacy", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, None),
        ("modern", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
        ("legacy", b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"ping"}', 400, None),
        ("modern", b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"ping"}', -32600, None),
        ("legacy", b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{}}', 400, "a"),
        ("modern", b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{}}', -32602, "a"),
        ("modern", b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"put"}}', -32020, 2),
        ("modern", b'{"jsonrpc":"2.0","id":2,"result":{}}', -32600, 2),
        ("modern", b'{"jsonrpc":"2.0","id":null,"method":"tools/call"}', -32600, None),
    ],
)
async def test_a_malformed_message_is_400_with_the_code_of_its_era(
    start: Start, era: str, body: bytes, code: int, message_id: str | int | None
) -> None:
    bed = await start()
    version = (("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call")) if era == "modern" else ()
    answer = await bed.post(body, token=bed.token(), headers=version)
    assert_refused(answer, 400, "INVALID_REQUEST", id=message_id, code=code)


@pytest.mark.parametrize(
    "routing",
    [
        (("Mcp-Method", "tools/list"),),
        (("Mcp-Name", "look"),),
        (("Mcp-Name", "=?base64?bG9vaw==?="),),
        (("Mcp-Name", "put"), ("Mcp-Name", "put")),
        (("Mcp-Method", "tools/call"), ("Mcp-Method", "tools/call")),
        (("Mcp-Method", ""),),
    ],
)
async def test_routing_headers_that_disagree_with_the_body_are_refused(
    start: Start, routing: tuple[tuple[str, str], ...]
) -> None:
    bed = await start()
    answer = await bed.post(tool_call("put"), token=bed.token(), era="modern", headers=routing)
    assert_refused(answer, 400, "INVALID_REQUEST", code=-32020)


async def test_an_unknown_method_is_not_found_rather_than_forbidden(start: Start) -> None:
    bed = await start()
    token = bed.token("mcp:read")
    assert_refused(
        await bed.post(request("books/burn", id="u"), token=token, era="modern"), 404, "NOT_FOUND", id="u", code=-32601
    )
    legacy = await bed.post(request("books/burn", id="u"), token=token)
    assert legacy.status_code == 200
    assert legacy.json()["id"] == "u"
    assert legacy.json()["error"]["code"] == -32601


async def test_unknown_notifications_are_dropped_quietly(start: Start) -> None:
    bed = await start()
    answer = await bed.post(notification("notifications/gossip"), token=bed.token("mcp:read"))
    assert (answer.status_code, answer.content) == (202, b"")


async def test_any_other_path_is_404(start: Start) -> None:
    bed = await start()
    near_misses = ("/mcp/", "//mcp", "/MCP", "/%6dcp", "/mcp/../mcp", "/mcp/.", "/mcp;x=1", "/mcp/inspector/")
    for target in ("/", *near_misses, "/metrics", "/livez", "/.well-known/", "/.well-known/sidecar-keys.json/"):
        answer = await bed.raw(f"GET {target} HTTP/1.1\r\nHost: sidecar\r\n\r\n".encode())
        assert answer.status == 404, target
        assert b"NOT_FOUND" in answer.body


async def test_any_other_method_is_405_and_names_the_right_ones(start: Start) -> None:
    bed = await start()
    for path in (JWT_ROUTE, KEY_ROUTE):
        for method in ("PUT", "PATCH", "OPTIONS", "PROPFIND"):
            answer = await bed.raw(f"{method} {path} HTTP/1.1\r\nHost: sidecar\r\n\r\n".encode())
            assert_refused(answer, 405, "METHOD_NOT_ALLOWED", id=None)
            (allowed,) = answer.values("Allow")
            assert {name.strip() for name in allowed.split(",")} == {"GET", "POST", "DELETE"}


async def test_a_body_over_the_limit_is_413(start: Start) -> None:
    bed = await start(max_body_bytes=100_000)
    answer = await bed.post(tool_call("look", text="x" * 100_000), token=bed.token())
    assert_refused(answer, 413, "PAYLOAD_TOO_LARGE", id=None)
    declared = b"POST /mcp HTTP/1.1\r\nHost: sidecar\r\nContent-Type: application/json\r\nContent-Length: 100001\r\n"
    answered = await bed.raw(declared + f"Authorization: Bearer {bed.token()}\r\n\r\n".encode())
    assert_refused(answered, 413, "PAYLOAD_TOO_LARGE", id=None)
    assert answered.values("Connection") == ["close"]


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(start: Start) -> None:
    bed = await start(max_body_bytes=100_000)
    head = f"POST /mcp HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nAuthorization: Bearer {bed.token()}\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = await bed.raw(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2)
    assert_refused(answer, 413, "PAYLOAD_TOO_LARGE", id=None)


@pytest.mark.parametrize(
    "headers",
    [
        (("Content-Type", "text/plain"),),
        (("Content-Type", "application/json; charset=utf-16"),),
        (("Content-Type", "application/json"), ("Content-Encoding", "gzip")),
        (("Content-Type", "application/json"), ("Content-Encoding", "br")),
    ],
)
async def test_a_body_that_is_not_plain_json_is_415(start: Start, headers: tuple[tuple[str, str], ...]) -> None:
    bed = await start()
    answer = await bed.post(tool_call("look", id="m"), token=bed.token(), headers=headers)
    assert_refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE", id="m")


async def test_headers_that_are_too_large_are_431(start: Start) -> None:
    bed = await start()
    filler = "x" * 200_000
    answer = await bed.raw(f"POST /mcp HTTP/1.1\r\nHost: sidecar\r\nX-Filler: {filler}\r\n\r\n".encode())
    assert answer.status == 431


async def test_a_tool_whose_class_is_not_known_yet_is_503(start: Start) -> None:
    bed = await start(upstream={"url": NOWHERE}, access={"tools": {"read": [], "write": [], "destructive": []}})
    answer = await bed.post(tool_call("look"), token=bed.token("mcp:read"))
    assert_refused(answer, 503, "UPSTREAM_UNAVAILABLE")


async def test_an_issuer_whose_keys_never_came_is_503(start: Start) -> None:
    issuer = {"issuer": "http://127.0.0.1:9"}
    bed = await start(jwt={"issuers": [issuer]})
    answer = await bed.post(request("ping"), token=bed.token(iss=issuer["issuer"]))
    assert_refused(answer, 503, "ISSUER_UNAVAILABLE")
    assert "WWW-Authenticate" not in answer.headers


async def test_more_new_secrets_than_can_be_checked_are_503_and_never_401_for_the_right_one(start: Start) -> None:
    bed = await start(api_keys={"bcrypt_cost": 9})
    key = await bed.key()
    wrong = [bed.secret(with_other_secret(key, number)) for number in range(120)]
    answers = await asyncio.gather(*(bed.post(request("ping"), key=text) for text in wrong))
    assert {answer.status_code for answer in answers} == {401, 503}
    overloaded = next(answer for answer in answers if answer.status_code == 503)
    assert_refused(overloaded, 503, "OVERLOADED")


async def test_a_refusal_is_sent_also_when_no_more_bodies_can_be_held(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LEAST_BYTES", 0)
    bed = await start(max_body_bytes=1)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 20_000

    answer = await bed.client.post(JWT_ROUTE, content=body(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 401
